"""Faults of hosts and of their agents (FAULTS 3, 5, 6): without proof nobody is replaced who may still be writing."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from redis.exceptions import ResponseError
from tests.faults.scene import Scene, lost_before, scene, writing

from redkeep.decide.fencing import SELF_FENCE
from redkeep.model.instance import Instance
from redkeep.model.operation import Kind
from redkeep.orders import BusAgents
from redkeep.testing.stack import kill_at

pytestmark = [pytest.mark.real, pytest.mark.faults]

DETECTION = 1.25 + 1.75
"""Silence of a host, and the wait until the word of whoever was primary there is over for certain."""


async def test_3_a_server_without_its_agent_is_fenced_by_a_neighbour_and_nothing_is_lost() -> None:
    """The replicas' hosts reach it: one of them fences it, its successor catches up, and only then is promoted."""
    async with scene(hosts=3) as playing, writing(playing) as writer, playing.never_two_primaries():
        old, process = await playing.primary(), playing.process(await playing.primary())
        await playing.hosts[old.host_id or ""].kill()

        await playing.until_another(old, 30)

        assert process.is_running()
        assert not await playing.accepts_writes(old)
        await writer.further(200)
        await playing.found.start_agent(old.host_id or "")
        await playing.settled(servers=3)
        assert playing.process(old).pid == process.pid
        await writer.stop()
        assert await writer.lost() == []
    assert playing.overlaps == []


@pytest.mark.parametrize("replicas", [1, 2])
async def test_3_a_server_whose_agent_and_replicas_are_gone_refuses_writes_by_itself(replicas: int) -> None:
    """A host that loses its network and its agent: nobody is left to fence it but Redis."""
    async with scene(hosts=1 + replicas, replicas=replicas) as playing:
        primary = await playing.primary()
        await playing.found.eventually(partial(_is_guarded, playing, primary), what="its guard")
        await playing.managers[0].kill()
        for part in playing.hosts.values():
            await part.kill()

        assert await playing.accepts_writes(primary)
        for one in await playing.replicas():
            playing.process(one).suspend()  # no connection ends, as with a cable that was pulled
        began = time.monotonic()
        await playing.found.eventually(partial(_refuses, playing, primary), 30, what="the end of its right to write")
        print(f"refused {time.monotonic() - began:.1f} s after the last acknowledgement, bound {SELF_FENCE:g} s")

        for one in await playing.replicas():
            playing.process(one).resume()
        await playing.found.eventually(partial(playing.accepts_writes, primary), 30, what="its replicas' return")


async def test_a_guard_costs_nothing_while_the_replicas_follow_and_hardly_anything_when_the_only_one_dies() -> None:
    async with scene(hosts=2, replicas=1) as playing, writing(playing) as writer, playing.never_two_primaries():
        primary, (replica,) = await playing.primary(), await playing.replicas()
        await playing.found.eventually(partial(_is_guarded, playing, primary), what="its guard")
        await writer.further(200)

        began = time.monotonic()
        playing.process(replica).kill()
        await writer.further(200)
        await playing.settled(servers=2)
        await playing.found.eventually(partial(_is_guarded, playing, primary), what="its guard again")

        assert (await playing.primary()).id == primary.id
        gap = writer.longest_gap(began).seconds
        print(f"{gap * 1000:.0f} ms without an acknowledged write")
        assert gap < 2
        await writer.stop()
        assert await writer.lost() == []


async def test_a_replica_that_is_restarted_by_order_costs_its_guarded_primary_no_write() -> None:
    async with scene(hosts=2, replicas=1) as playing:
        primary, (replica,) = await playing.primary(), await playing.replicas()
        await playing.found.eventually(partial(_is_guarded, playing, primary), what="its guard")
        process, refused, done = playing.process(replica), list[str](), asyncio.Event()

        async def write() -> None:
            """To this server and no other: the driver would repeat what is refused."""
            async with playing.redis(primary) as redis:
                while not done.is_set():
                    try:
                        await redis.set("key", "value")
                    except ResponseError as error:
                        refused.append(str(error))
                    await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            await playing.found.call("POST", f"/instances/{replica.id}/action", {"restart": {}})
            await playing.found.eventually(lambda: asyncio.sleep(0, not process.is_running()), what="its end")
            await playing.settled(servers=2)
            done.set()

        assert not refused


async def test_4_an_agent_that_comes_back_in_time_changes_nothing() -> None:
    async with scene(hosts=3) as playing, writing(playing) as writer, playing.never_two_primaries():
        old, servers = await playing.primary(), {one.pid for one in playing.found.redis_processes()}
        await playing.hosts[old.host_id or ""].kill()
        began = time.monotonic()

        await asyncio.sleep(2.5)  # twice the time after which its host counts as silent
        await playing.found.start_agent(old.host_id or "")
        await playing.found.eventually(partial(_confirmed, playing, old), what="its agent's return")
        await playing.settled(servers=3)

        assert (await playing.primary()).id == old.id
        assert {one.pid for one in playing.found.redis_processes()} == servers
        assert not [one for one in await playing.events() if one.kind == Kind.FAIL_OVER]
        assert writer.longest_gap(began).seconds < 2
        await writer.stop()
        assert await writer.lost() == []
    assert playing.overlaps == []


async def test_5_an_agent_killed_with_its_server_is_a_lost_host_and_its_return_changes_nothing() -> None:
    async with scene(hosts=3) as playing, writing(playing) as writer, playing.never_two_primaries():
        old, fault = await playing.primary(), time.monotonic()
        process = playing.process(old)

        await playing.hosts[old.host_id or ""].kill()
        process.kill()

        await playing.until_another(old, DETECTION + 12)
        await writer.further(200)
        await playing.found.start_agent(old.host_id or "")
        await playing.settled(servers=3)
        await writer.stop()
        await lost_before(writer, fault, 1)
    assert playing.overlaps == []


async def test_6_a_lost_host_is_replaced_and_what_returns_is_fenced_before_it_writes() -> None:
    async with scene(hosts=3) as playing, writing(playing) as writer, playing.never_two_primaries():
        old, fault = await playing.primary(), time.monotonic()

        lost = await playing.lose_host(old)
        new = await playing.until_another(old, DETECTION + 12)
        await writer.further(200)
        assert new.host_id != old.host_id

        await playing.found.start_agent(old.host_id or "")  # it finds its server stopped, and ends it
        await playing.found.eventually(lambda: asyncio.sleep(0, not lost[0].is_running()), 10, what="its end")
        await playing.settled(servers=3)
        await writer.stop()
        await lost_before(writer, fault, 1)
    assert playing.overlaps == []


async def test_6_a_primary_that_wakes_up_before_its_agent_writes_for_no_longer_than_the_agent_is_away() -> None:
    """Nobody but its agent can stop it then; clients that follow the news have gone to its successor."""
    async with scene(hosts=3) as playing:
        old = await playing.primary()
        lost = await playing.lose_host(old)
        await playing.until_another(old, DETECTION + 12)

        lost[0].resume()
        await playing.found.start_agent(old.host_id or "")

        refused = time.monotonic()
        await playing.found.eventually(partial(_refuses, playing, old), 2, what="the fence")
        assert time.monotonic() - refused < 2
        await playing.settled(servers=3)


@pytest.mark.parametrize("step", ["isolate", "wait out its word", "choose again", "promote", "record", "repoint"])
async def test_15_a_failover_without_proof_is_finished_by_another_manager(step: str) -> None:
    """Killed after the promotion it must not be taken back: two would be primary."""
    dead = asyncio.Event()
    async with scene(hosts=3, at_step=kill_at(Kind.FAIL_OVER, step, dead)) as playing:
        old = await playing.primary()
        async with playing.never_two_primaries():
            await playing.lose_host(old)
            async with asyncio.timeout(DETECTION + 12):
                await dead.wait()
            await playing.managers[0].kill()

            await playing.found.start_manager("second")
            new = await playing.until_another(old, DETECTION + 14)
            await playing.found.start_agent(old.host_id or "")
            await playing.settled(servers=3)
        assert (await playing.primary()).id == new.id
    assert playing.overlaps == []


@pytest.mark.parametrize("step", ["fence from afar", "catch up", "promote", "record"])
async def test_15_a_takeover_is_finished_by_another_manager(step: str) -> None:
    """Of a primary that serves without its agent: whoever goes on finds it fenced, or fences it again."""
    dead = asyncio.Event()
    async with scene(hosts=3, at_step=kill_at(Kind.FAIL_OVER, step, dead)) as playing:
        old = await playing.primary()
        async with writing(playing) as writer, playing.never_two_primaries():
            await playing.hosts[old.host_id or ""].kill()
            async with asyncio.timeout(40):
                await dead.wait()
            await playing.managers[0].kill()

            await playing.found.start_manager("second")
            new = await playing.until_another(old, 40)
            await writer.further(100, 30)
            await playing.found.start_agent(old.host_id or "")
            await playing.settled(servers=3)
            await writer.stop()
            assert await writer.lost() == []
        assert (await playing.primary()).id == new.id
    assert playing.overlaps == []


async def _confirmed(playing: Scene, one: Instance) -> bool:
    said = await playing.found.call("GET", "/status")
    return all(member["health"] == "ok" for member in said["members"] if member["id"] == one.id)


async def _is_guarded(playing: Scene, one: Instance) -> bool:
    bus = playing.found.bus("asks for guards")
    try:
        (facts,) = await BusAgents(bus).look(one.host_id or "", [one.id])
    finally:
        await bus.close()
    return facts.guarded


async def _refuses(playing: Scene, one: Instance) -> bool:
    return not await playing.accepts_writes(one)

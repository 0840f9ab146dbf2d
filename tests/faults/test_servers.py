"""Faults of servers: killed, stopped, back without their data (FAULTS 1, 2, 5, 7, 9, 17, 21)."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from functools import partial

import pytest
from redis.exceptions import RedisError
from tests.faults.scene import Scene, lost_before, scene, writing

from redkeep.decide.liveness import Patience
from redkeep.model.instance import Instance
from redkeep.redis.versions import find_servers

pytestmark = [pytest.mark.real, pytest.mark.faults]


@pytest.mark.parametrize("version", find_servers())
async def test_1_a_killed_primary_is_replaced_in_time_and_returns_as_a_replica(version: str) -> None:
    async with scene(version=version) as playing, writing(playing) as writer, playing.never_two_primaries():
        old = await playing.primary()
        fault = time.monotonic()

        playing.process(old).kill()

        await playing.until_another(old, 5)
        await writer.further(200)
        await playing.settled(servers=3)
        assert writer.longest_gap(fault).seconds < 3
        assert old.id in {one.id for one in await playing.replicas()}
        await writer.stop()
        await lost_before(writer, fault, 1)


async def test_2_a_stopped_primary_is_dead_before_it_can_acknowledge_another_write() -> None:
    async with scene() as playing, writing(playing) as writer, playing.never_two_primaries():
        old = await playing.primary()
        process, fault = playing.process(old), time.monotonic()

        process.suspend()
        await playing.until_another(old, 8)

        assert not process.is_running()
        await writer.further(200)
        await playing.settled(servers=3)
        await writer.stop()
        await lost_before(writer, fault, 1)
    assert playing.overlaps == []


async def test_7_a_primary_that_lost_its_data_takes_nobody_elses() -> None:
    async with scene() as playing:
        old = await playing.primary()
        async with playing.redis(old) as redis:
            await redis.mset({f"key:{number}": "kept" for number in range(500)})
            await redis.wait(2, 2000)
        directory = playing.found.directory / (old.host_id or "") / old.id

        playing.process(old).kill()
        for file in [*directory.glob("*.rdb"), *directory.glob("*.aof"), *directory.glob("appendonlydir/*")]:
            file.unlink()

        await playing.until_another(old, 5)
        await playing.settled(servers=3)
        for one in await playing.members():
            assert await playing.keys(one) >= 500


async def test_8_a_primary_whose_directory_is_gone_is_replaced_and_gets_its_data_back_as_a_replica() -> None:
    async with scene() as playing:
        old = await playing.primary()
        async with playing.redis(old) as redis:
            await redis.mset({f"key:{number}": "kept" for number in range(500)})
            await redis.wait(2, 2000)

        playing.process(old).kill()
        shutil.rmtree(playing.found.directory / (old.host_id or "") / old.id)

        await playing.until_another(old, 20)
        await playing.settled(servers=3)
        for one in await playing.members():
            assert await playing.keys(one) >= 500


async def test_8_one_that_comes_back_empty_while_nobody_can_take_its_place_stays_closed_and_says_so() -> None:
    """Its only replica is away. When that is back it has all its data, and takes the place when it is told to."""
    async with scene(hosts=2, replicas=1) as playing:
        primary, (replica,) = await playing.primary(), await playing.replicas()
        async with playing.redis(primary) as redis:
            await redis.mset({f"key:{number}": "kept" for number in range(500)})
            await redis.wait(1, 2000)
        await asyncio.sleep(1.5)  # its agent sees every half second that there is something to lose
        await playing.hosts[replica.host_id or ""].kill()
        playing.process(replica).kill()

        process = playing.process(primary)
        process.kill()
        shutil.rmtree(playing.found.directory / (primary.host_id or "") / primary.id)

        async def told() -> bool:
            return any("came back empty" in event.text for event in await playing.events())

        await playing.found.eventually(told, 40, what="an event that says so")
        assert not await playing.accepts_writes(primary)

        await playing.found.start_agent(replica.host_id or "")

        async def kept() -> bool:
            with contextlib.suppress(RedisError, StopIteration):
                return await playing.keys(replica) >= 500
            return False

        await playing.found.eventually(kept, 30, what="the replica with all its data")
        assert not await playing.accepts_writes(primary)


async def test_9_one_that_is_killed_while_it_loads_comes_back_with_all_it_had() -> None:
    async with scene(replicas=0) as playing:
        (only,) = await playing.members()
        async with playing.redis(only) as redis:
            for start in range(0, 60_000, 5000):
                await redis.mset({f"key:{number}": "x" * 50 for number in range(start, start + 5000)})
        await playing.found.eventually(partial(is_on_disk, playing, only), 10, what="all of it in the file")

        for _ in range(3):
            process = playing.process(only)
            process.kill()
            await playing.found.eventually(partial(another, playing, process.pid), 10, what="its start")

        await playing.settled(servers=1)
        assert await playing.keys(only) >= 60_000


async def test_17_a_replica_that_lags_is_not_promoted_and_nothing_else_happens() -> None:
    async with scene(replicas=1, patience=Patience(stopped=60, silent=60)) as playing:
        primary, (replica,) = await playing.primary(), await playing.replicas()
        playing.process(replica).suspend()
        async with playing.redis(primary) as redis:
            await redis.mset({f"key:{number}": "x" * 100 for number in range(2000)})

        await playing.found.call("POST", f"/instances/{replica.id}/action", {"promote_to_replica_source": {}})
        await playing.found.idle()

        assert (await playing.primary()).id == primary.id
        assert await playing.accepts_writes(primary)
        assert any("not" in event.text and event.kind == "promote_replica" for event in await playing.events())
        playing.process(replica).resume()
        await playing.settled(servers=2)


async def test_every_server_of_a_group_killed_at_once_comes_back_with_all_that_was_acknowledged() -> None:
    """As when the power fails: nobody may promote one that has not loaded what the primary had."""
    async with scene() as playing:
        primary = await playing.primary()
        async with playing.redis(primary) as redis:
            await redis.mset({f"key:{number}": "kept" for number in range(1000)})
            await redis.wait(2, 2000)

        for one in (*await playing.replicas(), primary):
            playing.process(one).kill()

        await playing.settled(servers=3, limit=30)
        for one in await playing.members():
            assert await playing.keys(one) >= 1000


async def another(playing: Scene, killed: int) -> bool:
    found = playing.found.redis_processes()
    return bool(await asyncio.sleep(0, [one for one in found if one.pid != killed]))


async def is_on_disk(playing: Scene, one: Instance) -> bool:
    """While an fsync is under way Redis acknowledges what it has not written yet, for two seconds at the most."""
    async with playing.redis(one) as redis:
        said = await redis.info("persistence")
    return not int(said["aof_buffer_length"]) and not int(said["aof_pending_bio_fsync"])

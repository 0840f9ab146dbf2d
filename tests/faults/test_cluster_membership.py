"""Faults 22, 25, 26 and 38: what goes wrong while clusters are made, grown and shrunk."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil
import pytest
from tests.real.cluster_members import all_there, filled, in_order, members, ranges, seeds, views

from redkeep.model.instance import Instance
from redkeep.model.operation import Kind
from redkeep.northbound import Notice, Publisher, Subscriber, connect
from redkeep.northbound.places import feed_of
from redkeep.operations.placing import SILENT
from redkeep.testing.stack import MEMBER, Stack, stack

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.timeout(300)]

QUICK = {"lease_seconds": 1.0, "look_interval": 0.2}


def process(found: Stack, one: Instance) -> psutil.Process:
    return next(each for each in found.redis_processes() if each.cwd().endswith(one.id))


async def order(found: Stack, primaries: int = 3) -> dict[str, Any]:
    body = {"name": "c", "instances": [MEMBER] * primaries}
    made: dict[str, Any] = (await found.call("POST", "/clusters", {"cluster": body}))["cluster"]
    found.passwords["c"] = made["password"]
    return made


async def agreed(found: Stack, key: str) -> None:
    await found.eventually(lambda: in_order(found, key), what="members of one mind")


@pytest.mark.parametrize("step", ["form", "prepare", "meet", "complete"])
async def test_22_a_primary_dies_while_its_cluster_is_made(step: str) -> None:
    """Before and after it has slots; what dies is started again, and nothing is called ready before all agree."""
    killed: list[str] = []

    def kill_one(kind: Kind, entered: str) -> None:
        if kind is Kind.CREATE_CLUSTER and entered == step and not killed:
            victim = found.redis_processes()[0]
            killed.append(victim.cwd())
            victim.kill()

    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager(at_step=kill_one)

        made = await order(found)
        shown = await found.until_free(made["id"])

        assert killed
        if step != "complete":
            assert await in_order(found, shown["id"]), "it was called ready before all agreed"
        await agreed(found, shown["id"])
        assert {len(owned) for owned in (await ranges(found, shown["id"])).values()} == {1}
        async with await connect(seeds(shown), password=found.passwords["c"]) as client:
            await filled(client, 200)
            assert await all_there(client, 200)


async def test_22_a_cluster_that_cannot_be_made_never_looks_as_if_it_were() -> None:
    """A member's host is lost: the job ends, the cluster says why, and can be deleted when the host is back."""
    limits = {Kind.CREATE_CLUSTER: 6.0, Kind.DELETE_CLUSTER: 60.0}
    hosts: dict[str, Any] = {}
    lost = asyncio.Event()

    def lose_host(kind: Kind, entered: str) -> None:
        if kind is Kind.CREATE_CLUSTER and entered == "prepare" and not lost.is_set():
            lost.set()
            hosts["host-2"].task.cancel()
            for each in found.redis_processes():
                if "/host-2/" in each.cwd():
                    each.kill()

    async with stack(manager_options=QUICK, api_options={"time_limits": limits}) as found:
        for name in ("host-1", "host-2"):
            hosts[name] = await found.start_agent(name)
        await found.start_manager(at_step=lose_host)

        made = await order(found)
        await found.idle(60)

        shown = (await found.call("GET", f"/clusters/{made['id']}"))["cluster"]
        assert lost.is_set()
        assert shown["task"]["name"] == "NONE"
        assert "not created" in shown["fault"]["message"]
        assert {one["status"] for one in shown["instances"]} == {"ERROR"}
        await found.call("POST", f"/clusters/{made['id']}", {"grow": [MEMBER]}, expect=422)
        await found.start_agent("host-2")
        await found.call("DELETE", f"/clusters/{made['id']}", expect=202)
        await found.idle(60)
        assert found.redis_processes() == []


async def test_25_growing_waits_for_all_members_and_not_for_seconds() -> None:
    async with stack(manager_options=QUICK, agent_options={"word_seconds": 1.0}) as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster()
        key, slow = shown["id"], (await members(found, shown["id"]))[1]

        process(found, slow).suspend()
        await found.call("POST", f"/clusters/{key}", {"grow": [MEMBER]})
        until = time.monotonic() + 3
        while time.monotonic() < until:
            task = (await found.call("GET", f"/clusters/{key}"))["cluster"]["task"]["name"]
            assert task == "GROWING_CLUSTER", "it was called done while one member could not know"
            await asyncio.sleep(0.1)
        process(found, slow).resume()
        grown = await found.until_free(key)

        assert await in_order(found, key), "it was called done before all agreed"
        assert len(grown["instances"]) == 4


async def test_25_a_new_member_that_answers_late_is_waited_for() -> None:
    held: list[psutil.Process] = []

    def hold(kind: Kind, entered: str) -> None:
        if kind is Kind.GROW_CLUSTER and entered == "meet" and not held:
            held.append(max(found.redis_processes(), key=lambda each: each.create_time()))
            held[0].suspend()

    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager(at_step=hold)
        shown = await found.create_cluster()
        key = shown["id"]

        await found.call("POST", f"/clusters/{key}", {"grow": [MEMBER]})
        await found.eventually(lambda: asyncio.sleep(0, bool(held)), what="the introduction")
        await asyncio.sleep(2.0)
        assert (await found.call("GET", f"/clusters/{key}"))["cluster"]["task"]["name"] == "GROWING_CLUSTER"
        held[0].resume()
        await found.until_free(key)

        assert await in_order(found, key), "it was called done before all agreed"


@pytest.mark.parametrize("step", ["place", "meet", "complete"])
async def test_25_a_member_that_dies_while_others_join_is_brought_back(step: str) -> None:
    killed: list[str] = []

    def kill_one(kind: Kind, entered: str) -> None:
        if kind is Kind.GROW_CLUSTER and entered == step and not killed:
            victim = min(found.redis_processes(), key=lambda each: each.create_time())
            killed.append(victim.cwd())
            victim.kill()

    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager(at_step=kill_one)
        shown = await found.create_cluster()
        async with await connect(seeds(shown), password=found.passwords["c"]) as client:
            await filled(client, 500)
            await asyncio.sleep(1.5)  # the file that is appended to is synced every second

            await found.act_on(shown["id"], {"grow": [MEMBER]})

            assert killed
            await agreed(found, shown["id"])
            assert await all_there(client, 500)


async def test_26_a_member_whose_host_is_lost_is_forgotten_and_removed_when_that_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("redkeep.operations.membership.LOST_AFTER", 3.0)
    async with stack(manager_options=QUICK) as found:
        await found.start_agent("host-1")
        await found.start_manager()
        shown = await found.create_cluster(primaries=2)
        key, host = shown["id"], await found.start_agent("host-2")
        await found.eventually(lambda: knows_host(found, "host-2"), what="the second host")
        grown = await found.act_on(key, {"grow": [MEMBER]})
        new = next(one for one in await members(found, key) if one.name == grown["instances"][-1]["name"])
        assert new.host_id == "host-2"

        await host.kill()
        process(found, new).kill()
        await asyncio.sleep(4.0)
        await found.call("POST", f"/clusters/{key}", {"shrink": [{"id": new.id}]}, expect=202)
        after = await found.until_free(key)
        assert [one["status"] for one in after["instances"]] == ["ACTIVE", "ACTIVE", "ERROR"]
        await asyncio.sleep(SILENT)  # until then new members may be placed there
        await found.act_on(key, {"grow": [MEMBER]})

        await found.start_agent("host-2")
        await found.eventually(lambda: knows_host(found, "host-2"), what="the second host again")
        last = await found.act_on(key, {"shrink": [{"id": new.id}]})
        assert [one["name"] for one in last["instances"]] == ["c-member-1", "c-member-2", "c-member-4"]
        await agreed(found, key)
        assert len(found.redis_processes()) == 3


async def knows_host(found: Stack, host_id: str) -> bool:
    assert found.store is not None
    async with found.store.read() as tx:
        now = await tx.now()
        return any(one.id == host_id and now - one.seen_at < 2.0 for one in await tx.hosts())


async def test_26_whoever_has_slots_stays_or_is_drained_and_never_comes_back() -> None:
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster()
        key, last = shown["id"], shown["instances"][2]
        async with await connect(seeds(shown), password=found.passwords["c"]) as client:
            await filled(client, 1000)
            before = await ranges(found, key)

            await found.call("POST", f"/clusters/{key}", {"shrink": [{"id": last["id"]}]}, expect=403)
            assert await ranges(found, key) == before
            gone = next(one for one in await members(found, key) if one.id == last["id"]).node_id
            await found.act_on(key, {"shrink": {"instances": [{"id": last["id"]}], "drain": True, "pace": "fast"}})

            assert await all_there(client, 1000)
        await agreed(found, key)
        assert len(found.redis_processes()) == 2
        assert gone
        for own, raw, view in (await views(found, key)).values():
            assert own != gone
            assert gone not in raw
            assert len(view.members) == 2


async def test_38_a_node_that_listeners_use_leaves_by_a_shrink_and_the_gap_is_reported() -> None:
    notices: list[Notice] = []
    feed = feed_of("shrinks")
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(version="7.0")
        key = shown["id"]
        owned = await ranges(found, key)
        source = next(name for name, held in owned.items() if any(low <= feed.slot <= high for low, high in held))
        leaving = next(one["id"] for one in shown["instances"] if one["name"] == source)
        async with (
            await connect(seeds(shown), password=found.passwords["c"]) as client,
            Subscriber(client, on_notice=notices.append) as subscriber,
        ):
            publisher = Publisher(client)
            await subscriber.subscribe("shrinks", print)
            first = await publisher.publish("shrinks", 0)
            await found.eventually(
                lambda: asyncio.sleep(0, subscriber.position("shrinks") == first), what="the first message"
            )

            await found.act_on(key, {"shrink": {"instances": [{"id": leaving}], "drain": True, "pace": "fast"}})
            await found.eventually(
                lambda: asyncio.sleep(0, Notice("recovered") in notices), what="news that the listener has moved"
            )
            for number in range(5):
                await publisher.publish("shrinks", number)
            await client.execute("XTRIM", feed.log, "MAXLEN", 2)
            await subscriber.subscribe("shrinks", print, after=first)

            await found.eventually(
                lambda: asyncio.sleep(0, Notice("resynchronise", "shrinks") in notices), what="news of the gap"
            )

"""The doer dies at every step of making, growing, shrinking and deleting a cluster, another finishes: the same end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from tests.real.cluster_members import all_there, filled, in_order, members, ranges, seeds

from redkeep.model.instance import Status
from redkeep.model.operation import Kind
from redkeep.northbound import connect
from redkeep.testing.stack import MEMBER, Stack, kill_at, stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

TAKE_OVER = {"lease_seconds": 1.0, "look_interval": 0.2}
KEYS = 300
HALVES = {"c-member-1": ((0, 8191),), "c-member-2": ((8192, 16383),)}


async def create(found: Stack) -> None:
    body = {"name": "c", "instances": [MEMBER] * 2}
    found.passwords["c"] = (await found.call("POST", "/clusters", {"cluster": body}))["cluster"]["password"]


async def the_cluster(found: Stack) -> str:
    (cluster,) = (await found.call("GET", "/clusters"))["clusters"]
    return str(cluster["id"])


async def grow(found: Stack) -> None:
    await found.call("POST", f"/clusters/{await the_cluster(found)}", {"grow": [MEMBER]})


async def shrink(found: Stack) -> None:
    """The last member, which has slots."""
    key = await the_cluster(found)
    last = next(one for one in await members(found, key) if one.name == "c-member-3")
    body = {"shrink": {"instances": [{"id": last.id}], "drain": True, "pace": "fast"}}
    await found.call("POST", f"/clusters/{key}", body)


async def delete(found: Stack) -> None:
    await found.call("DELETE", f"/clusters/{await the_cluster(found)}")


@dataclass(frozen=True)
class Way:
    """How an operation comes about, its steps, and how many members there are before and after."""

    begin: Callable[[Stack], Awaitable[None]]
    steps: tuple[str, ...]
    before: int
    after: int


WAYS = {
    Kind.CREATE_CLUSTER: Way(create, ("place", "form", "prepare", "meet", "complete", "record"), 0, 2),
    Kind.GROW_CLUSTER: Way(grow, ("place", "join", "prepare", "meet", "complete", "joined", "record"), 2, 3),
    Kind.SHRINK_CLUSTER: Way(shrink, ("move", "agree", "check", "leave", "stop", "forget", "left", "record"), 3, 2),
    Kind.DELETE_CLUSTER: Way(delete, ("remove", "record"), 2, 0),
}
CASES = [(kind, step) for kind, way in WAYS.items() for step in way.steps]


async def given(found: Stack, count: int) -> None:
    """A cluster of that many, with keys."""
    if count:
        shown = await found.create_cluster(primaries=count)
        async with await connect(seeds(shown), password=found.passwords["c"]) as client:
            await filled(client, KEYS)


async def check(found: Stack, way: Way) -> None:
    """Rows and members agree, nothing is left of whoever is gone, and the data is there."""
    assert len(found.redis_processes()) == way.after
    if way.after == 0:
        assert await found.call("GET", "/clusters") == {"clusters": []}
        return
    key = await the_cluster(found)
    shown = await found.until_free(key, 120)
    assert len(shown["instances"]) == way.after
    assert {one.status for one in await members(found, key)} == {Status.ACTIVE}
    await found.eventually(lambda: in_order(found, key), what="members of one mind")
    if way.before == 0:
        assert await ranges(found, key) == HALVES
        return
    async with await connect(seeds(shown), password=found.passwords["c"]) as client:
        assert await all_there(client, KEYS)
        assert await client.execute("SET", "after", "written") == b"OK"


@pytest.mark.parametrize(("kind", "step"), CASES, ids=[f"{kind}-{step}" for kind, step in CASES])
async def test_another_manager_finishes_what_one_began(kind: Kind, step: str) -> None:
    way, dead = WAYS[kind], asyncio.Event()
    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        first = await found.start_manager("first", kill_at(kind, step, dead))
        await given(found, way.before)

        await way.begin(found)
        async with asyncio.timeout(120):
            await dead.wait()
        await first.kill()
        await found.start_manager("second")
        await found.idle(120)

        await check(found, way)


@pytest.mark.parametrize("kind", WAYS)
async def test_these_are_all_the_steps(kind: Kind) -> None:
    """A runbook that grows a step grows a kill-point."""
    way, entered = WAYS[kind], list[str]()
    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        await found.start_manager(at_step=lambda each, step: entered.append(step) if each is kind else None)
        await given(found, way.before)

        await way.begin(found)
        await found.eventually(lambda: asyncio.sleep(0, bool(entered)), what="the first step")
        await found.idle(120)

        await check(found, way)
    assert tuple(dict.fromkeys(entered)) == way.steps

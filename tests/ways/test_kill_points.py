"""The doer dies at every step of every operation, another one finishes: same end, nothing stuck, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from redkeep.model.instance import Group, Instance, Status
from redkeep.model.operation import Kind
from redkeep.model.topology import Role
from redkeep.testing.stack import Stack, kill_at, stack

pytestmark = pytest.mark.real

TAKE_OVER = {"lease_seconds": 0.6, "look_interval": 0.2}


async def of_role(found: Stack, role: Role) -> Instance:
    return next(one for one in await found.rows() if one.role is role)


async def create(found: Stack) -> None:
    order = {"name": "db", "flavorRef": 1, "volume": {"size": 1}}
    reply = await found.call("POST", "/instances", {"instance": order})
    found.passwords["db"] = reply["instance"]["password"]


async def add_replicas(found: Stack) -> None:
    order = {"name": "more", "replica_of": (await of_role(found, Role.PRIMARY)).id, "replica_count": 2}
    await found.call("POST", "/instances", {"instance": order})


def action(role: Role, body: dict[str, object]) -> Callable[[Stack], Awaitable[None]]:
    async def act(found: Stack) -> None:
        await found.call("POST", f"/instances/{(await of_role(found, role)).id}/action", body)

    return act


async def delete(found: Stack) -> None:
    await found.call("DELETE", f"/instances/{(await of_role(found, Role.REPLICA)).id}")


async def detach(found: Stack) -> None:
    body = {"instance": {"replica_of": None}}
    await found.call("PUT", f"/instances/{(await of_role(found, Role.REPLICA)).id}", body)


async def crash(found: Stack) -> None:
    primary = await of_role(found, Role.PRIMARY)
    next(one for one in found.redis_processes() if one.cwd().endswith(primary.id)).kill()


@dataclass(frozen=True)
class Way:
    """How an operation comes about, its steps, and how many servers there are before and after."""

    begin: Callable[[Stack], Awaitable[None]]
    steps: tuple[str, ...]
    before: int
    after: int
    groups: int = 1


WAYS = {
    Kind.CREATE_INSTANCE: Way(create, ("place", "start", "load", "open", "record"), 0, 1),
    Kind.ADD_REPLICAS: Way(
        add_replicas, ("check", "place", "synchronise", "brief the primary", "record", "brief the others"), 1, 3
    ),
    Kind.PROMOTE_REPLICA: Way(
        action(Role.REPLICA, {"promote_to_replica_source": {}}),
        ("look", "choose", "hold writes", "promote", "repoint", "record", "tell"),
        3,
        3,
    ),
    Kind.FAIL_OVER: Way(crash, ("look", "choose", "promote", "record", "repoint", "bring back"), 3, 3),
    Kind.RESTART_INSTANCE: Way(action(Role.PRIMARY, {"restart": {}}), ("restart", "load", "open", "record"), 1, 1),
    Kind.RESIZE_INSTANCE: Way(
        action(Role.PRIMARY, {"resize": {"flavorRef": 2}}), ("check", "decide", "configure", "record"), 2, 2
    ),
    Kind.DETACH_REPLICA: Way(detach, ("brief the primary", "record", "brief the others"), 3, 3, groups=2),
    Kind.BECOME_INDEPENDENT: Way(detach, ("separate", "load", "open", "record"), 3, 3, groups=2),
    Kind.DELETE_INSTANCE: Way(delete, ("remove", "record", "brief the others"), 3, 2),
}


async def given(found: Stack, servers: int) -> None:
    """A group of that many servers, with a key in it."""
    if servers == 0:
        return
    await found.replicated(replicas=servers - 1) if servers > 1 else await found.create()
    primary = await of_role(found, Role.PRIMARY)
    async with client(found, primary) as redis:
        await redis.set("before", "kept")
        await redis.wait(servers - 1, 1000)


def client(found: Stack, instance: Instance) -> Redis:
    assert instance.address is not None
    return Redis(
        host=instance.address.host,
        port=instance.address.port,
        password=found.passwords["db"],
        decode_responses=True,
        socket_timeout=2,
    )


async def check(found: Stack, way: Way) -> None:
    """Each group has one primary, in the store and in reality; everyone else follows it; the data is there."""
    rows = await found.rows()
    assert len(rows) == len(found.redis_processes()) == way.after
    assert {one.status for one in rows} == {Status.ACTIVE}
    groups = {one.group_id for one in rows}
    assert len(groups) == way.groups
    for group_id in groups:
        members = [one for one in rows if one.group_id == group_id]
        await check_group(found, await found.group(group_id), members, data=way.before > 0)


async def check_group(found: Stack, group: Group, members: list[Instance], *, data: bool) -> None:
    assert group.successor_id is None
    assert [one.id for one in members if one.role is Role.PRIMARY] == [group.primary_id]
    for one in members:
        async with client(found, one) as redis:

            async def in_place(redis: Redis = redis, one: Instance = one) -> bool:
                info = await redis.info("replication")
                if one.id == group.primary_id:
                    return bool(info["role"] == "master")
                return bool(info["role"] == "slave" and info["master_link_status"] == "up")

            await found.eventually(in_place, 10, what=f"{one.name} in its place")
            if one.id == group.primary_id:
                assert await redis.set("after", "written")
            assert not data or await redis.get("before") == "kept"


CASES = [(kind, step) for kind, way in WAYS.items() for step in way.steps]


@pytest.mark.parametrize(("kind", "step"), CASES, ids=[f"{kind}-{step}" for kind, step in CASES])
async def test_another_manager_finishes_what_one_began(kind: Kind, step: str) -> None:
    way, dead = WAYS[kind], asyncio.Event()
    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        first = await found.start_manager("first", kill_at(kind, step, dead))
        await given(found, way.before)

        await way.begin(found)
        async with asyncio.timeout(10):
            await dead.wait()
        await first.kill()
        await found.start_manager("second")
        await found.idle()

        await check(found, way)


@pytest.mark.parametrize("kind", WAYS, ids=str)
async def test_these_are_all_the_steps(kind: Kind) -> None:
    """A runbook that grows a step grows a kill-point."""
    way, entered = WAYS[kind], list[str]()
    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        await found.start_manager(at_step=lambda entering, step: entered.append(step) if entering is kind else None)
        await given(found, way.before)
        entered.clear()

        await way.begin(found)
        await found.eventually(lambda: asyncio.sleep(0, bool(entered)), what="the first step")
        await found.idle()

        await check(found, way)
    assert tuple(entered) == way.steps

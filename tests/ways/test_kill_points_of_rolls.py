"""The doer dies at every step of a change that goes through a whole group, another one finishes: the same end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from redkeep.decide.parameters import waiting
from redkeep.model.instance import Instance, Status
from redkeep.model.operation import Kind
from redkeep.model.topology import Role
from redkeep.testing.stack import Stack, kill_at, stack

pytestmark = pytest.mark.real

TAKE_OVER = {"lease_seconds": 0.6, "look_interval": 0.2}


async def configuration(found: Stack, version: str, **values: object) -> str:
    order = {"name": "mine", "values": values, "datastore": {"type": "redis", "version": version}}
    made = await found.call("POST", "/configurations", {"configuration": order})
    return str(made["configuration"]["id"])


async def attach(found: Stack, values: dict[str, object]) -> None:
    source = next(one for one in await found.rows() if one.role is Role.PRIMARY)
    mine = await configuration(found, source.version, **values)
    await found.call("PUT", f"/instances/{source.id}", {"instance": {"configuration": mine}}, expect=202)


async def configure(found: Stack) -> None:
    await attach(found, {"hz": 50})


async def misconfigure(found: Stack) -> None:
    """Redis' build refuses it."""
    await attach(found, {"hz": 50, "activedefrag": "yes"})


async def upgrade(found: Stack) -> None:
    source = next(one for one in await found.rows() if one.role is Role.PRIMARY)
    await found.call("PATCH", f"/instances/{source.id}", {"instance": {"datastore_version": "7.0"}}, expect=202)


@dataclass(frozen=True)
class Way:
    """How an operation comes about, its steps, and what its servers have at the end."""

    begin: Callable[[Stack], Awaitable[None]]
    kind: Kind
    steps: tuple[str, ...]
    version: str
    hz: str


SWITCH = ("look", "choose", "hold writes", "promote", "repoint", "record")
WAYS = {
    "configure": Way(configure, Kind.CONFIGURE, ("first", "others", "record"), "6.2", "50"),
    "misconfigure": Way(misconfigure, Kind.CONFIGURE, ("first",), "6.2", "10"),
    "upgrade": Way(upgrade, Kind.ROLL_GROUP, ("renew", *SWITCH, "renew", "finish"), "7.0", "10"),
}
CASES = [(name, step) for name, way in WAYS.items() for step in dict.fromkeys(way.steps)]


async def admin(found: Stack, instance: Instance) -> Redis:
    assert instance.address is not None
    password = found.vault.unseal((await found.group(instance.group_id)).secrets.admin)
    return Redis(port=instance.address.port, username="redkeep-admin", password=password, decode_responses=True)


async def given(found: Stack) -> None:
    """A primary and a replica of 6.2, with a key."""
    await found.replicated(replicas=1, version="6.2")
    primary = next(one for one in await found.rows() if one.role is Role.PRIMARY)
    async with await admin(found, primary) as redis:
        await redis.set("before", "kept")
        await redis.wait(1, 1000)


async def check(found: Stack, way: Way) -> None:
    """Both serve in their role with the same version and parameters, and the data is there."""
    rows = await found.rows()
    group = await found.group(rows[0].group_id)
    assert group.successor_id is None
    assert [one.status for one in rows] == [Status.ACTIVE, Status.ACTIVE]
    assert [one.id for one in rows if one.role is Role.PRIMARY] == [group.primary_id]
    assert {one.version for one in rows} == {way.version}
    assert not any(waiting(one) for one in rows)
    for one in rows:
        async with await admin(found, one) as redis:

            async def in_place(redis: Redis = redis, one: Instance = one) -> bool:
                info = await redis.info()
                assert str(info["redis_version"]).startswith(way.version)
                if one.id == group.primary_id:
                    return bool(info["role"] == "master")
                return bool(info["role"] == "slave" and info["master_link_status"] == "up")

            await found.eventually(in_place, 10, what=f"{one.name} in its place")
            assert await redis.config_get("hz") == {"hz": way.hz}
            assert await redis.get("before") == "kept"
            if one.id == group.primary_id:
                assert await redis.set("after", "written")


@pytest.mark.parametrize(("name", "step"), CASES, ids=[f"{name}-{step}" for name, step in CASES])
async def test_another_manager_finishes_what_one_began(name: str, step: str) -> None:
    way, dead = WAYS[name], asyncio.Event()
    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        first = await found.start_manager("first", kill_at(way.kind, step, dead))
        await given(found)

        await way.begin(found)
        async with asyncio.timeout(20):
            await dead.wait()
        await first.kill()
        await found.start_manager("second")
        await found.idle(40)

        await check(found, way)


@pytest.mark.parametrize("name", WAYS)
async def test_these_are_all_the_steps(name: str) -> None:
    """A runbook that grows a step grows a kill-point."""
    way, entered = WAYS[name], list[str]()
    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        await found.start_manager(at_step=lambda kind, step: entered.append(step) if kind is way.kind else None)
        await given(found)

        await way.begin(found)
        await found.eventually(lambda: asyncio.sleep(0, bool(entered)), what="the first step")
        await found.idle(40)

        await check(found, way)
    assert tuple(entered) == way.steps

"""The doer dies at every step of every operation on backups, another one finishes: same end, nothing left over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from tests.ways.test_kill_points import TAKE_OVER, client, given

from redkeep.model.backup import Backup, BackupStatus
from redkeep.model.instance import Instance, Status
from redkeep.model.operation import Kind
from redkeep.testing.stack import Stack, kill_at, stack

pytestmark = pytest.mark.real


async def backups(found: Stack) -> list[Backup]:
    assert found.store is not None
    async with found.store.read() as tx:
        return await tx.backups()


async def take(found: Stack) -> None:
    (instance, *_) = await found.rows()
    await found.call("POST", "/backups", {"backup": {"name": "b", "instance": instance.id}}, expect=202)


async def taken(found: Stack) -> None:
    await take(found)
    await found.idle()


async def drop(found: Stack) -> None:
    await found.call("DELETE", f"/backups/{(await backups(found))[0].id}", expect=202)


async def restore(found: Stack) -> None:
    point = {"backupRef": (await backups(found))[0].id}
    order = {"name": "copy", "flavorRef": 1, "volume": {"size": 1}, "restorePoint": point}
    reply = await found.call("POST", "/instances", {"instance": order})
    found.passwords["copy"] = reply["instance"]["password"]


async def is_well(found: Stack) -> None:
    """The instance is as it was, and nobody holds it."""
    (instance,) = await found.rows()
    assert instance.status is Status.ACTIVE
    async with client(found, instance) as redis:
        assert await redis.get("before") == "kept"
        assert await redis.set("after", "written")


async def is_made(found: Stack) -> None:
    (backup,) = await backups(found)
    (file,) = (found.directory / "backups").rglob("*.rdb")
    assert (backup.status, backup.size_bytes) == (BackupStatus.COMPLETED, file.stat().st_size)
    await is_well(found)


async def is_gone(found: Stack) -> None:
    assert await backups(found) == []
    assert list((found.directory / "backups").iterdir()) == []
    await is_well(found)


async def is_restored(found: Stack) -> None:
    (copy,) = [one for one in await found.rows() if one.name == "copy"]
    async with of(found, copy) as redis:
        assert await redis.get("before") == "kept"
        assert await redis.set("after", "written")
    assert list((found.directory / "host-1" / copy.id).glob("restore*")) == []


def of(found: Stack, copy: Instance) -> Redis:
    found.passwords["db"] = found.passwords["copy"]
    return client(found, copy)


async def nothing(_: Stack) -> None:
    """There need be no backup before."""


@dataclass(frozen=True)
class Way:
    """What must be there, how an operation comes about, its steps, and how its end is known."""

    before: Callable[[Stack], Awaitable[None]]
    begin: Callable[[Stack], Awaitable[None]]
    steps: tuple[str, ...]
    after: Callable[[Stack], Awaitable[None]]


WAYS = {
    Kind.CREATE_BACKUP: Way(nothing, take, ("choose", "copy", "record"), is_made),
    Kind.DELETE_BACKUP: Way(taken, drop, ("remove", "record"), is_gone),
    Kind.CREATE_INSTANCE: Way(taken, restore, ("place", "fetch", "start", "load", "open", "record"), is_restored),
}
CASES = [(kind, step) for kind, way in WAYS.items() for step in way.steps]


@pytest.mark.parametrize(("kind", "step"), CASES, ids=[f"{kind}-{step}" for kind, step in CASES])
async def test_another_manager_finishes_what_one_began(kind: Kind, step: str) -> None:
    way, dead, armed = WAYS[kind], asyncio.Event(), asyncio.Event()
    hook = kill_at(kind, step, dead)

    def when_armed(entered: Kind, entered_step: str) -> None:
        if armed.is_set():
            hook(entered, entered_step)

    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        first = await found.start_manager("first", when_armed)
        await given(found, 1)
        await way.before(found)
        armed.set()

        await way.begin(found)
        async with asyncio.timeout(10):
            await dead.wait()
        await first.kill()
        await found.start_manager("second")
        await found.idle()

        await way.after(found)


@pytest.mark.parametrize("kind", WAYS, ids=str)
async def test_these_are_all_the_steps(kind: Kind) -> None:
    way, entered = WAYS[kind], list[str]()
    async with stack(manager_options=TAKE_OVER) as found:
        await found.start_agent()
        await found.start_manager(at_step=lambda entering, step: entered.append(step) if entering is kind else None)
        await given(found, 1)
        await way.before(found)
        entered.clear()

        await way.begin(found)
        await found.idle()

        await way.after(found)
    assert tuple(entered) == way.steps


@pytest.mark.parametrize("moment", ["saving", "fetching"])
async def test_an_agent_that_is_killed_at_work_begins_anew_and_leaves_nothing(moment: str) -> None:
    async with stack(manager_options=TAKE_OVER) as found:
        agent = await found.start_agent()
        await found.start_manager()
        await given(found, 1)
        if moment == "fetching":
            await taken(found)

        begun = asyncio.Event()
        begin = take if moment == "saving" else restore
        copies = agent.service._copies
        original = copies._begin

        def begin_and_say(*arguments: Any) -> None:
            original(*arguments)
            begun.set()

        copies._begin = begin_and_say
        await begin(found)
        async with asyncio.timeout(10):
            await begun.wait()
        await agent.kill()
        await found.start_agent(port_low=agent.service._settings.port_low, port_high=agent.service._settings.port_high)
        await found.idle()

        await (is_made(found) if moment == "saving" else is_restored(found))
        assert list((found.directory / "host-1").rglob("backup-*")) == []

"""Faults of Redkeep itself (FAULTS 14, 15, 16): its store, its northbound, its managers. Groups that are well go on."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from tests.faults.scene import Scene, lost_before, scene, writing

from redkeep.model.operation import Kind
from redkeep.testing.postgres import find_postgres, postgres

pytestmark = [pytest.mark.real, pytest.mark.faults]


@contextmanager
def store_blocked(playing: Scene) -> Iterator[None]:
    """Nobody can write to the store: somebody sits on its lock."""
    with closing(
        sqlite3.connect(playing.found.directory / "redkeep.db", timeout=30, isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def failovers(playing: Scene) -> int:
    """How many were carried through."""
    told = [one for one in await playing.events() if one.kind == Kind.FAIL_OVER]
    return sum("is primary:" in one.text for one in told)


async def test_14_without_its_store_healthy_groups_go_on_and_a_dead_primary_waits_for_it() -> None:
    async with scene() as playing, writing(playing) as writer, playing.never_two_primaries():
        old = await playing.primary()
        with store_blocked(playing):
            began = time.monotonic()
            await asyncio.sleep(6)  # what is promised is that nothing happens in this time
            assert writer.longest_gap(began).seconds < 2.5  # a fence would last longer
            assert await failovers(playing) == 0

            playing.process(old).kill()
            await asyncio.sleep(1)
            assert (await playing.primary()).id == old.id
            for one in await playing.replicas():
                assert not await playing.accepts_writes(one)

        await playing.until_another(old, 15)
        await writer.further(100)
        await playing.settled(servers=3)


async def test_14_while_postgresql_is_dead_groups_go_on_and_what_was_asked_for_is_done_afterwards() -> None:
    """Killed, not merely blocked: every connection of managers and API breaks. A primary dies meanwhile."""
    if find_postgres() is None:
        pytest.skip("no PostgreSQL server is installed")
    with postgres() as database:
        async with scene(hosts=3, database=database.new_url()) as playing, writing(playing) as writer:
            old, (replica, _) = await playing.primary(), await playing.replicas()
            members = await playing.members()
            async with playing.never_two_primaries():
                with database.away():
                    began = time.monotonic()
                    await asyncio.sleep(6)  # longer than a word and an orphan's time; nothing may happen in it
                    assert writer.longest_gap(began).seconds < 2
                    for part in playing.managers:
                        assert not part.task.done()
                    playing.process(old).kill()
                    await asyncio.sleep(1)
                    for one in members:
                        assert not await playing.accepts_writes(one)

                new = await playing.until_another(old, 30)
                await writer.further(100, 30)
                await playing.settled(servers=3)
            assert await failovers(playing) == 1
            asked = replica if replica.id != new.id else old
            await playing.found.call("POST", f"/instances/{asked.id}/action", {"promote_to_replica_source": {}})
            await playing.found.until(asked.id, "ACTIVE")
            await playing.settled(servers=3)
            assert (await playing.primary()).id == asked.id
            await writer.stop()
            await lost_before(writer, began, 1)


async def test_14_without_the_northbound_healthy_groups_go_on_and_failover_works_again_afterwards() -> None:
    async with scene() as playing, writing(playing) as writer, playing.never_two_primaries():
        old = await playing.primary()
        playing.found.control.kill()
        began = time.monotonic()
        await asyncio.sleep(6)  # twice as long as any word; what is promised is that nothing happens
        assert writer.longest_gap(began).seconds < 2.5  # a fence would last longer
        assert (await playing.primary()).id == old.id

        await asyncio.to_thread(playing.found.control.start)
        playing.process(old).kill()

        await playing.until_another(old, 15)
        await writer.further(100)
        await playing.settled(servers=3)


async def test_14_an_only_server_writes_on_without_anybody() -> None:
    async with scene(replicas=0) as playing, writing(playing) as writer:
        for part in playing.managers:
            await part.kill()
        playing.found.control.kill(signal.SIGKILL)
        began = time.monotonic()

        await asyncio.sleep(6)

        assert writer.longest_gap(began).seconds < 2.5  # a fence would last longer


async def test_15_two_managers_that_see_the_same_crash_fail_over_once() -> None:
    async with scene(managers=2) as playing, writing(playing) as writer, playing.never_two_primaries():
        for round_number in range(1, 4):
            old = await playing.primary()
            playing.process(old).kill()
            await playing.until_another(old, 8)
            await writer.further(100)
            await playing.settled(servers=3)
            assert await failovers(playing) == round_number


async def test_a_group_that_was_just_made_needs_no_repair() -> None:
    """I6: what is well is left alone, also by those who have not heard of it yet."""
    async with scene(replicas=2, managers=2) as playing:
        await asyncio.sleep(3)  # several looks of every manager

        kinds = {one.kind for one in await playing.events()}
        assert Kind.REPAIR not in kinds
        assert Kind.FAIL_OVER not in kinds

"""Full synchronisations that go wrong (FAULTS 19, 20): tried again, one at a time, while the primary serves."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from redis.exceptions import RedisError
from tests.faults.scene import Scene, scene, writing

from redkeep.model.instance import Instance
from redkeep.redis.admin import Admin
from redkeep.testing.stack import Stack, stack

pytestmark = [pytest.mark.real, pytest.mark.faults]

KEYS = 3000
SAVE_DELAY_US = 500
"""For each key: the full synchronisation of all takes more than a second."""


@asynccontextmanager
async def administration(playing: Scene, one: Instance) -> AsyncIterator[Admin]:
    assert one.address is not None
    admin = Admin(one.address, playing.found.vault.unseal((await playing.group()).secrets.admin))
    try:
        yield admin
    finally:
        await admin.close()


async def fill(playing: Scene) -> Instance:
    primary = await playing.primary()
    async with administration(playing, primary) as admin:
        await admin.run(*(("SET", f"data:{number}", "x" * 1000) for number in range(KEYS)))
    return primary


def process_of(playing: Scene, instance_id: str) -> psutil.Process | None:
    found = (one for one in playing.found.redis_processes() if one.cwd().endswith(instance_id))
    return next(found, None)


async def test_19_a_replica_that_dies_in_the_middle_of_its_first_synchronisation_gets_another_one() -> None:
    async with scene(hosts=2, replicas=0) as playing:
        primary = await fill(playing)
        async with writing(playing) as writer, administration(playing, primary) as admin:
            await admin.run(("CONFIG", "SET", "rdb-key-save-delay", SAVE_DELAY_US))
            body = {"instance": {"name": "replica", "replica_of": primary.id}}
            made = (await playing.found.call("POST", "/instances", body))["instance"]

            async def midway() -> bool:
                said = await admin.info("replication", "persistence")
                return bool(said.get("connected_slaves") and said["rdb_bgsave_in_progress"])

            await playing.found.eventually(midway, what="the middle of a synchronisation")
            process = process_of(playing, made["id"])
            assert process is not None
            process.kill()
            await writer.further(50)
            await admin.run(("CONFIG", "SET", "rdb-key-save-delay", 0))

            await playing.found.until(made["id"], "ACTIVE", 60)
            await writer.further(50)
            assert (await playing.primary()).id == primary.id
        await playing.settled(servers=2)
        assert await playing.keys((await playing.replicas())[0]) >= KEYS


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of its own, in memory."""
    if os.geteuid() != 0:
        pytest.skip("a disk that is full needs root to mount one")
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def resize(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


async def test_19_a_primary_whose_disk_is_full_keeps_its_place_gives_its_data_and_writes_when_there_is_room() -> None:
    async with stack() as found:
        with small_disk(found.directory / "host-1", "4g"):
            agent = await found.start_agent()
            manager = await found.start_manager()
            playing = Scene(found, {"host-1": agent}, [manager])
            await found.create()
            primary = await fill(playing)
            resize(found.directory / "host-1", "8m")
            assert "MISCONF" in await until_refused(playing, primary)
            async with playing.redis(primary) as redis:
                assert await redis.get("data:0") == "x" * 1000
            await found.eventually(partial(is_shown, found, primary, blocked=True), 30, what="an alert")

            resize(found.directory / "host-1", "4g")
            await found.eventually(lambda: playing.accepts_writes(primary), 60, what="writes on a disk with room")
            await found.eventually(partial(is_shown, found, primary, blocked=False), 60, what="the end of the alert")
            await found.start_agent("host-2")
            body = {"instance": {"name": "replica", "replica_of": primary.id}}

            async def told_of_room() -> bool:
                """Until then a replica is refused: the primary could not save what it holds."""
                assert found.store is not None
                async with found.store.read() as tx:
                    return all(host.disk_free_bytes > 1 << 30 for host in await tx.hosts())

            await found.eventually(told_of_room, 30, what="a word of the room that there is")
            made = (await found.call("POST", "/instances", body))["instance"]
            await found.until(made["id"], "ACTIVE", 60)
            assert (await playing.primary()).id == primary.id
            for part in (agent, manager):
                await part.kill()
            for process in found.redis_processes():
                process.kill()
                process.wait(10)


async def is_shown(found: Stack, one: Instance, *, blocked: bool) -> bool:
    """The instance, its status and the events say that it refuses writes; or that it does not any more."""
    shown = (await found.call("GET", f"/instances/{one.id}"))["instance"]
    members = (await found.call("GET", "/status"))["members"]
    health = next(member["health"] for member in members if member["id"] == one.id)
    assert found.store is not None
    async with found.store.read() as tx:
        told = [event.text for event in await tx.events(instance_id=one.id) if event.kind == "alert"]
    if blocked:
        alert = shown.get("fault", {}).get("message", "")
        return bool(shown["operating_status"] == "BLOCKED" and "disk" in alert and "disk" in health and told)
    return bool(shown["operating_status"] == "HEALTHY" and "fault" not in shown and health == "ok" and len(told) > 1)


async def until_refused(playing: Scene, primary: Instance) -> str:
    """Write until the disk is full; what the server says then."""
    async with playing.redis(primary) as redis:
        for number in range(5000):
            try:
                await redis.set(f"more:{number}", "x" * 10_000)
            except RedisError as error:
                return str(error)
            await asyncio.sleep(0)
    return "never refused"


async def test_20_three_replicas_that_lose_the_backlog_at_once_are_given_all_data_by_one_process_at_a_time() -> None:
    async with scene(hosts=3, replicas=3) as playing:
        primary = await fill(playing)
        async with writing(playing) as writer, administration(playing, primary) as admin:
            before = (await admin.info("stats"))["sync_full"]
            await admin.run(
                ("CONFIG", "SET", "repl-backlog-size", 16_384),
                ("CONFIG", "SET", "rdb-key-save-delay", 100),
                ("MULTI",),
                ("CLIENT", "KILL", "TYPE", "replica"),
                *(("SET", f"while away:{number}", "x" * 1000) for number in range(200)),
                ("EXEC",),
            )
            server = playing.process(primary)
            children: list[int] = []

            async def all_given() -> bool:
                children.append(len(server.children()))
                said = await admin.info("stats", "replication")
                online = [said[f"slave{at}"]["state"] == "online" for at in range(said["connected_slaves"])]
                return said["sync_full"] - before == 3 and online == [True] * 3

            await playing.found.eventually(all_given, 60, what="three full synchronisations")
            await writer.further(50)
            said = await admin.info("memory")
            assert max(children) == 1
            assert said["used_memory"] < said["maxmemory"]
            assert (await playing.primary()).id == primary.id
        await playing.settled(servers=4)

"""Backups in the middle of a failover, of a death, on a disk that is full (FAULTS 44 and 19)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from tests.faults.scene import Scene, scene
from tests.faults.test_synchronisation import resize, small_disk

from redkeep.model.backup import Backup, BackupStatus
from redkeep.model.instance import Instance, Status
from redkeep.redis.conf import ADMIN
from redkeep.redis.rdb import HEAD_BYTES, parse_header
from redkeep.testing.stack import stack

pytestmark = [pytest.mark.real, pytest.mark.faults]

KEYS = 600
SLOW = 3000
"""Microseconds for each key that is saved: a copy of `KEYS` takes about two seconds."""


def admin(playing: Scene, one: Instance, password: str) -> Redis:
    assert one.address is not None
    return Redis(host=one.address.host, port=one.address.port, username=ADMIN, password=password)


async def say(playing: Scene, one: Instance, *command: str | int) -> Any:
    """As its agent does."""
    password = playing.found.vault.unseal((await playing.group()).secrets.admin)
    async with admin(playing, one, password) as redis:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def slowly_saving(playing: Scene) -> None:
    """Every member has data, and takes its time to save it."""
    async with playing.redis(await playing.primary()) as redis:
        await redis.mset({f"data:{number}": number for number in range(KEYS)})
    for one in await playing.members():
        await say(playing, one, "CONFIG", "SET", "rdb-key-save-delay", SLOW)


async def hasten(playing: Scene) -> None:
    for one in await playing.members():
        with contextlib.suppress(RedisError):
            await say(playing, one, "CONFIG", "SET", "rdb-key-save-delay", 0)


async def order(playing: Scene) -> str:
    body = {"backup": {"name": "nightly", "instance": (await playing.primary()).id}}
    return str((await playing.found.call("POST", "/backups", body, expect=202))["backup"]["id"])


async def backup_of(playing: Scene, backup_id: str) -> Backup:
    assert playing.found.store is not None
    async with playing.found.store.read() as tx:
        backup = await tx.backup(backup_id)
    assert backup is not None
    return backup


async def midway(playing: Scene, backup_id: str) -> Instance:
    """Wait until a member is in the middle of saving for it; return that."""

    async def saving() -> Instance | None:
        name = (await backup_of(playing, backup_id)).member_id
        one = next((one for one in await playing.members() if one.id == name), None)
        said = await say(playing, one, "INFO", "persistence") if one else {}
        return one if said.get("rdb_bgsave_in_progress") else None

    found = await playing.found.eventually(saving, what="the middle of saving")
    assert isinstance(found, Instance)
    return found


async def ended(playing: Scene, backup_id: str, limit: float = 40) -> Backup:
    async def over() -> Backup | None:
        backup = await backup_of(playing, backup_id)
        return None if backup.status.running else backup

    backup = await playing.found.eventually(over, limit, what="the end of the backup")
    assert isinstance(backup, Backup)
    return backup


async def nothing_is_left(playing: Scene, *, kept: int) -> None:
    """But for the files of that many backups."""
    directory = playing.found.directory
    assert len([path for path in directory.glob("backups/**/*") if path.is_file()]) == kept
    assert list(directory.glob("host-*/*/backup-*")) == []


async def test_44_a_primary_fails_over_while_it_is_backed_up_and_the_copy_is_of_one_history() -> None:
    async with scene(replicas=1) as playing:
        await slowly_saving(playing)
        old = await playing.primary()
        backup_id = await order(playing)
        copied = await midway(playing, backup_id)
        assert copied.id != old.id

        clock = asyncio.get_running_loop().time
        killed = clock()
        playing.process(old).kill()
        new = await playing.until_another(old, 5)
        took = clock() - killed
        await hasten(playing)
        backup = await ended(playing, backup_id)

        assert took < 3
        assert new.id == copied.id
        assert backup.status is BackupStatus.COMPLETED
        (file,) = playing.found.directory.glob("backups/*/*.rdb")
        header = parse_header(file.read_bytes()[:HEAD_BYTES])
        assert header.replication_id in ("", backup.replication_id)
        assert any("history" in event.text for event in await playing.events() if event.kind == "create_backup")
        assert await restored_keys(playing, backup) >= KEYS
        await nothing_is_left(playing, kept=1)


async def restored_keys(playing: Scene, backup: Backup) -> int:
    made = await playing.found.create("copy", restorePoint={"backupRef": backup.id})
    row = next(one for one in await playing.found.rows() if one.id == made["id"])
    password = playing.found.passwords["copy"]
    assert row.address is not None
    async with Redis(host=row.address.host, port=row.address.port, password=password) as redis:
        return int(await redis.dbsize())


async def test_44_a_replica_that_dies_while_it_is_copied_is_replaced_by_another_member() -> None:
    async with scene(replicas=1) as playing:
        await slowly_saving(playing)
        backup_id = await order(playing)
        copied = await midway(playing, backup_id)

        playing.process(copied).kill()
        await hasten(playing)
        backup = await ended(playing, backup_id)

        assert backup.status is BackupStatus.COMPLETED
        assert {one.status for one in await playing.members()} == {Status.ACTIVE}
        await nothing_is_left(playing, kept=1)


async def test_44_a_child_that_is_killed_again_and_again_ends_in_failed_and_the_primary_writes_on() -> None:
    """What the kernel does to a fork when memory runs out."""
    async with scene(replicas=0) as playing:
        await slowly_saving(playing)
        backup_id = await order(playing)
        primary = await playing.primary()

        while (await backup_of(playing, backup_id)).status.running:
            for child in psutil.Process(playing.process(primary).pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            await asyncio.sleep(0.02)
        await hasten(playing)
        backup = await backup_of(playing, backup_id)

        assert backup.status is BackupStatus.FAILED
        assert "could not save" in backup.fault
        assert "attempts were made" in backup.fault
        assert (await playing.primary()).status is Status.ACTIVE
        again = await ended(playing, await order(playing))
        assert again.status is BackupStatus.COMPLETED
        assert await playing.accepts_writes(primary)
        await nothing_is_left(playing, kept=1)


async def test_44_other_changes_do_not_wait_for_a_backup() -> None:
    async with scene(replicas=1) as playing:
        await slowly_saving(playing)
        backup_id = await order(playing)
        replica = await midway(playing, backup_id)

        await playing.found.call("POST", f"/instances/{replica.id}/action", {"resize": {"flavorRef": 2}}, expect=202)
        await playing.found.until(replica.id, "ACTIVE", 10)
        still_running = (await backup_of(playing, backup_id)).status.running
        await hasten(playing)
        backup = await ended(playing, backup_id)

        assert still_running
        assert backup.status is BackupStatus.COMPLETED


@contextlib.asynccontextmanager
async def on_a_small_disk() -> AsyncIterator[Scene]:
    """One instance with ten megabytes of data that cannot be compressed."""
    async with stack(manager_options={"lease_seconds": 1.0, "look_interval": 0.2}) as found:
        with small_disk(found.directory / "host-1", "4g"):
            agent, manager = await found.start_agent(), await found.start_manager()
            playing = Scene(found, {"host-1": agent}, [manager])
            primary = await found.create()
            (row,) = await found.rows()
            async with playing.redis(row) as redis:
                for number in range(40):
                    await redis.set(f"data:{number}", os.urandom(256 * 1024))
            assert primary["id"] == row.id
            yield playing
            for part in (agent, manager):
                await part.kill()
            for process in found.redis_processes():
                process.kill()
                process.wait(10)


def shrink_to(playing: Scene, room_mb: int) -> None:
    """Leave that much room on the disk."""
    place = playing.found.directory / "host-1"
    resize(place, f"{(shutil.disk_usage(place).used >> 20) + room_mb}m")


async def test_19_without_room_for_a_copy_none_is_begun_and_the_primary_writes_on() -> None:
    async with on_a_small_disk() as playing:
        shrink_to(playing, 5)

        backup = await ended(playing, await order(playing))

        assert backup.status is BackupStatus.FAILED
        assert "5 MB free" in backup.fault or "4 MB free" in backup.fault
        assert await playing.accepts_writes(await playing.primary())
        await nothing_is_left(playing, kept=0)


async def test_19_a_disk_that_fills_up_while_a_copy_is_made_fails_it_and_leaves_nothing() -> None:
    async with on_a_small_disk() as playing:
        primary = await playing.primary()
        await say(playing, primary, "CONFIG", "SET", "rdb-key-save-delay", 50_000)  # two seconds
        backup_id = await order(playing)
        await midway_of_one(playing, primary)

        shrink_to(playing, 2)
        await say(playing, primary, "CONFIG", "SET", "rdb-key-save-delay", 0)
        backup = await ended(playing, backup_id)
        told = [event.text for event in await playing.events()]
        shrink_to(playing, 200)
        again = await ended(playing, await order(playing))

        assert backup.status is BackupStatus.FAILED
        assert "MB free" in backup.fault
        assert any("No space left" in text for text in told), told
        assert again.status is BackupStatus.COMPLETED
        assert await playing.accepts_writes(primary)
        await nothing_is_left(playing, kept=1)


async def midway_of_one(playing: Scene, one: Instance) -> None:
    async def saving() -> bool:
        said = await say(playing, one, "INFO", "persistence")
        return bool(said["rdb_bgsave_in_progress"])

    await playing.found.eventually(saving, what="the middle of saving")

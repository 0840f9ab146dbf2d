"""A stored copy, put where a server that is not there yet will find it.

Redis with an append-only file loads nothing but that, and one that begins as an RDB is read as one. So the copy becomes
the append-only file itself (7.0 makes it the base of its own kind at the start): the server comes up with persistence
on, and a crash at any moment costs nothing. Starting without and switching it on later would leave a gap in which a
restart loads nothing (see ADR 15).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redkeep.agent import files
from redkeep.agent.directories import clear
from redkeep.errors import Refused
from redkeep.model.backup import Phase, Transfer
from redkeep.model.orders import RestoreCopy
from redkeep.ports import BackupStorage
from redkeep.redis.checker import check_rdb

APPEND_ONLY_FILE = "appendonly.aof"

Tell = Callable[[Phase, float], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a copy goes and where it comes from."""

    directory: Path
    storage: BackupStorage
    program: Path
    """The redis-server that will load it."""


def is_in_place(directory: Path) -> bool:
    """A copy was checked and put there."""
    return (directory / APPEND_ONLY_FILE).is_file()


async def restore(target: Target, order: RestoreCopy, tell: Tell) -> Transfer:
    """See `RestoreCopy`. Raises Refused when the copy is not what it should be; then nothing is left."""
    tell(Phase.FETCHING, 0.0)
    await _require_size(target.storage, order)
    await clear(target.directory)  # of an attempt that was broken off
    target.directory.mkdir(parents=True, mode=0o700)
    try:
        await _fetch(target, order, tell)
    finally:
        if not is_in_place(target.directory):
            await asyncio.to_thread(shutil.rmtree, target.directory, ignore_errors=True)
    return Transfer(order.backup_id, order.attempt, Phase.DONE, 1.0, size_bytes=order.size_bytes, sha256=order.sha256)


async def _fetch(target: Target, order: RestoreCopy, tell: Tell) -> None:
    draft = target.directory / "restore.rdb"
    files.require_room(target.directory, order.size_bytes, "the copy")
    await target.storage.get(order.name, draft, lambda done: tell(Phase.FETCHING, done / max(1, order.size_bytes)))

    tell(Phase.CHECKING, 0.0)
    await verify(draft, order)
    await check_rdb(target.program, draft)
    await asyncio.to_thread(files.put_in_place, draft, target.directory / APPEND_ONLY_FILE)


async def _require_size(storage: BackupStorage, order: RestoreCopy) -> None:
    """Before gigabytes are moved."""
    stored = await storage.size(order.name)
    if stored != order.size_bytes:
        raise Refused(f"{storage.locate(order.name)} has {stored} bytes, and had {order.size_bytes} when it was stored")


async def verify(file: Path, order: RestoreCopy) -> None:
    """The file is what was stored, to the last bit, and an RDB. Raises Refused."""
    size = await files.size_of(file)
    if size != order.size_bytes:
        raise Refused(f"the copy has {size} bytes, and had {order.size_bytes} when it was stored")
    digest = await files.sha256_of(file)
    if digest != order.sha256:
        raise Refused(f"the copy was changed: its SHA-256 is {digest}, and was {order.sha256} when it was stored")
    await files.rdb_ends(file)

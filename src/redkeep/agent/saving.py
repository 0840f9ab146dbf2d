"""A copy of a server's data, from BGSAVE to the storage.

It is of one history: role and replication id are looked at before the fork and after it, and what changed in between
(a failover, a new full synchronisation, a restart) makes the copy fail. While the finished file is sent, the server may
become whatever it likes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redkeep.agent import files
from redkeep.agent.server import Server
from redkeep.errors import NotNow, Refused, Unavailable
from redkeep.model.backup import Phase, Transfer
from redkeep.model.orders import TakeCopy
from redkeep.model.topology import Role
from redkeep.ports import BackupStorage
from redkeep.redis import info
from redkeep.redis.admin import Admin
from redkeep.redis.checker import check_rdb

DRAFTS = "backup-*.rdb"
"""Files of copies that are under way, in the server's directory."""
POLL = 0.05
"""Seconds between two looks at a server that saves."""
SAVE_LIMIT = 4 * 3600.0
"""Seconds that other children of the server and BGSAVE may take together."""

_ABOUT_TROUBLE = ("rror saving", "saving error", "saving terminated", "Can't save", "Failed opening")

Tell = Callable[[Phase, float], None]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a copy comes from and where it goes."""

    server: Server
    storage: BackupStorage
    program: Path


@dataclass(frozen=True, slots=True)
class Moment:
    """What must be the same before and after."""

    run_id: str
    role: Role
    replication_id: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Tells one dump.rdb from the next: each is a new file, renamed over the one before."""

    inode: int
    written_ns: int

    @classmethod
    def of(cls, path: Path) -> Mark | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return cls(found.st_ino, found.st_mtime_ns)


async def take(source: Source, order: TakeCopy, tell: Tell) -> Transfer:
    """See `TakeCopy`. Raises Refused when it would fail again, NotNow and Unavailable when it may not."""
    draft = source.server.directory / f"backup-{order.backup_id}.rdb"
    draft.unlink(missing_ok=True)
    try:
        said = await source.server.admin.info()
        before = _moment(said)
        await _save(source.server, draft, tell)
        after = _moment(await source.server.admin.info())
        if before != after:
            raise NotNow(f"the server was {_in_words(before)} when the copy began and {_in_words(after)} at its end")
        return await _store(source, order, draft, said, tell)
    finally:
        draft.unlink(missing_ok=True)


async def _store(source: Source, order: TakeCopy, draft: Path, said: Mapping[str, Any], tell: Tell) -> Transfer:
    tell(Phase.CHECKING, 0.0)
    header = await files.rdb_ends(draft)
    await check_rdb(source.program, draft)
    history, offset = str(said["master_replid"]), info.offset(said)
    if header.replication_id not in ("", history):
        raise NotNow(f"the copy is of history {header.replication_id[:8]}, not of {history[:8]}")
    size, digest = await files.size_of(draft), await files.sha256_of(draft)

    tell(Phase.SENDING, 0.0)
    name = f"{order.backup_id}/{order.attempt}.rdb"
    await source.storage.put(name, draft, lambda done: tell(Phase.SENDING, done / size))
    stored = await source.storage.size(name)
    if stored != size:
        raise Unavailable(f"{source.storage.locate(name)} has {stored} bytes of {size}")
    return Transfer(
        backup_id=order.backup_id,
        attempt=order.attempt,
        phase=Phase.DONE,
        fraction=1.0,
        size_bytes=size,
        sha256=digest,
        memory_bytes=info.data_bytes(said),
        location=source.storage.locate(name),
        replication_id=history,
        offset=header.offset if header.offset >= 0 else offset,
    )


async def _save(server: Server, draft: Path, tell: Tell) -> None:
    """BGSAVE, and the file that it wrote under a name of its own: the next save takes only the other name away."""
    dump = server.directory / "dump.rdb"
    deadline = time.monotonic() + SAVE_LIMIT
    await _until_alone(server.admin, deadline)
    said = await server.admin.info("memory")
    files.require_room(server.directory, info.data_bytes(said), "a copy")
    old = Mark.of(dump)
    await _begin(server, deadline)
    while info.saves(said := await server.admin.info("persistence")):
        tell(Phase.SAVING, info.saved_fraction(said))
        _require_time(deadline)
        await asyncio.sleep(POLL)
    if Mark.of(dump) in (None, old):
        raise Unavailable(f"the server could not save its data: {_complaint(server.directory)}")
    os.link(dump, draft)


async def _begin(server: Server, deadline: float) -> None:
    """Redis runs one child at a time; one that began since we looked is waited for."""
    while True:
        try:
            await server.admin.run(("BGSAVE",))
        except Refused as error:
            if not info.has_child(await server.admin.info("persistence")):
                reason = f"the server cannot save its data: {error}; {_complaint(server.directory)}"
                raise Unavailable(reason) from error
            await _until_alone(server.admin, deadline)
        else:
            return


async def _until_alone(admin: Admin, deadline: float) -> None:
    while info.has_child(await admin.info("persistence")):
        _require_time(deadline)
        await asyncio.sleep(POLL)


def _require_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(f"the server was not done with saving in {SAVE_LIMIT:g} s")


def _moment(said: Mapping[str, Any]) -> Moment:
    """Raises NotNow when there is no whole data set to copy."""
    link = info.upstream(said)
    if link is not None and (link.syncing or not link.link_up):
        raise NotNow("the replica does not follow its primary at the moment")
    return Moment(str(said["run_id"]), info.role(said), str(said["master_replid"]))


def _in_words(moment: Moment) -> str:
    return f"{moment.role} of history {moment.replication_id[:8]}"


def _complaint(directory: Path) -> str:
    """The last that the server and its child wrote down about saving."""
    try:
        lines = (directory / "redis.log").read_text(errors="replace")[-8192:].splitlines()
    except OSError as error:
        return f"and its log cannot be read: {error.strerror}"
    about = [line.strip() for line in lines if any(word in line for word in _ABOUT_TROUBLE)]
    return "; ".join(about[-2:]) or "its log does not say why"

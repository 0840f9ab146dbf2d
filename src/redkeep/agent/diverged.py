"""What a primary has and its successor at another site has not, kept in a file before it is discarded.

When a site is failed over without being asked, its primaries have acknowledged writes that never reached the other one.
They are told to follow later; what they would lose by it goes to a file of this host first:

* the commands themselves, as Redis would send them to a replica, when its backlog still has them: `<...>.resp`, which
  `redis-cli --pipe` replays;
* else, and when the server does not run, its data files, linked: `<...>-files/`.

A planned change has held the writes before, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redkeep.agent.server import Server
from redkeep.errors import NotNow, RedkeepError, Unavailable
from redkeep.model.orders import EnsureRunning, Follow, Order
from redkeep.model.topology import Address, Role
from redkeep.redis import info
from redkeep.redis.admin import Admin
from redkeep.redis.conf import ADMIN

log = logging.getLogger(__name__)

CONNECT_LIMIT = 2.0
READ_LIMIT = 60.0
"""Seconds that the backlog may take: it is on this host, and at most 64 MB."""
_CHUNK = 1 << 16
_DATA_FILES = ("dump.rdb", "appendonly.aof", "appendonlydir/*")


async def keep(server: Server, order: Order, servers: Path, password: str) -> str:
    """In words where it is kept; empty when there is nothing. Raises NotNow when it cannot be, yet: nobody may go on.

    `servers`: where the agent's servers are. The files are beside that, in a directory for each instance.
    """
    to = _demoted_by(server, order)
    if to is None:
        return ""
    place = servers.with_name(f"{servers.name}.diverged") / server.id
    try:
        said = await server.admin.info("replication") if server.running else None
        history = await _history(to, password)
        kept = await _keep_commands(server, said, history, place, password) if said else None
        if kept is None:
            kept = await asyncio.to_thread(_keep_files, server.directory, place)
    except (OSError, RedkeepError, TimeoutError) as error:
        raise NotNow(f"what only {server.id} has could not be saved, so it goes on as it is: {error}") from error
    if kept:
        log.warning("%s: %s", server.id, kept)
    return kept


def _demoted_by(server: Server, order: Order) -> Address | None:
    """The primary at another site that it is to follow from now on, without having been asked before."""
    before = server.record.assignment
    if not isinstance(order, EnsureRunning | Follow) or order.assignment.role is not Role.REPLICA:
        return None
    if before.role is not Role.PRIMARY or server.record.held or order.assignment.primary not in before.elsewhere:
        return None
    return order.assignment.primary


async def _history(primary: Address, password: str) -> Mapping[str, Any]:
    admin = Admin(primary, password)
    try:
        return await admin.info("replication")
    finally:
        await admin.close()


async def _keep_commands(
    server: Server, said: Mapping[str, Any], history: Mapping[str, Any], place: Path, password: str
) -> str | None:
    """None when they cannot be had as commands."""
    common, last = int(history["second_repl_offset"]) - 1, info.offset(said)
    if info.role(said) is not Role.PRIMARY or history["master_replid2"] != said["master_replid"]:
        return None
    if last <= common:
        return ""
    if int(said["repl_backlog_first_byte_offset"]) > common + 1 or not int(said["repl_backlog_active"]):
        return None
    file = place / f"{str(said['master_replid'])[:12]}-{common + 1}-{last}.resp"
    if not file.exists():
        address, name = server.record.spec.address, str(said["master_replid"])
        async with asyncio.timeout(READ_LIMIT):
            found = await _backlog(address, password, name, common + 1, last - common)
        if found is None:
            return None
        await asyncio.to_thread(_write, file, found)
    return f"{last - common} bytes that only it has (offsets {common + 1} to {last}) are kept in {file}"


async def _backlog(address: Address, password: str, history: str, start: int, count: int) -> bytes | None:
    """So many bytes of the stream, as a replica gets them; None when Redis offers a whole copy in their place."""
    async with asyncio.timeout(CONNECT_LIMIT):
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(_command("AUTH", ADMIN, password))
        if await _line(reader) != b"+OK":
            return None
        writer.write(_command("PSYNC", history, str(start)))  # Redis takes it only when it has nothing else to answer
        if not (await _line(reader)).startswith(b"+CONTINUE"):
            return None
        return await reader.readexactly(count)
    except asyncio.IncompleteReadError as error:
        raise Unavailable(f"{address} closed the connection") from error
    finally:
        writer.close()


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next that is not empty: Redis sends newlines while it thinks."""
    while not (line := (await reader.readuntil(b"\n")).strip()):
        pass
    return line


def _command(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all, and on disk: what it comes from is about to go."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_suffix(".part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)


def _keep_files(directory: Path, place: Path) -> str:
    """Links cost nothing: the server writes new files when it gets another data set."""
    files = [file for pattern in _DATA_FILES for file in sorted(directory.glob(pattern)) if file.is_file()]
    if not files:
        return ""
    target = place / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-files"
    for file in files:
        link = target / file.relative_to(directory)
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.link(file, link)
    return f"its data files, with what only it may have, are kept in {target}"

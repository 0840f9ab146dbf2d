"""Engines: all in which SQLite and PostgreSQL differ when they are opened. Nothing else in this room knows which it is,
but for the spelling of three statements.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from redkeep.errors import Refused, Unavailable

LOCK_SECONDS = 5.0
"""How long a statement waits for somebody else's lock."""

QUEUE_SECONDS = 10.0
"""How long a task waits until a connection of this process is free."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Two views of one database. PostgreSQL: of one pool. SQLite: one connection that writes, several that read."""

    writer: AsyncEngine
    reader: AsyncEngine

    async def close(self) -> None:
        await self.reader.dispose()
        await self.writer.dispose()


def parse_url(text: str) -> URL:
    """Raises Refused when the URL is not of one of the two databases."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise Refused("the database URL cannot be read: see the guide for its form") from error
    if url.drivername not in ("sqlite+aiosqlite", "postgresql+psycopg"):
        raise Refused(f"no database {url.drivername!r}: use sqlite+aiosqlite:///path or postgresql+psycopg://...")
    if url.drivername == "sqlite+aiosqlite" and url.database in (None, "", ":memory:"):
        raise Refused("an SQLite database in memory would be forgotten, and is not shared: give the path of a file")
    return url


def open_engines(url: URL) -> Engines:
    """Connects when it is first used."""
    return _postgresql(url) if url.get_backend_name() == "postgresql" else _sqlite(url)


# --- SQLite ------------------------------------------------------------------------------------------------------

_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # NORMAL may forget the last commits when the power fails, and with them an epoch
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
)


def _sqlite(url: URL) -> Engines:
    # One connection that writes: tasks of this process queue for it in order, instead of polling SQLite's lock.
    writer = _sqlite_engine(url, size=1)
    reader = _sqlite_engine(url, size=4)
    _prepare(writer, _PRAGMAS, begin="BEGIN IMMEDIATE")
    _prepare(reader, (*_PRAGMAS, "PRAGMA query_only = ON"), begin="BEGIN")
    return Engines(writer, reader)


def _sqlite_engine(url: URL, *, size: int) -> AsyncEngine:
    return create_async_engine(
        url,
        connect_args={"timeout": LOCK_SECONDS},
        pool_size=size,
        max_overflow=0,
        pool_timeout=QUEUE_SECONDS,
        pool_use_lifo=True,
    )


def _prepare(engine: AsyncEngine, pragmas: tuple[str, ...], *, begin: str) -> None:
    """Take transactions out of the driver's hands, which would begin them late and deferred, and begin them ourselves.

    It is the recipe of SQLAlchemy's page on SQLite ("Serializable isolation").
    """

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def prepare_file(path: Path) -> None:
    """Create the database file, for its owner alone, and make its journal a write-ahead log: readers and the writer do
    not wait for each other. Blocks; may be run by several processes at once.

    Raises Unavailable, naming the file.
    """
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise Unavailable(f"the database file {path} cannot be created: {error.strerror}") from error
    try:
        mode = _switch_to_wal(path, deadline=time.monotonic() + LOCK_SECONDS)
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"the database file {path} cannot be used: {error}") from error
    if mode != "wal":
        raise Unavailable(f"the database file {path} is on a file system without shared memory: use a local disk")


def _switch_to_wal(path: Path, *, deadline: float) -> str:
    """Return the journal mode that came of it."""
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as connection:
                return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            # Of two that switch at the same moment, SQLite tells one at once that the file is locked: no busy timeout.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# --- PostgreSQL --------------------------------------------------------------------------------------------------

_SERVER_OPTIONS = {
    "lock_timeout": f"{LOCK_SECONDS:.0f}s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",  # a manager that hangs must not hold a group's row for ever
}


def _postgresql(url: URL) -> Engines:
    engine = create_async_engine(
        url,
        connect_args={
            "connect_timeout": 5,
            "tcp_user_timeout": 10_000,  # milliseconds until a silent peer counts as lost
            "options": _with_defaults(url.query.get("options", "")),
        },
        isolation_level="READ COMMITTED",
        pool_size=10,
        max_overflow=0,
        pool_timeout=QUEUE_SECONDS,
        pool_use_lifo=True,
        pool_pre_ping=True,  # a restarted server costs nobody a request
    )
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return Engines(engine, reader)


def _with_defaults(options: str | tuple[str, ...]) -> str:
    """The operator's own `options` of the URL come last, and so win."""
    own = options if isinstance(options, str) else " ".join(options)
    return " ".join([*(f"-c {name}={value}" for name, value in _SERVER_OPTIONS.items()), own]).strip()

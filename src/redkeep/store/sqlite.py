"""SQLite through the standard library's module, on a few threads of our own.

Not through aiosqlite: that changes threads four times for each statement, and here a statement takes 20 µs and a change
80 µs. A session runs a whole piece of work on its thread instead (`docs/adr/0002`).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from redkeep.errors import Unavailable
from redkeep.store.database import LOCK_SECONDS, QUEUE_SECONDS, Result

_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # NORMAL may forget the last commits when the power fails, and with them an epoch
    "PRAGMA foreign_keys = ON",
)
_READERS = 4


class SqliteSession:
    """See `database.Session`. All of its work runs on one thread, in the order in which it was asked for."""

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread
        self._connection: Connection | None = None  # touched on the thread alone
        self._over = False

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def commit(self) -> None:
        await self.run(_commit)
        self._over = True

    async def end(self) -> None:
        """Undo what was not committed. Shielded: a cancelled caller may not leave a transaction open, and work that
        it left behind is done before this is."""
        if not self._over:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._end))

    def _run(self, work: Callable[[Connection], Result]) -> Result:
        if self._connection is None:
            self._connection = self._engine.connect()
        return work(self._connection)

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _commit(connection: Connection) -> None:
    """Commit and, in the same trip, give the connection back to the pool. If the commit fails, `end` does."""
    connection.commit()
    connection.close()


class _Lanes:
    """Sessions of one kind, on as many threads as may run at once. Tasks queue for them in the order of their asking.

    So the writers of one process never poll for SQLite's lock: that only happens between processes.
    """

    def __init__(self, url: URL, *, size: int, begin: str, pragmas: tuple[str, ...]) -> None:
        self._engine = create_engine(url, pool_size=size, max_overflow=0, pool_use_lifo=True, hide_parameters=True)
        _take_over_transactions(self._engine, begin=begin, pragmas=pragmas)
        self._places = asyncio.Semaphore(size)
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="redkeep-store") for _ in range(size)]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SqliteSession]:
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("this process has too much at hand: every connection to the database is busy") from None
        thread = self._threads.pop()
        session = SqliteSession(self._engine, thread)
        try:
            yield session
        finally:
            try:
                await session.end()
            finally:
                self._threads.append(thread)
                self._places.release()

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown()
        self._engine.dispose()


class Sqlite:
    """See `database.Database`. One session writes at a time, several read; neither waits for the other."""

    def __init__(self, url: URL) -> None:
        plain = url.set(drivername="sqlite", query={"timeout": str(LOCK_SECONDS), **url.query})
        self._writer = _Lanes(plain, size=1, begin="BEGIN IMMEDIATE", pragmas=_PRAGMAS)
        self._reader = _Lanes(plain, size=_READERS, begin="BEGIN", pragmas=(*_PRAGMAS, "PRAGMA query_only = ON"))

    @asynccontextmanager
    async def session(self, *, writes: bool) -> AsyncIterator[SqliteSession]:
        async with (self._writer if writes else self._reader).session() as session:
            yield session

    async def close(self) -> None:
        await asyncio.to_thread(self._reader.close)
        await asyncio.to_thread(self._writer.close)  # the last to close folds the journal into the file


def _take_over_transactions(engine: Engine, *, begin: str, pragmas: tuple[str, ...]) -> None:
    """The driver would begin transactions late, and deferred: two that read first and write later would then undo each
    other. So it is told to keep out, and they begin here. The recipe is SQLAlchemy's ("Transactions with SQLite")."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def prepare_file(path: Path) -> None:
    """Create the database file, for its owner alone, and make its journal a write-ahead log. Blocks; several processes
    may run it at once. Raises Unavailable, naming the file.
    """
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise Unavailable(f"the database file {path} cannot be created or written: {error.strerror}") from error
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

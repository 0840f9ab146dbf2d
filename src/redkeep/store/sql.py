"""`ports.Store` on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from redkeep.model.instance import Group
from redkeep.store.border import translated
from redkeep.store.engines import Engines, open_engines, parse_url, prepare_file
from redkeep.store.migrate import migrate
from redkeep.store.transaction import SqlTransaction


async def open_store(url: str) -> SqlStore:
    """Bring the database to this version's schema, and open it. Any number of processes may do so at once.

    `url` is `sqlite+aiosqlite:///path` (four slashes for an absolute path) or `postgresql+psycopg://...`. Raises
    Refused when the URL, or a newer Redkeep's database, cannot be used, and Unavailable when it cannot be reached.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        await asyncio.to_thread(prepare_file, Path(parsed.database or ""))
    store = SqlStore(open_engines(parsed))
    try:
        await store.migrate()
    except BaseException:
        await store.close()
        raise
    return store


class SqlStore:
    """Implements `ports.Store`. Belongs to the event loop that opened it.

    What two blocks of `begin()` may expect of each other: on SQLite they run one after the other, whatever they touch
    (BEGIN IMMEDIATE). On PostgreSQL (READ COMMITTED) they run at once, and `group(id, lock=True)` makes those of one
    group take turns: what was read of a group, its instances and its operations under that lock stays true until the
    block ends, as long as everybody who changes them holds it. The address index needs no lock. SERIALIZABLE would
    need no discipline, but would make every caller repeat its block, which a context manager cannot do for it.
    """

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlTransaction]:
        async with _unit(self._engines.writer, writes=True) as unit:
            yield unit

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlTransaction]:
        async with _unit(self._engines.reader, writes=False) as unit:
            yield unit

    async def claim(self, group_id: str, holder: str, seconds: float) -> Group | None:
        async with self.begin() as unit:
            return await unit.claim(group_id, holder, seconds)

    async def renew(self, group_id: str, holder: str, epoch: int, seconds: float) -> bool:
        async with self.begin() as unit:
            return await unit.renew(group_id, holder, epoch, seconds)

    async def release(self, group_id: str, holder: str, epoch: int) -> None:
        async with self.begin() as unit:
            await unit.release(group_id, holder, epoch)

    async def migrate(self) -> None:
        """Bring the schema to this version's; see `store.migrate`."""
        with translated():
            async with self._engines.writer.begin() as connection:
                await connection.run_sync(migrate)

    async def close(self) -> None:
        await self._engines.close()


@asynccontextmanager
async def _unit(engine: AsyncEngine, *, writes: bool) -> AsyncIterator[SqlTransaction]:
    """A connection and its transaction: committed when the block ends, undone when it raises."""
    with translated():
        connection = await engine.connect()
    try:
        with translated():
            await connection.begin()
        unit = SqlTransaction(connection, writes=writes)
        yield unit
        await unit.commit()
    finally:
        # Shielded: a cancelled caller must not leave a transaction open on a connection of the pool.
        await asyncio.shield(connection.close())

"""`ports.Store` on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from redkeep.errors import Refused
from redkeep.model.instance import Group
from redkeep.model.site import ServiceCluster
from redkeep.store.border import translated
from redkeep.store.database import Database
from redkeep.store.migrate import migrate
from redkeep.store.postgresql import Postgresql
from redkeep.store.sqlite import Sqlite, prepare_file
from redkeep.store.transaction import SqlTransaction


async def open_store(url: str) -> SqlStore:
    """Bring the database to this version's schema, and open it. Any number of processes may do so at once.

    `url` is `sqlite:///path` (four slashes for an absolute path) or `postgresql+psycopg://...`. Raises Refused when the
    URL, or a newer Redkeep's database, cannot be used, and Unavailable when it cannot be reached.
    """
    store = SqlStore(await _open_database(_parse(url)))
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

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlTransaction]:
        async with self._database.session(writes=True) as session:
            unit = SqlTransaction(session, writes=True)
            yield unit
            await unit.commit()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlTransaction]:
        async with self._database.session(writes=False) as session:
            yield SqlTransaction(session, writes=False)

    async def claim(self, group_id: str, holder: str, seconds: float) -> Group | None:
        async with self.begin() as unit:
            return await unit.claim(group_id, holder, seconds)

    async def renew(self, group_id: str, holder: str, epoch: int, seconds: float) -> bool:
        async with self.begin() as unit:
            return await unit.renew(group_id, holder, epoch, seconds)

    async def release(self, group_id: str, holder: str, epoch: int) -> None:
        async with self.begin() as unit:
            await unit.release(group_id, holder, epoch)

    async def claim_cluster(self, cluster_id: str, holder: str, seconds: float) -> ServiceCluster | None:
        async with self.begin() as unit:
            return await unit.claim_cluster(cluster_id, holder, seconds)

    async def renew_cluster(self, cluster_id: str, holder: str, lease_epoch: int, seconds: float) -> bool:
        async with self.begin() as unit:
            return await unit.renew_cluster(cluster_id, holder, lease_epoch, seconds)

    async def release_cluster(self, cluster_id: str, holder: str, lease_epoch: int) -> None:
        async with self.begin() as unit:
            await unit.release_cluster(cluster_id, holder, lease_epoch)

    async def migrate(self) -> None:
        """Bring the schema to this version's; see `store.migrate`."""
        async with self._database.session(writes=True) as session:
            with translated():
                await session.run(migrate)
            with translated(committing=True):
                await session.commit()

    async def close(self) -> None:
        await self._database.close()


def _parse(text: str) -> URL:
    try:
        return make_url(text)
    except ArgumentError as error:
        raise Refused("the database URL cannot be read: use sqlite:///path or postgresql+psycopg://...") from error


async def _open_database(url: URL) -> Database:
    match url.drivername:
        case "postgresql+psycopg" | "postgresql":
            return Postgresql(url.set(drivername="postgresql+psycopg"))
        case "sqlite" | "sqlite+aiosqlite":  # what others would write for the same file means the same file
            if url.database in (None, "", ":memory:"):
                raise Refused("a database in memory would be forgotten with the process: give the path of a file")
            await asyncio.to_thread(prepare_file, Path(url.database or ""))
            return Sqlite(url)
        case other:
            raise Refused(f"there is no database {other!r}: use sqlite:///path or postgresql+psycopg://...")

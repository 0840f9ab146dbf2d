"""PostgreSQL through psycopg's own asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from redkeep.store.border import translated
from redkeep.store.database import LOCK_SECONDS, QUEUE_SECONDS, Result

_SERVER_OPTIONS = {
    "lock_timeout": f"{LOCK_SECONDS:.0f}s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",  # a manager that hangs must not hold a group's row for ever
}


class PostgresqlSession:
    """See `database.Session`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        return await self._connection.run_sync(work)

    async def commit(self) -> None:
        await self._connection.commit()


class Postgresql:
    """See `database.Database`. One pool; sessions that read get a snapshot, which the server keeps from writing."""

    def __init__(self, url: URL) -> None:
        self._writer = create_async_engine(
            url,
            connect_args={
                "connect_timeout": 5,
                "tcp_user_timeout": 10_000,  # milliseconds until a silent peer counts as lost
                "options": _with_defaults(url.query.get("options", "")),
            },
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            pool_size=10,
            max_overflow=0,
            pool_timeout=QUEUE_SECONDS,
            pool_use_lifo=True,
            pool_pre_ping=True,  # a restarted server costs nobody a request
        )
        self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @asynccontextmanager
    async def session(self, *, writes: bool) -> AsyncIterator[PostgresqlSession]:
        with translated():
            connection = await (self._writer if writes else self._reader).connect()
        try:
            yield PostgresqlSession(connection)
        finally:
            # Shielded: a caller who is cancelled must not leave a transaction open on a connection of the pool.
            await asyncio.shield(connection.close())

    async def close(self) -> None:
        await self._writer.dispose()


def _with_defaults(options: str | tuple[str, ...]) -> str:
    """The operator's own `options` of the URL come last, and so win."""
    own = options if isinstance(options, str) else " ".join(options)
    return " ".join([*(f"-c {name}={value}" for name, value in _SERVER_OPTIONS.items()), own]).strip()

"""What SQLite and PostgreSQL have in common: sessions, in which blocking work on a SQLAlchemy connection may be run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from sqlalchemy import Connection

Result = TypeVar("Result")

LOCK_SECONDS = 5.0
"""How long a statement waits for somebody else's lock."""

QUEUE_SECONDS = 10.0
"""How long a task waits until a connection of this process is free."""


class Session(Protocol):
    """One connection, for one transaction. That begins with the first work."""

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        """Run the work where it does not block the event loop. Cheapest when it holds several statements."""
        ...

    async def commit(self) -> None:
        """The end: no work may follow."""
        ...


class Database(Protocol):
    """Where sessions come from."""

    def session(self, *, writes: bool) -> AbstractAsyncContextManager[Session]:
        """A session, undone at the end of the block unless it was committed. Raises Unavailable."""
        ...

    async def close(self) -> None: ...

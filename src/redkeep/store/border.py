"""The one border at which the exceptions of SQLAlchemy and the drivers become ours.

An answer of the database is proof that nothing was saved; silence in the middle of a commit is proof of nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from redkeep.errors import OutcomeUnknown, RedkeepError, Refused, Unavailable
from redkeep.store.schema import ADDRESS_INDEX

_SQLITE_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another process holds its write lock too long: look for one that hangs",
    sqlite3.SQLITE_LOCKED: "another process holds its write lock too long: look for one that hangs",
    sqlite3.SQLITE_FULL: "the disk is full: free space on it, then repeat the request",
    sqlite3.SQLITE_READONLY: "the file cannot be written: give this user write access to it and to its directory",
    sqlite3.SQLITE_PERM: "the file cannot be opened: give this user read and write access to it",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that its directory exists and can be written",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write: check the disk and the system's log",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database: check the path",
}

_POSTGRESQL_UNAVAILABLE = {
    "25006": "it takes no writes (a standby?): point Redkeep to the primary server",
    "25P03": "the transaction stood idle too long and was ended",
    "40": "it undid this transaction in favour of another one: repeat the request",
    "53100": "its disk is full: free space on it, then repeat the request",
    "53": "it is out of resources: look into its log",
    "55P03": "another transaction holds the row too long: look for a manager that hangs",
    "57014": "the statement took too long and was cancelled",
    "57": "it is starting, stopping or gone",
    "58": "its disk failed to read or write: look into its log",
    "08": "the connection is lost",
    "42501": "the user may not do this: grant it the ownership of the tables",
}
"""By SQLSTATE, or by its class where one sentence serves all of the class."""


@contextmanager
def translated(*, committing: bool = False) -> Iterator[None]:
    """Let none but ours out of the block, except for what only a bug in this room can cause."""
    try:
        yield
    except SQLAlchemyError as error:
        ours = as_ours(error, committing=committing)
        if ours is None:
            raise
        raise ours from error


def as_ours(error: SQLAlchemyError, *, committing: bool) -> RedkeepError | None:
    """What the caller needs to know, or None for an error that only a bug can cause."""
    if isinstance(error, PoolTimeout):
        return Unavailable("every connection to the database is in use: this process has too much at hand")
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(error.orig, committing=committing)
    return _of_postgresql(error, committing=committing)


def _of_sqlite(error: sqlite3.Error, *, committing: bool) -> RedkeepError | None:
    extended = getattr(error, "sqlite_errorcode", None)
    if extended is None:  # the driver's own complaint, not the library's: used after `close`, or used wrongly
        return _lost(f"the database is closed: {error}", committing=committing) if "closed" in str(error) else None
    if extended == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        return _taken()
    if extended == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return _orphan()
    primary = extended & 0xFF
    if primary not in _SQLITE_UNAVAILABLE:
        return None
    text = f"the database is not available: {_SQLITE_UNAVAILABLE[primary]} ({error})"
    # A failed sync may have reached the disk or not; every other failure of a commit undoes it.
    return _lost(text, committing=committing and primary == sqlite3.SQLITE_IOERR)


def _of_postgresql(error: DBAPIError, *, committing: bool) -> RedkeepError | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    words = " ".join(str(error.orig).split())
    if isinstance(error, DataError):
        return Refused(f"the database cannot keep this value: {words}")
    if state is None:  # the driver's own complaint: no server answered
        silent = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return _lost(f"the database cannot be reached: {words}", committing=committing) if silent else None
    if state == "23505" and ADDRESS_INDEX in str(error.orig):
        return _taken()
    if state == "23503":
        return _orphan()
    why = _POSTGRESQL_UNAVAILABLE.get(state) or _POSTGRESQL_UNAVAILABLE.get(state[:2])
    if why is None:
        return None
    # A server that ends while it commits may have committed: 08 and 57 are no answer, nor is 40003.
    silent = state.startswith(("08", "57P")) or state == "40003"
    return _lost(f"the database is not available: {why} ({words})", committing=committing and silent)


def _lost(text: str, *, committing: bool) -> RedkeepError:
    if not committing:
        return Unavailable(text)
    return OutcomeUnknown(f"{text}; it was committing, and may have saved the change")


def _taken() -> Refused:
    return Refused("another instance that is not deleted has this address: choose another port", kind="conflict")


def _orphan() -> Refused:
    return Refused("its group is not there: save the group first", kind="missing")

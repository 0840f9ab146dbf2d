"""Bring a database to the schema of this version of Redkeep."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from redkeep.errors import Refused

_LOCK = 0x5245444B454550  # "REDKEEP": the name of PostgreSQL's advisory lock


def migrate(connection: Connection) -> None:
    """Run what is missing, inside of the transaction that the connection is in: all of it or nothing.

    Processes that start at once take turns: on SQLite by the write lock that the transaction began with, on PostgreSQL
    by an advisory lock. Raises Refused (kind `unsupported`) when a newer Redkeep wrote the database.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _LOCK})
    config = Config()
    config.set_main_option("script_location", "redkeep.store:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Refused(f"a newer Redkeep wrote this database: upgrade this one ({error})", kind="unsupported") from error

"""When the database is new, old, foreign, busy, full, read-only or gone: what the Store says, and that it recovers."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Select, create_engine, make_url
from sqlalchemy.exc import DBAPIError

from redkeep.errors import OutcomeUnknown, Refused, Unavailable
from redkeep.model.instance import Group, Secrets
from redkeep.store import SqlStore, open_store, statements
from redkeep.store.border import as_ours
from redkeep.store.schema import metadata
from redkeep.testing.postgres import Postgres

GROUP = Group("g", "p", Secrets("a", "r"), None)


async def save(store: SqlStore) -> None:
    async with store.begin() as unit:
        await unit.save(GROUP)


def file_of(url: str) -> Path:
    return Path(make_url(url).database or "")


# --- The schema --------------------------------------------------------------------------------------------------


async def test_migrating_an_empty_database_gives_exactly_the_schema(store: SqlStore) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with store._database.session(writes=True) as session:
        assert await session.run(differences) == []


async def test_opening_again_finds_what_was_saved(database_url: str) -> None:
    first = await open_store(database_url)
    await save(first)
    await first.close()

    second = await open_store(database_url)

    async with second.read() as unit:
        assert await unit.group("g") == GROUP
    await second.close()


async def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    store = await open_store(database_url)
    async with store._database.session(writes=True) as session:
        await session.run(lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
        await session.commit()
    await store.close()

    with pytest.raises(Refused) as refused:
        await open_store(database_url)

    assert refused.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (statements.undeleted_instances("project_id"), "ix_instances_project_id"),
        (statements.undeleted_instances("group_id"), "ix_instances_group_id"),
        (statements.undeleted_instances("host_id"), "ix_instances_host_id"),
        (statements.GROUPS, "ix_instances_group_id"),
        (statements.CLUSTERS_OF_PROJECT, "ix_clusters_project_id"),
        (statements.open_operations("group_id"), "ix_operations_open"),
        (statements.open_operations(), "ix_operations_open"),
        (statements.newest_events(), "ix_events_at"),
        (statements.newest_events("group_id"), "ix_events_group_id_at"),
        (statements.newest_events("instance_id"), "ix_events_instance_id_at"),
    ],
)
async def test_every_question_has_its_index(sqlite_url: str, statement: Select[Any], index: str) -> None:
    store = await open_store(sqlite_url)

    def plan(connection: Connection) -> str:
        text = re.sub(r":\w+", "1", str(statement.compile(connection, compile_kwargs={"render_postcompile": True})))
        steps = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + text.replace("?", "1"))
        return "\n".join(step.detail for step in steps)

    async with store._database.session(writes=False) as session:
        assert index in await session.run(plan)
    await store.close()


# --- Where it is not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///:memory:", "mysql://localhost/redkeep", "no url"])
async def test_what_is_no_database_of_ours_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        await open_store(url)


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await open_store(f"postgresql+psycopg://nobody@/nothing?host={tmp_path}")


async def test_a_database_that_is_not_there_is_unavailable(postgres_server: Postgres) -> None:
    with pytest.raises(Unavailable, match="does not exist"):
        await open_store(postgres_server.url("nothing"))


async def test_a_directory_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be created"):
        await open_store(f"sqlite:///{tmp_path}/nowhere/redkeep.db")


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear database, " * 100)

    with pytest.raises(Unavailable, match="not a database"):
        await open_store(f"sqlite:///{tmp_path}/letter")


async def test_the_file_is_for_its_owner_alone(sqlite_url: str) -> None:
    store = await open_store(sqlite_url)
    await save(store)

    assert {path.stat().st_mode & 0o777 for path in file_of(sqlite_url).parent.iterdir()} == {0o600}
    await store.close()


# --- SQLite in trouble -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held_by_somebody_else(url: str) -> Iterator[None]:
    """Another connection has the write lock."""
    with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


async def test_a_database_that_stays_locked_is_unavailable_to_writers_alone(sqlite_url: str) -> None:
    store = await open_store(f"{sqlite_url}?timeout=0.05")

    with held_by_somebody_else(sqlite_url):
        with pytest.raises(Unavailable, match="lock"):
            await save(store)
        async with store.read() as unit:
            assert await unit.groups() == []

    await save(store)
    await store.close()


async def test_a_full_disk_saves_nothing_and_names_the_way_out(sqlite_url: str) -> None:
    store = await open_store(sqlite_url)
    async with store._database.session(writes=True) as session:
        await session.run(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1"))
        await session.commit()

    async def save_much() -> None:
        async with store.begin() as unit:
            await unit.save(*(Group(f"g{n}", "p" * 10_000, Secrets("a", "r"), None) for n in range(10)))

    with pytest.raises(Unavailable, match="free space"):
        await save_much()

    async with store.read() as unit:
        assert await unit.group("g0") is None
    await store.close()


async def test_a_file_that_cannot_be_written_names_the_way_out(sqlite_url: str) -> None:
    await (await open_store(sqlite_url)).close()
    engine = create_engine(f"sqlite:///file:{file_of(sqlite_url)}?mode=ro&uri=true")

    with engine.connect() as connection, pytest.raises(DBAPIError) as raised:
        connection.exec_driver_sql("DELETE FROM hosts")

    engine.dispose()
    ours = as_ours(raised.value, committing=False)
    assert isinstance(ours, Unavailable)
    assert "write access" in str(ours)


# --- PostgreSQL in trouble ---------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_before_the_commit_saved_nothing(
    postgres_server: Postgres, postgres_url: str
) -> None:
    store = await open_store(postgres_url)

    async def break_early() -> None:
        async with store.begin() as unit:
            await unit.save(GROUP)
            postgres_server.hang_up()
            await unit.now()

    with pytest.raises(Unavailable):
        await break_early()

    async with store.read() as unit:
        assert await unit.group("g") is None
    await store.close()


async def test_a_connection_that_breaks_at_the_commit_leaves_the_outcome_unknown(
    postgres_server: Postgres, postgres_url: str
) -> None:
    store = await open_store(postgres_url)

    async def break_late() -> None:
        async with store.begin() as unit:
            await unit.save(GROUP)
            postgres_server.hang_up()

    with pytest.raises(OutcomeUnknown):
        await break_late()

    await save(store)
    await store.close()


async def test_a_server_that_hung_up_meanwhile_costs_nobody_a_request(
    postgres_server: Postgres, postgres_url: str
) -> None:
    store = await open_store(postgres_url)
    await save(store)
    postgres_server.hang_up()

    assert await store.claim("g", "m1", 60.0) is not None
    await store.close()


async def test_a_row_that_stays_locked_is_unavailable(postgres_url: str) -> None:
    store = await open_store(f"{postgres_url}&options=-c lock_timeout=50ms")
    await save(store)

    async with store.begin() as holder:
        await holder.group("g", lock=True)
        with pytest.raises(Unavailable, match="row too long"):
            await store.claim("g", "m1", 60.0)
    await store.close()


async def test_a_value_that_it_cannot_keep_is_refused(postgres_url: str) -> None:
    store = await open_store(postgres_url)

    async def save_nul() -> None:
        async with store.begin() as unit:
            await unit.save(Group("\x00", "p", Secrets("a", "r"), None))

    with pytest.raises(Refused):
        await save_nul()
    await store.close()

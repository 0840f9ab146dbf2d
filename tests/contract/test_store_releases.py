"""A rolling upgrade of managers: once the first one of a release has brought the database to its schema, those of the
release before go on with it, without knowing what is new."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine
from sqlalchemy.dialects import postgresql, sqlite

from redkeep.model.instance import Event, Group, Host, Instance, Secrets, Status
from redkeep.model.operation import Kind, Operation
from redkeep.model.topology import Address, Role
from redkeep.store import open_store, rows

BEFORE = "0004"
"""The schema of the release before."""

GROUP = Group("g", "p", Secrets("a", "r"), "i", users=())
INSTANCE = Instance(
    "i", "g", "p", "cache", Role.PRIMARY, Status.ACTIVE, "1", 1, "7.0", 1.0, 2.0, "h1", Address("10.0.0.1", 7000)
)
OPERATION = Operation("o", "g", Kind.REPAIR, 1.0, deadline=9.0)
HOST = Host("h1", "10.0.0.1", 7000, 7999, ("7.0",), 1, 2, 3, 4.0)
EVENT = Event(1.0, "repair", "decided")

WRITTEN = {
    "hosts": rows.host_row(HOST),
    "groups": rows.group_row(GROUP),
    "instances": rows.instance_row(INSTANCE),
    "operations": rows.operation_row(OPERATION),
    "events": rows.event_row(EVENT),
}


def tables_before(engine: Engine) -> dict[str, Table]:
    """Migrate to the release before; its tables."""
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "redkeep.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
    known = MetaData()
    known.reflect(engine)
    return dict(known.tables)


def upsert(connection: Connection, table: Table, row: dict[str, object]) -> None:
    """As that release saves a row: with the columns that it knows."""
    known = {name: value for name, value in row.items() if name in table.c}
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(table).values(known)
    if "id" in known:
        statement = statement.on_conflict_do_update(index_elements=["id"], set_=known)
    connection.execute(statement)


@pytest.mark.parametrize("times", [1, 2], ids=["new rows", "rows that are there"])
async def test_what_the_release_before_writes_is_kept_and_read(database_url: str, times: int) -> None:
    engine = create_engine(database_url)
    known = tables_before(engine)

    newer = await open_store(database_url)
    for _ in range(times):
        with engine.begin() as connection:
            for name, row in WRITTEN.items():
                upsert(connection, known[name], row)

    async with newer.read() as unit:
        (host,), found = await unit.hosts(), await unit.whole_group("g")
    assert host == HOST
    assert found is not None
    assert (found.group, found.operations) == (GROUP, (OPERATION,))
    assert [replace(one, site="") for one in found.instances] == [replace(INSTANCE, site="")]
    await newer.close()
    engine.dispose()


async def test_the_release_before_reads_what_the_newer_writes(database_url: str) -> None:
    engine = create_engine(database_url)
    known = tables_before(engine)

    newer = await open_store(database_url)
    async with newer.begin() as unit:
        await unit.save(GROUP, INSTANCE, OPERATION, HOST)

    with engine.begin() as connection:
        for name in ("groups", "instances", "operations", "hosts"):
            (row,) = connection.execute(known[name].select()).mappings().all()
            assert dict(row) == {key: value for key, value in WRITTEN[name].items() if key in known[name].c}
    await newer.close()
    engine.dispose()

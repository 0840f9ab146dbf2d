"""Databases for the contract suites: a new file each, or a new schema of a private PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from redkeep.ports import Store
from redkeep.store import open_store
from redkeep.testing.postgres import Postgres, find_postgres, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One private server for the whole run."""
    if find_postgres() is None:
        pytest.skip("no PostgreSQL server is installed (neither initdb on the PATH nor /usr/lib/postgresql)")
    with postgres() as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Of a file that does not exist yet."""
    return f"sqlite:///{tmp_path}/redkeep.db"


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """Of an empty schema."""
    return postgres_server.new_url()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Of an empty database of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    opened: Store = await open_store(database_url)
    yield opened
    await opened.close()

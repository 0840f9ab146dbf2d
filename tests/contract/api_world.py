"""A world for the tests of the API: rows that are given, a caller, and what the API left behind.

The store is real (SQLite), the bus is the one in memory, the application is called in process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import bcrypt
import httpx

from redkeep.api.app import create_app
from redkeep.api.settings import ApiSettings
from redkeep.model.instance import Event, Group, Host, Instance, RedisUser, Secrets, Status
from redkeep.model.operation import Operation, State
from redkeep.model.topology import Address, Role
from redkeep.northbound.memory import MemoryBus, MemoryExchange
from redkeep.ports import Body, Store
from redkeep.store.sql import open_store
from redkeep.vault import Vault, digest

GIGABYTE = 1024**3
BASE = "http://keep.example"


class WatchedBus(MemoryBus):
    """Remembers what was published."""

    def __init__(self) -> None:
        self.exchange = MemoryExchange()
        super().__init__(self.exchange, name="api")
        self.published: list[tuple[str, Body]] = []

    async def publish(self, topic: str, body: Body) -> str:
        entry = await super().publish(topic, body)
        self.published.append((topic, body))
        return entry


@dataclass
class World:
    """One installation, seen from its API."""

    store: Store
    bus: WatchedBus
    vault: Vault
    settings: ApiSettings
    http: httpx.AsyncClient
    project: str = "demo"
    _port: int = field(default=7000)

    # --- given ----------------------------------------------------------------------------------------------------

    async def host(self, name: str = "h1", *versions: str, free_gb: int = 100, silent: float = 0.0) -> Host:
        async with self.store.begin() as tx:
            seen = await tx.now() - silent
            row = Host(name, "10.0.0.1", 7000, 7999, versions or ("7.0", "6.2"), 2**36, 2**40, free_gb * GIGABYTE, seen)
            await tx.save(row)
        return row

    async def instance(self, status: Status = Status.ACTIVE, *, of: Instance | None = None, **more: Any) -> Instance:
        """A row as the managers leave it; with `of` a replica of that one."""
        self._port += 1
        values: dict[str, Any] = {
            "id": str(uuid4()),
            "group_id": of.group_id if of else str(uuid4()),
            "project_id": self.project,
            "name": "cache",
            "role": Role.REPLICA if of else Role.PRIMARY,
            "status": status,
            "flavor_id": "2",
            "volume_gb": 2,
            "version": "7.0",
            "created": 1_700_000_000.0 + self._port,
            "updated": 1_700_000_000.0 + self._port,
            "host_id": "h1",
            "address": Address("10.0.0.1", self._port),
            "replica_of": of.id if of else None,
        }
        row = Instance(**(values | more))
        async with self.store.begin() as tx:
            if of is None:
                users = (RedisUser("default", digest("secret")),)
                await tx.save(Group(row.group_id, row.project_id, Secrets("a", "r"), row.id, users=users))
            await tx.save(row)
        return row

    # --- when -----------------------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Within the project, unless the path begins with two slashes."""
        url = path[1:] if path.startswith("//") else f"/v1.0/{self.project}{path}"
        return (
            await self.http.request(method, url, json=body, **more)
            if body is not None
            else await self.http.request(method, url, **more)
        )

    # --- then -----------------------------------------------------------------------------------------------------

    async def row(self, instance_id: str) -> Instance:
        async with self.store.read() as tx:
            row = await tx.instance(instance_id)
        assert row is not None
        return row

    async def group(self, group_id: str) -> Group:
        async with self.store.read() as tx:
            group = await tx.group(group_id)
        assert group is not None
        return group

    async def operations(self) -> list[Operation]:
        async with self.store.read() as tx:
            return await tx.open_operations()

    async def the_operation(self) -> Operation:
        (operation,) = await self.operations()
        return operation

    async def events(self) -> list[Event]:
        async with self.store.read() as tx:
            return await tx.events()


async def finish(store: Store, state: State = State.DONE, error: str | None = None) -> None:
    """What the managers do to open operations, without the work."""
    async with store.begin() as tx:
        for operation in await tx.open_operations():
            await tx.save(replace(operation, state=state, error=error))


@contextlib.asynccontextmanager
async def finishing(store: Store, state: State = State.DONE, error: str | None = None) -> AsyncIterator[None]:
    """Somebody finishes whatever is recorded, for the length of the block."""

    async def forever() -> None:
        while True:
            await finish(store, state, error)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        doer = tasks.create_task(forever())
        yield
        doer.cancel()


@contextlib.asynccontextmanager
async def world(directory: Path, **changes: Any) -> AsyncIterator[World]:
    """A new installation without hosts and without instances."""
    settings = replace(ApiSettings(auth="noauth", users_wait_seconds=0.2), **changes)
    store, bus, vault = await open_store(f"sqlite:///{directory}/rows.db"), WatchedBus(), Vault.open(directory / "key")
    app = create_app(settings, store, bus, vault)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as http:
        yield World(store, bus, vault, settings, http)
    await bus.close()
    await store.close()


def write_htpasswd(path: Path, passwords: Mapping[str, str]) -> Path:
    """A password file, at the lowest cost that bcrypt knows."""
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for name, word in passwords.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def fault(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, name and message of an error, whose shape must be the contract's."""
    ((name, detail),) = answer.json().items()
    assert detail == {"code": answer.status_code, "message": detail["message"]}
    assert answer.headers["content-type"] == "application/json"
    assert "retry-after" not in answer.headers
    return answer.status_code, name, detail["message"]

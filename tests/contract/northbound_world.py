"""Everything that the driver must behave the same on: servers of each kind and version, both faces, and the twin."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from redkeep.model.topology import Address
from redkeep.northbound import Client, RawTables, Tables, connect, sync
from redkeep.northbound.memory_client import MemoryClient
from redkeep.northbound.memory_tables import MemoryDoor
from redkeep.northbound.tables import BasicTables
from redkeep.redis.versions import find_servers
from redkeep.testing.clusters import ClusterProcesses
from redkeep.testing.servers import RedisProcess

VERSIONS = tuple(find_servers())
KINDS = ("single", "replicated", "cluster")
FACES = ("async", "sync")
WORLDS = [
    *(f"memory-{face}" for face in FACES),
    *(
        pytest.param(f"{kind}-{version}-{face}", marks=pytest.mark.real)
        for kind in KINDS
        for version in VERSIONS
        for face in FACES
    ),
]


class Servers:
    """Servers of one kind and version, empty at the beginning of each test."""

    def __init__(self, kind: str, version: str) -> None:
        self.cluster: ClusterProcesses | None = None
        self.processes: list[RedisProcess] = []
        if kind == "cluster":
            self.cluster = ClusterProcesses(version=version)
        else:
            self.processes.append(RedisProcess("repl-diskless-sync no", version=version).start())
        if kind == "replicated":
            self.processes.append(
                RedisProcess(
                    "repl-diskless-sync no", f"replicaof 127.0.0.1 {self.processes[0].port}", version=version
                ).start()
            )

    @property
    def seeds(self) -> list[Address]:
        return self.cluster.addresses[:2] if self.cluster else [one.address for one in self.processes]

    def flush(self) -> None:
        if self.cluster:
            self.cluster.flush()
        else:
            with self.processes[0].client() as admin:
                admin.flushall()

    def cut(self) -> None:
        """End every connection that hears."""
        for process in self.cluster.servers if self.cluster else self.processes:
            with process.client() as admin:
                admin.client_kill_filter(_type="pubsub")

    def close(self) -> None:
        if self.cluster:
            self.cluster.close()
        for process in self.processes:
            process.close()


class Awaited:
    """Gives a synchronous object the asynchronous one's face, so that one suite speaks to both."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name == "iterate":
            return lambda *args, **options: _iterate(method(*args, **options))

        async def call(*args: Any, **options: Any) -> Any:
            found = method(*args, **options)
            return await found if inspect.isawaitable(found) else found

        return call


async def _iterate(pairs: Any) -> Any:
    for pair in pairs:
        yield pair


@dataclass
class World:
    """Somewhere to open tables that meet."""

    face: str
    servers: Servers | None
    door: MemoryDoor = field(default_factory=MemoryDoor)
    clients: list[Callable[[], Any]] = field(default_factory=list)

    async def client(self) -> Client:
        client = MemoryClient(self.door) if self.servers is None else await connect(self.servers.seeds)
        self.clients.append(client.close)
        return client

    def blocking(self) -> sync.Client:
        client = sync.connect_twin(self.door) if self.servers is None else sync.connect(self.servers.seeds)
        self.clients.append(client.close)
        return client

    def cut(self) -> None:
        """Every connection that hears is lost."""
        if self.servers is None:
            self.door.cut()
        else:
            self.servers.cut()

    async def tables(self, **options: Any) -> BasicTables[str]:
        return await self._tables("Tables", options)  # type: ignore[no-any-return]

    async def raw_tables(self, **options: Any) -> BasicTables[bytes]:
        return await self._tables("RawTables", options)  # type: ignore[no-any-return]

    async def _tables(self, kind: str, options: dict[str, Any]) -> Any:
        made = {"Tables": Tables, "RawTables": RawTables}[kind]
        if self.servers is None:
            inner: Any = made(self.door, **options)
            return inner if self.face == "async" else Awaited(sync.BasicTables(inner))
        if self.face == "async":
            return made(await self.client(), **options)
        return Awaited(getattr(sync, kind)(self.blocking(), **options))

    async def close(self) -> None:
        for close in self.clients:
            found = close()
            if inspect.isawaitable(found):
                await found

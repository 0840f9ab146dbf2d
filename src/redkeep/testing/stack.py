"""A whole Redkeep in one process, on real redis-servers: control Redis, store, agents, managers and the API.

Each part can be stopped, killed (it says and cleans up nothing) and started again, as tests of the hard cases need.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from redkeep.agent.service import Agent
from redkeep.agent.settings import AgentSettings
from redkeep.api.app import create_app
from redkeep.api.settings import ApiSettings
from redkeep.backends.loading import load_driver
from redkeep.manager.membership import Membership
from redkeep.manager.service import Manager
from redkeep.manager.settings import ManagerSettings
from redkeep.model.instance import Group, Instance
from redkeep.model.operation import Kind
from redkeep.model.site import Backend
from redkeep.northbound.bus import RedisBus
from redkeep.operations.context import StepHook, Tools, no_hook
from redkeep.orders import BusAgents
from redkeep.ports import BackupStorage, Store
from redkeep.redis.versions import find_servers
from redkeep.storage import StorageSettings, open_storage
from redkeep.store.sql import open_store
from redkeep.testing.servers import RedisProcess, free_port
from redkeep.vault import Vault

PROJECT = "admin"
MEMBER = {"flavorRef": 1, "volume": {"size": 1}}


class Killed(BaseException):
    """What a test's step hook raises: the doer is gone, and nothing of it runs any more."""


@dataclass
class Part:
    """A running manager or agent: its task, and what it holds."""

    task: asyncio.Task[None]
    service: Any
    bus: RedisBus
    store: Store | None = None

    async def kill(self) -> None:
        """End it as kill -9 would: no goodbye on the bus, no lease given back."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        workers = list(getattr(self.service, "_workers", {}).values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await self.bus.close()
        if isinstance(self.service, Agent):
            await self.service.close()


@dataclass
class Stack:
    """Use `stack()`; it makes the directory and ends every process."""

    directory: Path
    control: RedisProcess
    vault: Vault
    versions: dict[str, Path] = field(default_factory=lambda: dict(find_servers()))
    manager_options: dict[str, Any] = field(default_factory=dict)
    agent_options: dict[str, Any] = field(default_factory=dict)
    api_options: dict[str, Any] = field(default_factory=dict)
    backup_options: dict[str, Any] = field(default_factory=dict)
    backend: Backend = field(default_factory=Backend)
    """What the managers serve, and its sites."""
    database: str = ""
    """Of the store; by default a SQLite file."""
    parts: list[Part] = field(default_factory=list)
    store: Store | None = None
    api: httpx.AsyncClient | None = None
    passwords: dict[str, str] = field(default_factory=dict)
    """Passwords from create replies, by instance name."""

    async def open(self) -> None:
        self.store = await open_store(self.store_url)
        api_bus = self.bus("api")
        settings = ApiSettings(auth="noauth", public_url="http://redkeep.test", **self.api_options)
        app = create_app(settings, self.store, api_bus, self.vault)
        transport = httpx.ASGITransport(app=app)
        self.api = httpx.AsyncClient(transport=transport, base_url=f"http://redkeep.test/v1.0/{PROJECT}", timeout=30)
        self._api_bus = api_bus

    @property
    def store_url(self) -> str:
        return self.database or f"sqlite:///{self.directory}/redkeep.db"

    def bus(self, name: str) -> RedisBus:
        return RedisBus(self.control.address, name=name)

    def storage(self, host_id: str) -> BackupStorage:
        """Where a host keeps its backups: a directory that all have, since they are one machine."""
        usual = StorageSettings(f"file://{self.directory}/backups", host_id, shared=True)
        return open_storage(replace(usual, **self.backup_options))

    async def start_agent(self, host_id: str = "host-1", **options: Any) -> Part:
        base = free_port()
        settings = AgentSettings(
            host_id=host_id,
            address="127.0.0.1",
            directory=self.directory / host_id,
            programs=self.versions,
            port_low=base,
            port_high=base + 200,
        )
        settings = replace(settings, **{**self.agent_options, **options})
        bus = self.bus(f"agent-{host_id}")
        agent = Agent(settings, bus, self.vault, self.storage(host_id))
        return self._add(Part(asyncio.create_task(agent.run(), name=f"agent {host_id}"), agent, bus))

    async def start_manager(self, name: str = "manager-1", at_step: StepHook = no_hook, **options: Any) -> Part:
        bus, store = self.bus(name), await open_store(self.store_url)
        flavors = {flavor.id: flavor for flavor in ApiSettings().flavors}
        settings = replace(ManagerSettings(name=name, flavors=flavors), **{**self.manager_options, **options})
        tools = Tools(
            store,
            BusAgents(bus),
            bus,
            flavors,
            backend=self.backend,
            word_seconds=settings.word_seconds,
            roll_patience=settings.roll_patience,
            host_lost=settings.host_lost,
            at_step=at_step,
        )
        membership = Membership(settings, store, bus, tools.agents, load_driver(settings.backend.driver))
        manager = Manager(settings, tools, membership)
        part = self._add(Part(asyncio.create_task(manager.run(), name=name), manager, bus, store))
        await self.eventually(self._hosts_known, what="the first word of every agent")
        return part

    async def _hosts_known(self) -> bool:
        agents = sum(isinstance(part.service, Agent) and not part.task.done() for part in self.parts)
        assert self.store is not None  # noqa: S101
        async with self.store.read() as tx:
            return len(await tx.hosts()) >= agents

    def _add(self, part: Part) -> Part:
        self.parts.append(part)
        return part

    # --- as a user ------------------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None, *, expect: int | None = None) -> Any:
        """One request to the API; the parsed reply."""
        assert self.api is not None  # noqa: S101
        reply = await self.api.request(method, path, json=body)
        if expect is not None:
            assert reply.status_code == expect, f"{method} {path}: {reply.status_code} {reply.text}"  # noqa: S101
        else:
            reply.raise_for_status()
        return reply.json() if reply.content else None

    async def create(self, name: str = "db", *, version: str | None = None, **more: Any) -> dict[str, Any]:
        """Order an instance and wait until it is ready; the shown instance."""
        body = {"name": name, "flavorRef": 1, "volume": {"size": 1}, **more}
        if version and "replica_of" not in more:
            body["datastore"] = {"type": "redis", "version": version}
        made = (await self.call("POST", "/instances", {"instance": body}))["instance"]
        if "password" in made:
            self.passwords[name] = made["password"]
        return await self.until(made["id"], "ACTIVE")

    async def replicated(self, name: str = "db", replicas: int = 2, version: str | None = None) -> list[dict[str, Any]]:
        """A primary and its replicas, ready; the primary first."""
        primary = await self.create(name, version=version)
        body = {"name": f"{name}-replica", "replica_of": primary["id"], "replica_count": replicas}
        await self.call("POST", "/instances", {"instance": body})
        members = [one for one in await self.rows() if one.replica_of == primary["id"]]
        return [primary, *[await self.until(one.id, "ACTIVE") for one in members]]

    async def create_cluster(
        self, name: str = "c", primaries: int = 3, replicas: int = 0, *, version: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Order a cluster and wait until it is ready; the shown cluster."""
        body: dict[str, Any] = {"name": name, "instances": [MEMBER] * primaries, "replicas_per_shard": replicas, **more}
        if version:
            body["datastore"] = {"type": "redis", "version": version}
        made = (await self.call("POST", "/clusters", {"cluster": body}))["cluster"]
        self.passwords[name] = made["password"]
        return await self.until_free(made["id"])

    async def act_on(self, cluster_id: str, body: dict[str, Any], limit: float = 120.0) -> dict[str, Any]:
        """One action, and wait until it is done; the shown cluster."""
        await self.call("POST", f"/clusters/{cluster_id}", body)
        return await self.until_free(cluster_id, limit)

    async def until_free(self, cluster_id: str, limit: float = 60.0) -> dict[str, Any]:
        """Wait until nothing is being done with a cluster; a task that was given up is an error."""
        deadline = time.monotonic() + limit
        while True:
            shown: dict[str, Any] = (await self.call("GET", f"/clusters/{cluster_id}"))["cluster"]
            if shown["task"]["name"] == "NONE" and "fault" not in shown:
                return shown
            if "fault" in shown or time.monotonic() > deadline:
                raise AssertionError(f"{shown['name']} is {shown['task']['name']}: {shown}")
            await asyncio.sleep(0.02)

    async def until(self, instance_id: str, status: str, limit: float = 30.0) -> dict[str, Any]:
        """Wait for a status; ERROR ends the wait with what the instance says of it."""
        deadline = time.monotonic() + limit
        while True:
            shown: dict[str, Any] = (await self.call("GET", f"/instances/{instance_id}"))["instance"]
            if shown["status"] == status:
                return shown
            if shown["status"] == "ERROR" or time.monotonic() > deadline:
                raise AssertionError(f"{shown['name']} is {shown['status']}, not {status}: {shown.get('fault')}")
            await asyncio.sleep(0.02)

    async def eventually(self, holds: Callable[[], Any], limit: float = 30.0, *, what: str = "") -> Any:
        """Wait until an asynchronous condition gives something true; return that."""
        deadline = time.monotonic() + limit
        while True:
            if found := await holds():
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what or holds} did not come about in {limit:g} s")
            await asyncio.sleep(0.02)

    # --- behind the scenes ----------------------------------------------------------------------------------------

    async def rows(self) -> list[Instance]:
        assert self.store is not None  # noqa: S101
        async with self.store.read() as tx:
            return await tx.instances()

    async def group(self, group_id: str) -> Group:
        assert self.store is not None  # noqa: S101
        async with self.store.read() as tx:
            group = await tx.group(group_id)
        assert group is not None, group_id  # noqa: S101
        return group

    async def idle(self, limit: float = 30.0) -> None:
        """Wait until no operation is open."""

        async def none_open() -> bool:
            assert self.store is not None  # noqa: S101
            async with self.store.read() as tx:
                return not await tx.open_operations()

        await self.eventually(none_open, limit, what="the end of all operations")

    def redis_processes(self) -> list[psutil.Process]:
        """Every redis-server of this stack but the control Redis, whoever started it."""
        ours = f"{self.directory}/host"
        servers = (one for one in psutil.process_iter(["name", "cwd"]) if one.info["name"] == "redis-server")
        return [one for one in servers if (one.info["cwd"] or "").startswith(ours)]

    async def close(self) -> None:
        for part in self.parts:
            await part.kill()
        for part in self.parts:
            if part.store is not None:
                await part.store.close()
        if self.api is not None:
            await self.api.aclose()
            await self._api_bus.close()
        if self.store is not None:
            await self.store.close()
        for process in self.redis_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.control.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@asynccontextmanager
async def stack(**options: Any) -> AsyncIterator[Stack]:
    """A stack with its API; agents and managers are the test's to start."""
    directory = Path(tempfile.mkdtemp(prefix="redkeep-test-"))
    control = RedisProcess("appendonly yes").start()
    found = Stack(directory, control, Vault.open(directory / "secret.key"), **options)
    try:
        await found.open()
        yield found
    finally:
        await found.close()


def kill_at(kind: Kind, step: str, then: asyncio.Event) -> StepHook:
    """A hook that kills the doer at one step of one kind of operation, and says so."""

    def hook(entered: Kind, entered_step: str) -> None:
        if entered is kind and entered_step == step and not then.is_set():
            then.set()
            raise Killed(f"{kind} {step}")

    return hook

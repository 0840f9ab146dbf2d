"""A backend with several managers and two other sites, without any server: real rows, a bus in memory, the real API,
and drivers of a storage that exists as values (`redkeep.testing.fake_backend`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from redkeep.api.app import create_app
from redkeep.api.settings import ApiSettings
from redkeep.backends.loading import DriverClass
from redkeep.manager.membership import Membership
from redkeep.manager.settings import ManagerSettings
from redkeep.model.site import Backend, ReplicationTarget, Service, ServiceCluster, site_of
from redkeep.northbound.memory import MemoryBus, MemoryExchange
from redkeep.operations.fail_over_site import SiteHook, no_hook
from redkeep.orders import BusAgents
from redkeep.store.sql import SqlStore, open_store
from redkeep.testing.fake_backend import FakeStorage
from redkeep.testing.stack import Killed
from redkeep.vault import Vault

CLUSTER = "managers@redis"
TARGETS = (ReplicationTarget("dr1", "oslo"), ReplicationTarget("dr2", "bern"))
LIMIT = 60.0
"""Seconds that anything may take on a machine that is busy with other things."""


class Deaf(MemoryBus):
    """A bus whose messages are lost on the way, or come when and as often as a test wants."""

    async def publish(self, topic: str, body: Any) -> str:
        return "lost"


@dataclass
class Member:
    """One run of one manager."""

    name: str
    membership: Membership
    bus: MemoryBus
    task: asyncio.Task[None] | None = None

    async def kill(self) -> None:
        """As kill -9 would: nothing is given back."""
        worker = self.membership._worker
        for task in (worker, self.task):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(one for one in (worker, self.task) if one is not None), return_exceptions=True)
        await self.bus.close()


@dataclass
class Scene:
    """Use `scene()`."""

    store: SqlStore
    exchange: MemoryExchange
    http: httpx.AsyncClient
    storage: FakeStorage = field(default_factory=FakeStorage)
    members: dict[str, Member] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    # --- given ----------------------------------------------------------------------------------------------------

    async def start(self, name: str, at_step: SiteHook = no_hook, **more: Any) -> Member:
        """A manager that joins and runs. `more`: `bus`, `make`, `reads`, `release`, or settings."""
        bus = more.pop("bus", MemoryBus)(self.exchange, name=name)
        make: DriverClass = more.pop("make", None) or self.storage.driver_class()
        spoken = {key: more.pop(key) for key in ("reads", "release") if key in more}
        plain = ManagerSettings(
            name=name,
            flavors={},
            backend=Backend(targets=TARGETS),
            look_interval=0.05,
            lease_seconds=1.0,
            report_interval=0.2,
            follow_pause=0.05,
        )
        settings = replace(plain, **{**self.options, **more})
        membership = Membership(settings, self.store, bus, BusAgents(bus), make, at_step=at_step, **spoken)
        member = self.members[name] = Member(name, membership, bus)
        await membership.join()
        member.task = asyncio.create_task(membership.run(), name=name)
        return member

    async def start_all(self, *names: str, **more: Any) -> None:
        for name in names:
            await self.start(name, **more)

    async def restart(self, name: str, **more: Any) -> Member:
        await self.members[name].kill()
        return await self.start(name, **more)

    # --- when -----------------------------------------------------------------------------------------------------

    async def put(self, verb: str, **body: Any) -> httpx.Response:
        headers = {"OpenStack-API-Version": "volume 3.26"}
        return await self.http.put(f"/v3/os-services/{verb}", json=body, headers=headers)

    async def ask(self, target: str | None, **more: Any) -> httpx.Response:
        """A failover of the cluster, which is accepted."""
        answer = await self.put("failover", cluster=CLUSTER, backend_id=target, **more)
        assert answer.status_code == 202, answer.text
        return answer

    # --- then -----------------------------------------------------------------------------------------------------

    async def cluster(self, name: str = CLUSTER) -> ServiceCluster:
        async with self.store.read() as tx:
            row = await tx.service_cluster(name)
        assert row is not None
        return row

    async def services(self) -> dict[str, Service]:
        """By the name before the `@`."""
        async with self.store.read() as tx:
            return {one.id.partition("@")[0]: one for one in await tx.services()}

    async def shown(self) -> dict[str, Any]:
        answer = await self.http.get("/v3/clusters/managers", headers={"OpenStack-API-Version": "volume 3.26"})
        found: dict[str, Any] = answer.json()["cluster"]
        return found

    async def eventually(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not await holds():
            assert time.monotonic() < deadline, f"{what} did not come about: {await self.cluster()}"
            await asyncio.sleep(0.02)

    async def until(self, status: str) -> None:
        async def there() -> bool:
            return (await self.cluster()).replication_status == status

        await self.eventually(there, status)

    async def settled(self, target: str, *names: str) -> None:
        """All rows, the storage, and the drivers of these members (of all that there are, by default) agree."""
        status = "enabled" if target == "default" else "failed-over"
        await self.until(status)
        wanted = names or tuple(self.members)

        async def followed() -> bool:
            cluster, services = await self.cluster(), await self.services()
            return all(
                (one.replication_status, one.active_backend_id, one.applied_epoch, one.disabled)
                == (cluster.replication_status, cluster.active_backend_id, cluster.epoch, cluster.disabled)
                for one in (services[name] for name in wanted)
            )

        await self.eventually(followed, f"that {wanted} have followed to {target}")
        cluster = await self.cluster()
        assert site_of(cluster.active_backend_id) == target
        assert self.storage.active == target
        assert {self.storage.drivers[name].site for name in wanted} == {target}
        assert cluster.failover is None or cluster.failover.finished is not None


@asynccontextmanager
async def scene(directory: Path, url: str = "", **options: Any) -> AsyncIterator[Scene]:
    """An empty one. `url`: of a database other than a file in the directory. `options`: settings of all managers."""
    store = await open_store(url or f"sqlite:///{directory}/rows.db")
    exchange = MemoryExchange()
    api_bus = MemoryBus(exchange, name="api")
    settings = ApiSettings(auth="noauth", hook_wait_seconds=30.0)
    app = create_app(settings, store, api_bus, Vault.open(directory / "key"))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://keep.example", timeout=60
    ) as http:
        found = Scene(store, exchange, http, options=options)
        try:
            yield found
        finally:
            for member in found.members.values():
                await member.kill()
    await api_bus.close()
    await store.close()


def dies_at(step: str, dead: asyncio.Event, *, times: int = 1) -> SiteHook:
    """A hook that kills the doer when it comes to a step, the first so many times."""
    left = [times]

    def hook(entered: str) -> None:
        if entered == step and left[0] > 0:
            left[0] -= 1
            dead.set()
            raise Killed(step)

    return hook

"""Two sites in one process, on real servers: what the tests of failovers between them have in common."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redkeep.model.instance import Event, Group, Instance
from redkeep.model.site import Backend, ReplicationStatus, ReplicationTarget, ServiceCluster
from redkeep.model.topology import Role
from redkeep.northbound import connect
from redkeep.operations.context import StepHook, no_hook
from redkeep.redis.conf import ADMIN
from redkeep.testing.stack import Part, Stack, stack
from redkeep.testing.writer import Writer

NORTH, SOUTH = "north", "south"
SITE_SECONDS = 4.0
BACKEND = Backend(
    driver="redis_sites", site=NORTH, targets=(ReplicationTarget(SOUTH, SOUTH),), site_seconds=SITE_SECONDS
)
OPEN = ReplicationStatus.FAILING_OVER
VERSION = {"OpenStack-API-Version": "volume 3.26"}
QUICK = {
    "backend": BACKEND,
    "lease_seconds": 1.5,
    "look_interval": 0.3,
    "word_seconds": 1.5,
    "report_interval": 0.3,
    "canary_interval": 0.3,
    "repair_pause": 1.0,
}


@dataclass
class Sites:
    """An instance at one site with its replicas, and a stand-by at the other."""

    found: Stack
    agents: dict[str, Part]
    managers: dict[str, Part] = field(default_factory=dict)

    async def start_managers(self, *names: str, at_step: StepHook = no_hook) -> None:
        for name in names:
            self.managers[name] = await self.found.start_manager(name, at_step)

    async def create(self, local_replicas: int = 0, **more: Any) -> dict[str, Any]:
        """Ready at both sites."""
        shown = await self.found.create("db", replication={"sites": "all"}, **more)
        if local_replicas:
            order = {"name": "near", "replica_of": shown["id"], "replica_count": local_replicas}
            await self.found.call("POST", "/instances", {"instance": order})
        for one in await self.found.rows():
            await self.found.until(one.id, "ACTIVE")
        await self.found.idle()
        return shown

    # --- who is who

    async def row(self, site: str, role: Role | None = None) -> Instance:
        rows = [one for one in await self.found.rows() if one.site == site and role in (None, one.role)]
        return min(rows, key=lambda one: one.created)

    async def group(self) -> Group:
        return await self.found.group((await self.found.rows())[0].group_id)

    async def primary(self) -> Instance:
        wanted = (await self.group()).primary_id
        return next(one for one in await self.found.rows() if one.id == wanted)

    async def cluster(self) -> ServiceCluster:
        assert self.found.store is not None
        async with self.found.store.read() as tx:
            row = await tx.service_cluster("managers@redis")
        assert row is not None
        return row

    async def events(self) -> list[Event]:
        assert self.found.store is not None
        async with self.found.store.read() as tx:
            return await tx.events(group_id=(await self.group()).id, limit=200)

    def process(self, one: Instance) -> psutil.Process:
        return next(p for p in self.found.redis_processes() if p.cwd().endswith(one.id))

    @contextlib.contextmanager
    def stopped(self, one: Instance) -> Iterator[None]:
        """The server hears nothing, for the length of the block."""
        process = self.process(one)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    # --- as a user and as an operator

    def redis(self, one: Instance) -> Redis:
        assert one.address is not None
        where = {"host": one.address.host, "port": one.address.port, "socket_timeout": 2}
        return Redis(**where, password=self.found.passwords["db"], decode_responses=True)  # type: ignore[arg-type]

    async def write(self, one: Instance, key: str, value: str) -> None:
        """Accepted and on a replica, if not at once: on a busy machine a word for a site may come late."""

        async def accepted() -> bool:
            async with self.redis(one) as redis:
                with contextlib.suppress(RedisError):
                    await redis.set(key, value)
                    return bool(await redis.wait(1, 1000) >= 1)
            return False

        await self.found.eventually(accepted, 30, what=f"a write to {one.name}")

    async def admin(self, one: Instance) -> Redis:
        assert one.address is not None
        password = self.found.vault.unseal((await self.group()).secrets.admin)
        where = {"host": one.address.host, "port": one.address.port, "socket_timeout": 5}
        return Redis(**where, username=ADMIN, password=password, decode_responses=True)  # type: ignore[arg-type]

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Writer]:
        seeds = [str(one.address) for one in await self.found.rows() if one.address is not None]
        async with (
            await connect(seeds, password=self.found.passwords["db"], timeout=20) as client,
            Writer(client, pause=0.002) as writer,
        ):
            yield writer

    async def ask(self, action: str, **body: Any) -> httpx.Response:
        """One PUT to the services of the block storage API."""
        assert self.found.api is not None
        url = f"http://redkeep.test/v3/admin/os-services/{action}"
        return await self.found.api.put(url, json={"cluster": "managers", **body}, headers=VERSION)

    async def begin(self, target: str, *, forced: bool | None) -> None:
        reply = await self.ask("failover", backend_id=target, **({} if forced is None else {"forced": forced}))
        assert reply.status_code == 202, reply.text

    async def fail_over(self, target: str, *, forced: bool | None = None, limit: float = 60.0) -> ServiceCluster:
        """Ask, and wait until it is over, one way or another."""
        before = (await self.cluster()).failover
        await self.begin(target, forced=forced)

        async def over() -> ServiceCluster | None:
            row = await self.cluster()
            again = before is None or (row.failover is not None and row.failover.id != before.id)
            return row if row.replication_status is not OPEN and again else None

        found: ServiceCluster = await self.found.eventually(over, limit, what=f"the end of a failover to {target}")
        return found

    async def whole(self, servers: int, limit: float = 60.0) -> None:
        """All are well, as the API shows them."""

        async def well() -> bool:
            members = (await self.found.call("GET", "/status"))["members"]
            return len(members) == servers and all(one["health"] == "ok" for one in members)

        await self.found.eventually(well, limit, what="health of all")


@asynccontextmanager
async def two_sites(*managers: str, at_step: StepHook = no_hook) -> AsyncIterator[Sites]:
    """An agent at each site, and managers; nothing is ordered yet."""
    async with stack(
        backend=BACKEND, api_options={"sites": BACKEND}, manager_options=QUICK, agent_options={"word_seconds": 1.5}
    ) as found:
        agents = {site: await found.start_agent(f"host-{site}", site=site) for site in (NORTH, SOUTH)}
        sites = Sites(found, agents)
        await sites.start_managers(*(managers or ("manager-1",)), at_step=at_step)
        yield sites

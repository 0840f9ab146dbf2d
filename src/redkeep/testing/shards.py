"""A Redis Cluster that a stack manages, for tests and benchmarks: made, loaded with keys, compared key by key."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from redkeep.decide.agreement import disagreement, prevailing
from redkeep.model.cluster import ClusterTask
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Event, Group, Instance, Status
from redkeep.model.operation import Kind, Operation, State
from redkeep.model.slots import ClusterView, slot_of, slots_in
from redkeep.model.topology import Role
from redkeep.northbound.bus import RedisBus
from redkeep.orders import HINTS, BusAgents, hint
from redkeep.redis.conf import ADMIN
from redkeep.testing.stack import Stack


@dataclass
class ManagedCluster:
    """Use `managed_cluster`."""

    found: Stack
    id: str
    bus: RedisBus
    _clients: dict[str, Redis] = field(default_factory=dict)

    # --- who is who

    async def members(self) -> list[Instance]:
        return [one for one in await self.found.rows() if one.group_id == self.id]

    async def group(self) -> Group:
        return await self.found.group(self.id)

    async def password(self) -> str:
        return self.found.vault.unseal((await self.group()).secrets.admin)

    async def shard(self, label: str) -> tuple[Instance, list[Instance]]:
        """Its primary by the rows, and its replicas."""
        mine = [one for one in await self.members() if one.shard == label]
        primary = next(one for one in mine if one.role is Role.PRIMARY)
        return primary, [one for one in mine if one is not primary]

    def process(self, one: Instance) -> psutil.Process:
        return next(p for p in self.found.redis_processes() if p.cwd().endswith(one.id))

    async def events(self) -> list[Event]:
        assert self.found.store is not None  # noqa: S101
        async with self.found.store.read() as tx:
            return await tx.events(group_id=self.id, limit=200)

    # --- what is seen of it

    async def redis(self, one: Instance) -> Redis:
        """A client of one member, closed with the cluster."""
        assert one.address is not None  # noqa: S101
        key = f"{one.id} {one.address}"
        if key not in self._clients:
            self._clients[key] = Redis(
                host=one.address.host,
                port=one.address.port,
                username=ADMIN,
                password=await self.password(),
                socket_timeout=5,
                retry=Retry(NoBackoff(), 2),  # a server that was started anew has closed what we kept
            )
        return self._clients[key]

    async def look(self) -> dict[str, ServerFacts]:
        """Of each member, by its agent."""
        return await self.look_at(await self.members())

    async def look_at(self, members: Iterable[Instance]) -> dict[str, ServerFacts]:
        """The same, of some."""
        agents = BusAgents(self.bus)
        by_host: dict[str, list[str]] = {}
        for one in members:
            by_host.setdefault(one.host_id or "", []).append(one.id)
        seen = [facts for host, names in by_host.items() for facts in await agents.look(host, names)]
        return {facts.instance_id: facts for facts in seen}

    async def truth(self) -> ClusterView:
        return prevailing(await self.look())

    async def trouble(self) -> str | None:
        """What keeps the cluster and its rows from being in order; None when nothing does."""
        members = await self.members()
        facts = await self.look()
        if reason := disagreement(facts, [one.id for one in members]):
            return reason
        for one in members:
            said = facts[one.id].cluster
            if said is None or said.node_id != one.node_id or one.status is not Status.ACTIVE:
                return f"{one.name} is {one.status}, and its row names another node"
            if (own := next(each for each in said.view.members if each.id == said.node_id)).address != one.address:
                return f"{one.name} is at {own.address}, not where its row says"
            if (said.primary_id is None) is not (one.role is Role.PRIMARY):
                return f"{one.name} is not the {one.role} that its row says"
        return None

    async def settled(self, limit: float = 60.0) -> None:
        """Wait until nothing is open, all members are of one mind, and the rows say the same."""
        last: str | None = "nothing looked at"
        deadline = time.monotonic() + limit
        await self.found.idle(limit)
        while last is not None:
            last = await self.trouble()
            assert last is None or time.monotonic() < deadline, f"not in order in {limit:g} s: {last}"  # noqa: S101
        await self.found.idle(limit)

    async def slots_by_shard(self) -> dict[str, int]:
        """As the members have it."""
        truth, rows = await self.truth(), {one.node_id: one.shard or "" for one in await self.members()}
        counts: dict[str, int] = {}
        for node in truth.members:
            counts[rows.get(node.id, "?")] = counts.get(rows.get(node.id, "?"), 0) + len(slots_in(node.ranges))
        return counts

    # --- keys

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[RedisCluster]:
        """A cluster-aware client that everybody uses, redis-py's."""
        nodes = [ClusterNode(one.address.host, one.address.port) for one in await self.members() if one.address]
        async with RedisCluster(
            startup_nodes=nodes, username=ADMIN, password=await self.password(), socket_timeout=5, **options
        ) as made:
            yield made

    async def fill(self, count: int, size: int = 100, prefix: str = "key") -> dict[str, bytes]:
        """So many keys, each with a value of its own; what was written."""
        wanted = {f"{prefix}:{n}": (f"{n}:".encode() * size)[:size] for n in range(count)}
        rows = {one.node_id: one for one in await self.members()}
        owners = {slot: rows[node.id] for node in (await self.truth()).members for slot in slots_in(node.ranges)}
        by_owner: dict[str, list[str]] = {}
        for key in wanted:
            by_owner.setdefault(owners[slot_of(key.encode())].id, []).append(key)
        for one in rows.values():
            redis, keys = await self.redis(one), by_owner.get(one.id, [])
            for start in range(0, len(keys), 1000):
                async with redis.pipeline(transaction=False) as pipe:
                    for key in keys[start : start + 1000]:
                        pipe.set(key, wanted[key])
                    await pipe.execute()
        return wanted

    async def compare(self, wanted: Mapping[str, bytes]) -> None:
        """Key by key: each is there once, with its value, where its slot is; and no other key of theirs is anywhere."""
        rows = {one.node_id: one for one in await self.members()}
        owners = {slot: node.id for node in (await self.truth()).members for slot in slots_in(node.ranges)}
        seen: dict[str, str] = {}
        for node_id, one in rows.items():
            if one.role is not Role.PRIMARY:
                continue
            redis = await self.redis(one)
            keys = [key async for key in redis.scan_iter(count=5000)]
            values: list[Any] = []
            for start in range(0, len(keys), 1000):
                async with redis.pipeline(transaction=False) as pipe:
                    for key in keys[start : start + 1000]:
                        pipe.get(key)
                    values += await pipe.execute()
            for key, value in zip(keys, values, strict=True):
                name = key.decode()
                assert owners[slot_of(key)] == node_id, f"{name} is with {one.name}, which does not own its slot"  # noqa: S101
                assert name not in seen, f"{name} is doubled"  # noqa: S101
                if name in wanted:
                    assert value == wanted[name], f"{name} has another value"  # noqa: S101
                seen[name] = one.name
        lost = [name for name in wanted if name not in seen]
        assert not lost, f"{len(lost)} of {len(wanted)} keys are lost, among them {lost[:3]}"  # noqa: S101

    # --- what is done with it

    async def submit(self, kind: Kind, args: Mapping[str, Any], *, limit: float = 120.0) -> str:
        """Record an operation as the API does, and hint at it; its id."""
        assert self.found.store is not None  # noqa: S101
        async with self.found.store.begin() as tx:
            now = await tx.now()
            operation = Operation(str(uuid.uuid4()), self.id, kind, now, dict(args), deadline=now + limit)
            await tx.save(operation)
            if kind is Kind.REBALANCE_CLUSTER and (cluster := await tx.cluster(self.id)) is not None:
                await tx.save(replace(cluster, task=ClusterTask.UPDATING_CLUSTER))
        await self.bus.publish(HINTS, hint(self.id))
        return operation.id

    async def operation(self, operation_id: str) -> Operation:
        assert self.found.store is not None  # noqa: S101
        async with self.found.store.read() as tx:
            found = await tx.operation(operation_id)
        assert found is not None, operation_id  # noqa: S101
        return found

    async def done(self, operation_id: str, limit: float = 120.0) -> Operation:
        """Wait for its end, which must be a good one."""

        async def ended() -> Operation | None:
            found = await self.operation(operation_id)
            return None if found.state.open else found

        found: Operation = await self.found.eventually(ended, limit, what="the end of the operation")
        assert found.state is State.DONE, found.error  # noqa: S101
        return found

    async def run(self, kind: Kind, args: Mapping[str, Any], *, limit: float = 120.0) -> Operation:
        """Submit it and wait until it is done."""
        return await self.done(await self.submit(kind, args, limit=limit), limit)

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        await self.bus.close()


@contextlib.asynccontextmanager
async def managed_cluster(
    found: Stack, *, primaries: int = 3, replicas: int = 0, version: str | None = None, name: str = "cluster"
) -> AsyncIterator[ManagedCluster]:
    """Ordered by the API of a stack that has its agents and managers, and ready."""
    body: dict[str, Any] = {
        "name": name,
        "instances": [{"flavorRef": "1", "volume": {"size": 1}} for _ in range(primaries)],
        "replicas_per_shard": replicas,
        "datastore": {"type": "redis", "version": version or next(iter(found.versions))},
    }
    made = (await found.call("POST", "/clusters", {"cluster": body}))["cluster"]
    cluster = ManagedCluster(found, made["id"], found.bus(f"tests of {name}"))
    try:
        await cluster.settled()
        yield cluster
    finally:
        await cluster.close()

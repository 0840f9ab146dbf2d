"""Clusters for the tests of the API: rows as the managers leave them, and agents that say who holds which slots."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

from tests.contract.api_world import World

from redkeep.api.call import Call
from redkeep.api.cluster_schemas import ClusterOrder
from redkeep.api.cluster_strategy import Made, RedisApiStrategy
from redkeep.errors import Refused
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.facts import ClusterFacts, Process, ServerFacts
from redkeep.model.instance import Group, Instance, RedisUser, Secrets, Status
from redkeep.model.slots import ClusterView, Member, Ranges
from redkeep.model.topology import Address, Role
from redkeep.northbound.memory import MemoryBus
from redkeep.orders import agent_name, encode_facts
from redkeep.ports import Body, Transaction
from redkeep.vault import digest


class Closed(RedisApiStrategy):
    """Another strategy than ours, as an operator may name one."""

    async def create(self, tx: Transaction, call: Call, order: ClusterOrder) -> Made:
        raise Refused(f"No cluster {order.name}: it is Sunday.", kind="forbidden")


async def given_cluster(keep: World, primaries: int = 3, replicas: int = 0, **more: Any) -> Cluster:
    """A formed cluster at rest, its members on host h1."""
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "project_id": keep.project,
        "name": "c",
        "version": "7.0",
        "task": ClusterTask.NONE,
        "created": 1_700_000_000.0,
        "updated": 1_700_000_000.0,
        "replicas_per_shard": replicas,
        "formed": True,
        "members_made": primaries * (1 + replicas),
    }
    cluster = Cluster(**(values | more))
    users = (RedisUser("default", digest("secret")),)
    async with keep.store.begin() as tx:
        await tx.save(Group(cluster.id, cluster.project_id, Secrets("a", "r"), None, users=users), cluster)
    for number in range(1, primaries + 1):
        await _member(keep, cluster, number, str(number), Role.PRIMARY)
    for number in range(primaries + 1, primaries * (1 + replicas) + 1):
        await _member(keep, cluster, number, str((number - 1) % primaries + 1), Role.REPLICA)
    return cluster


async def _member(keep: World, cluster: Cluster, number: int, shard: str, role: Role) -> None:
    name = f"{cluster.name}-member-{number}"
    async with keep.store.begin() as tx:
        ports = [one.address.port for one in await tx.instances() if one.address]
        address = Address("10.0.0.2", max(ports, default=7000) + 1)
        await tx.save(
            Instance(
                id=str(uuid4()),
                group_id=cluster.id,
                project_id=cluster.project_id,
                name=name,
                role=role,
                status=Status.ACTIVE,
                flavor_id="2",
                volume_gb=2,
                version=cluster.version,
                created=cluster.created + number,
                updated=cluster.created + number,
                host_id="h1",
                address=address,
                shard=shard,
                node_id=f"{number:040x}",
                configuration_id=cluster.configuration_id,
            )
        )


async def members_of(keep: World, cluster_id: str) -> list[Instance]:
    async with keep.store.read() as tx:
        return await tx.instances(group_id=cluster_id)


async def cluster_row(keep: World, cluster_id: str) -> Cluster:
    async with keep.store.read() as tx:
        found = await tx.cluster(cluster_id)
    assert found is not None
    return found


@contextlib.asynccontextmanager
async def agents_say(
    keep: World, members: list[Instance], slots: Mapping[str, Ranges], **more: Any
) -> AsyncIterator[None]:
    """The agent of h1 answers looks: these members own these slots. `more`: of every member's facts."""
    view = ClusterView(
        tuple(
            Member(one.node_id or "", one.address or Address("h", 1), ranges=slots.get(one.id, ())) for one in members
        )
    )

    async def answer(body: Body) -> Body:
        known = {one.id: one for one in members}
        looked = [known[name] for name in body["look"] if name in known]
        return encode_facts(
            *(
                ServerFacts(
                    one.id, Process.RUNNING, cluster=ClusterFacts(one.node_id or "", state_ok=True, view=view, **more)
                )
                for one in looked
            )
        )

    bus = MemoryBus(keep.bus.exchange, name="agent")
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(bus.serve(agent_name("h1"), answer))
        yield
        serving.cancel()
    await bus.close()

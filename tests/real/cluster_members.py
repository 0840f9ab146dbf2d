"""A cluster of a stack as its own members see it: what tests of everything about clusters look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from redkeep.errors import RedkeepError
from redkeep.model.instance import Instance
from redkeep.model.operation import Kind
from redkeep.model.slots import SLOTS, ClusterView, parse_nodes
from redkeep.model.topology import Address, Role
from redkeep.northbound import Client, connect
from redkeep.operations.cluster_strategy import RedisTaskManagerStrategy
from redkeep.operations.context import Run
from redkeep.operations.runbook import Runbook
from redkeep.redis import cluster
from redkeep.redis.admin import Admin
from redkeep.testing.stack import Stack
from redkeep.testing.writer import Writer


class Counting(RedisTaskManagerStrategy):
    """Another strategy than ours, as an operator may name one: it counts what is created."""

    created: ClassVar[list[str]] = []

    def runbooks(self) -> Mapping[Kind, Runbook]:
        ours = super().runbooks()
        create = ours[Kind.CREATE_CLUSTER]

        async def count(run: Run) -> None:
            await create.run(run)
            self.created.append(run.group.id)

        return {**ours, Kind.CREATE_CLUSTER: Runbook(count, create.give_up)}


async def members(found: Stack, cluster_id: str) -> list[Instance]:
    return [one for one in await found.rows() if one.group_id == cluster_id]


async def views(found: Stack, cluster_id: str) -> dict[str, tuple[str, str, ClusterView]]:
    """Of each member by name: its node id, its CLUSTER INFO with its raw CLUSTER NODES, and what it knows."""
    secret = found.vault.unseal((await found.group(cluster_id)).secrets.admin)
    seen = {}
    for one in await members(found, cluster_id):
        assert one.address is not None
        connection = Admin(one.address, secret)
        try:
            own, info, nodes = await connection.run(("CLUSTER", "MYID"), *cluster.LOOK)
        finally:
            await connection.close()
        seen[one.name] = (str(own), f"{info}\n{nodes}", parse_nodes(str(nodes), one.address))
    return seen


async def in_order(found: Stack, cluster_id: str) -> bool:
    """Rows and members tell the same story: exactly these, of one mind, all slots owned, none half-way."""
    rows = await members(found, cluster_id)
    try:
        seen = await views(found, cluster_id)
    except RedkeepError:
        return False
    ids = {own for own, _, _ in seen.values()}
    shapes = set()
    for own, raw, view in seen.values():
        if "cluster_state:ok" not in raw or "->-" in raw or "-<-" in raw or " handshake " in raw:
            return False
        if {one.id for one in view.members} != ids or view.covered != SLOTS or any(one.failed for one in view.members):
            return False
        shapes.add(view.shape)
        me = next(one for one in view.members if one.id == own)
        row = next(one for one in rows if one.node_id == own)
        if (row.role is Role.PRIMARY) != (me.primary_id is None) or me.address != row.address:
            return False
    return len({frozenset((id_, owned) for id_, _, _, _, owned in shape) for shape in shapes}) == 1


async def ranges(found: Stack, cluster_id: str) -> dict[str, tuple[tuple[int, int], ...]]:
    """Slots of each member by name, by its own word."""
    seen = await views(found, cluster_id)
    return {name: next(one.ranges for one in view.members if one.id == own) for name, (own, _, view) in seen.items()}


def seeds(shown: dict[str, Any]) -> list[Address]:
    return [Address(one["ip"][0], one["port"]) for one in shown["instances"]]


@asynccontextmanager
async def writing(found: Stack, shown: dict[str, Any], name: str = "c") -> AsyncIterator[Writer]:
    """A client of the cluster that writes without pause."""
    async with await connect(seeds(shown), password=found.passwords[name]) as client, Writer(client) as writer:
        yield writer


async def filled(client: Client, count: int = 2000) -> None:
    """Keys `key:0`... with their number."""
    for start in range(0, count, 200):
        await asyncio.gather(*(client.execute("SET", f"key:{n}", n) for n in range(start, min(count, start + 200))))


async def all_there(client: Client, count: int = 2000) -> bool:
    found = []
    for start in range(0, count, 200):
        found += await asyncio.gather(
            *(client.execute("GET", f"key:{n}") for n in range(start, min(count, start + 200)))
        )
    return found == [str(n).encode() for n in range(count)]

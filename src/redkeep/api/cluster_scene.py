"""A cluster and all that the rules need to see around it, and what its servers say of its slots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redkeep.api.call import Call
from redkeep.api.record import is_id
from redkeep.errors import RedkeepError, Refused
from redkeep.model.cluster import Cluster
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Group, Instance
from redkeep.model.operation import Operation
from redkeep.orders import BusAgents
from redkeep.ports import Transaction

LOOK_LIMIT = 2.0
"""Seconds that an agent gets to answer."""


@dataclass(frozen=True, slots=True)
class ClusterScene:
    """A cluster at one moment."""

    cluster: Cluster
    group: Group
    members: tuple[Instance, ...]
    operations: tuple[Operation, ...]
    """Those that are open, oldest first."""
    now: float

    @property
    def operation(self) -> Operation | None:
        """What is being worked on."""
        return self.operations[0] if self.operations else None


async def look_at(tx: Transaction, call: Call, cluster_id: str, *, lock: bool = False) -> ClusterScene:
    """The scene around a cluster of the caller's project; with `lock` nobody else changes it until the transaction
    ends. Raises Refused (kind `missing`) for everything else."""
    key = cluster_id.lower()
    found = await tx.cluster(key) if is_id(key) else None
    if found is not None and not found.deleted and found.project_id == call.project_id:
        whole = await tx.whole_group(key, lock=lock)
        # Read again under the lock: it may have changed, or gone, while we waited for that.
        cluster = await tx.cluster(key)
        if whole is not None and cluster is not None and not cluster.deleted:
            return ClusterScene(cluster, whole.group, whole.instances, whole.operations, whole.now)
    raise Refused(f"Cluster '{cluster_id[:64]}' cannot be found.", kind="missing")


async def facts_of(call: Call, members: Iterable[Instance]) -> Mapping[str, ServerFacts]:
    """What the agents say of these servers now; those of agents that do not answer are left out."""
    by_host: dict[str, list[str]] = {}
    for one in members:
        if one.host_id:
            by_host.setdefault(one.host_id, []).append(one.id)
    agents = BusAgents(call.context.bus)

    async def ask(host_id: str, names: list[str]) -> tuple[ServerFacts, ...]:
        try:
            return await agents.look(host_id, names, timeout=LOOK_LIMIT)
        except RedkeepError:
            return ()

    found = await asyncio.gather(*(ask(host_id, names) for host_id, names in by_host.items()))
    return {facts.instance_id: facts for looked in found for facts in looked}

"""Changes of clusters on record: one transaction each, as `record.py` has it; the cluster's task is the lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from redkeep.api.call import Call
from redkeep.api.cluster_scene import ClusterScene
from redkeep.api.record import demand, record
from redkeep.decide import clusters
from redkeep.decide.parameters import DURABILITY, carried_over, loss
from redkeep.errors import Refused
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.instance import Configuration, Instance, Parameters, Status
from redkeep.model.operation import Kind
from redkeep.ports import Transaction


@dataclass(frozen=True, slots=True)
class Intent:
    """What an action comes down to: an operation, the task and the rows that go with it."""

    kind: Kind
    args: Mapping[str, Any]
    task: ClusterTask
    rows: tuple[Instance, ...] = ()
    cluster: Mapping[str, Any] = field(default_factory=dict)
    """What changes in the cluster's row besides."""


async def take(tx: Transaction, call: Call, scene: ClusterScene, intent: Intent) -> None:
    """Record it. The cluster is locked, and was found free."""
    cluster = replace(scene.cluster, task=intent.task, updated=scene.now, **intent.cluster)
    rows: list[Instance | Cluster] = [cluster, *intent.rows]
    await record(tx, call, intent.kind, intent.args, about=cluster, rows=rows, now=scene.now)


def moved(scene: ClusterScene, status: Status) -> tuple[Instance, ...]:
    """The members that serve, with the status that says what is done with them."""
    serving = (one for one in scene.members if one.status is Status.ACTIVE)
    return tuple(replace(one, status=status, updated=scene.now) for one in serving)


def require_rules_of_redis(values: Parameters) -> None:
    """Raises Refused for what a cluster cannot promise."""
    if DURABILITY in dict(values):
        raise Refused(
            f"{DURABILITY} is of sets of replicas: a cluster has Redis' own rules. Take it out of the values."
        )


def configuring(scene: ClusterScene, configuration: Configuration | None) -> Intent:
    """All members are to have these values, and those to come too. Members in ERROR take them with their next start.

    They are attached at once, so that nobody deletes it; the values follow with the operation. Raises Refused.
    """
    demand(clusters.may_change(scene.cluster))
    values = configuration.values if configuration else ()
    require_rules_of_redis(values)
    for one in scene.members:
        if reason := loss(one.parameters, carried_over(values, one.version), one.version):
            raise Refused(f"{one.name}: {reason}")
    key = configuration.id if configuration else None
    args = {
        "configuration": key,
        "parameters": [list(pair) for pair in values],
        "before": {
            "configuration": scene.cluster.configuration_id,
            "parameters": [list(pair) for pair in scene.members[0].parameters],
        },
    }
    busy = {one.id: one for one in moved(scene, Status.UPDATING)}
    rows = tuple(replace(busy.get(one.id, one), configuration_id=key) for one in scene.members)
    return Intent(Kind.CONFIGURE_CLUSTER, args, ClusterTask.UPDATING_CLUSTER, rows, {"configuration_id": key})

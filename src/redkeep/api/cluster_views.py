"""Clusters as answers. Pure, as `views.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from redkeep.api.call import Call
from redkeep.api.catalogue import DATASTORE_NAME
from redkeep.api.cluster_schemas import ClusterItem, ClusterView, MemberSummary, MemberView, TaskView
from redkeep.api.schemas import ConfigurationReference, FaultView, FlavorReference, VolumeView
from redkeep.api.views import links, public_id, timestamp
from redkeep.decide.parameters import shown_status
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.instance import Configuration, Fault, Instance
from redkeep.model.operation import Operation
from redkeep.model.topology import Role

TASKS: Mapping[ClusterTask, tuple[int, str]] = {
    ClusterTask.NONE: (1, "No tasks for the cluster."),
    ClusterTask.BUILDING: (2, "Building the initial cluster."),
    ClusterTask.DELETING: (3, "Deleting the cluster."),
    ClusterTask.ADDING_SHARD: (4, "Adding a shard to the cluster."),
    ClusterTask.GROWING_CLUSTER: (5, "Increasing the size of the cluster."),
    ClusterTask.SHRINKING_CLUSTER: (6, "Decreasing the size of the cluster."),
    ClusterTask.UPGRADING_CLUSTER: (7, "Upgrading the cluster to new version."),
    ClusterTask.RESTARTING_CLUSTER: (8, "Restarting the cluster."),
    ClusterTask.UPDATING_CLUSTER: (9, "Updating cluster configuration."),
}
"""Numbers and words of section 6.1 of the contract."""


def item(cluster: Cluster, members: Iterable[Instance], call: Call) -> ClusterItem:
    """A cluster as a list shows it."""
    ordered = in_order(members)
    return ClusterItem(
        **_common(cluster, ordered, call),
        instances=[MemberSummary(id=one.id, name=one.name, links=links(call, "instances", one.id)) for one in ordered],
    )


def detail(
    cluster: Cluster,
    members: Iterable[Instance],
    call: Call,
    *,
    shown: Iterable[str] | None = None,
    operation: Operation | None = None,
    configuration: Configuration | None = None,
    password: str | None = None,
) -> ClusterView:
    """All there is to see of a cluster. `shown`: only these of its members. `operation`: what works on it now.
    `password`: what its owner is told this once."""
    ordered = in_order(members)
    wanted = None if shown is None else set(shown)
    reference = None
    if configuration is not None:
        reference = ConfigurationReference(
            id=configuration.id, name=configuration.name, links=links(call, "configurations", configuration.id)
        )
    return ClusterView(
        **_common(cluster, ordered, call),
        instances=[_member(one, call) for one in ordered if wanted is None or one.id in wanted],
        configuration=reference,
        password=password,
        progress=operation.progress if operation else None,
        progress_detail=(operation.error or operation.step or None) if operation else None,
    )


def in_order(members: Iterable[Instance]) -> list[Instance]:
    """As they were made: those of one request by shard, the primaries first."""
    return sorted(members, key=lambda one: (one.created, one.role is Role.REPLICA, _number(one.shard), one.name))


def _number(shard: str | None) -> int:
    return int(shard) if shard and shard.isdecimal() else 0


def _common(cluster: Cluster, members: list[Instance], call: Call) -> dict[str, Any]:
    number, description = TASKS[cluster.task]
    return {
        "id": cluster.id,
        "name": cluster.name,
        "task": TaskView(id=number, name=cluster.task.value, description=description),
        "created": timestamp(cluster.created),
        "updated": timestamp(cluster.updated),
        "links": links(call, "clusters", cluster.id),
        "datastore": {"type": DATASTORE_NAME, "version": cluster.version},
        "ip": [one.address.host for one in members if one.address],
        "replicas_per_shard": cluster.replicas_per_shard,
        "fault": _fault(cluster.fault),
    }


def _member(one: Instance, call: Call) -> MemberView:
    return MemberView(
        id=one.id,
        name=one.name,
        links=links(call, "instances", one.id),
        status=shown_status(one),
        ip=[one.address.host] if one.address else [],
        port=one.address.port if one.address else None,
        flavor=FlavorReference(id=public_id(one.flavor_id), links=links(call, "flavors", one.flavor_id)),
        volume=VolumeView(size=one.volume_gb),
        role=one.role,
        shard=one.shard or "",
        fault=_fault(one.fault),
    )


def _fault(fault: Fault | None) -> FaultView | None:
    return FaultView(message=fault.message, created=timestamp(fault.created)) if fault else None

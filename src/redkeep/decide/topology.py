"""From the rows of a group to what its clients and its servers are told."""

from __future__ import annotations

from collections.abc import Iterable

from redkeep.model.facts import Assignment
from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Address, Role, Topology

NOT_MEMBERS = (Status.BUILD, Status.SHUTDOWN)
"""Instances that are being made or unmade do not count: nobody may be promoted to, or wait for, one of them."""


def members(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    """Those who are part of their group now."""
    return tuple(one for one in instances if one.status not in NOT_MEMBERS and one.address is not None)


def topology(group_id: str, epoch: int, instances: Iterable[Instance], primary_id: str | None) -> Topology:
    """The given members, with this one as primary."""
    addresses = {one.id: one.address for one in instances if one.address is not None}
    return Topology(
        group_id=group_id,
        epoch=epoch,
        primary=addresses.get(primary_id or ""),
        replicas=tuple(sorted(address for name, address in addresses.items() if name != primary_id)),
    )


def elsewhere(instances: Iterable[Instance], told: Topology) -> tuple[Address, ...]:
    """Nodes of a topology that stand at other sites than its primary."""
    sites = {one.address: one.site for one in instances if one.address is not None}
    home = sites.get(told.primary) if told.primary else None
    return () if home is None else tuple(address for address in told.replicas if sites.get(address, home) != home)


def assignment(instance: Instance, told: Topology, remote: tuple[Address, ...] = ()) -> Assignment:
    """The role of an instance in a topology: primary if it stands there as such, else a replica of that primary.

    `remote`: what `elsewhere` says of the topology.
    """
    is_primary = instance.address == told.primary
    return Assignment(
        instance_id=instance.id,
        group_id=told.group_id,
        epoch=told.epoch,
        role=Role.PRIMARY if is_primary else Role.REPLICA,
        primary=None if is_primary else told.primary,
        topology=told,
        elsewhere=remote,
    )

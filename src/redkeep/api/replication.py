"""Replicas at other sites: which an owner asked for, and how they come and go. A resource of Redkeep's own, inside of
instances. They are ordinary replicas that no local failover chooses (see `decide/sites.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from redkeep.api.call import Call
from redkeep.api.ordering import quota_allows, replica_of
from redkeep.api.record import Scene, demand, moved, record, wanted
from redkeep.api.schemas import ReplicationOrder
from redkeep.decide import lifecycle
from redkeep.decide.lifecycle import Amount
from redkeep.decide.sites import active_site
from redkeep.errors import Refused
from redkeep.model.instance import Instance, Status
from redkeep.model.operation import Kind
from redkeep.model.site import FAILBACK, Backend
from redkeep.model.topology import Role
from redkeep.ports import Transaction

NEXT = 1e-3
"""Seconds by which what is to be done later is recorded later."""


async def add(
    tx: Transaction, call: Call, source: Instance, order: ReplicationOrder | None, has: Sequence[str], now: float
) -> tuple[Instance, ...]:
    """Record replicas at the sites that were ordered, but for those that the source has one at, and its own.

    Raises Refused for a site that there is not, or a quota that they would exceed.
    """
    sites = labels(call.context.settings.sites, order)
    here = source.site or active_site(call.context.settings.sites, await tx.service_clusters())
    missing = {name: label for name, label in sites.items() if label not in (here, *has)}
    if not missing:
        return ()
    settings = call.context.settings
    flavor = settings.flavor(source.flavor_id)
    count = len(missing)
    more = Amount(count, count * (flavor.ram_mb if flavor else 0), count * source.volume_gb)
    demand(await quota_allows(tx, call, more))
    for name, label in missing.items():
        _demand_hosts(source, name, [one for one in await tx.hosts() if one.site == label])
    rows = tuple(replica_of(source, f"{source.name}-{name}", now, site=label) for name, label in missing.items())
    args = {"instances": [one.id for one in rows], "primary": source.id}
    await record(tx, call, Kind.ADD_REPLICAS, args, about=source, rows=rows, now=now + NEXT)
    return rows


async def change(tx: Transaction, call: Call, scene: Scene, order: ReplicationOrder | None) -> None:
    """Record what makes its replicas at other sites those that are ordered. Nothing, when they are."""
    source = scene.instance
    if source.role is Role.REPLICA:
        demand(lifecycle.may_replicate(source))
    asked = set(labels(call.context.settings.sites, order).values())
    elsewhere = [one for one in scene.members if one.replica_of == source.id and one.site not in ("", source.site)]
    leaving = [one for one in elsewhere if one.site not in asked and one.status is not Status.SHUTDOWN]
    if asked - {source.site, *(one.site for one in elsewhere)}:
        demand(lifecycle.may_replicate(source))
        await add(tx, call, source, order, [one.site for one in elsewhere], scene.now)
    for one in leaving:
        wanted(lifecycle.may_delete(one, scene.members))
        rows = moved(scene.members, [one.id], Status.SHUTDOWN, scene.now)
        await record(tx, call, Kind.DELETE_INSTANCE, {"instance": one.id}, about=one, rows=rows, now=scene.now)


def labels(backend: Backend, order: ReplicationOrder | None) -> dict[str, str]:
    """Labels of the sites that were ordered, by name. Raises Refused (`invalid`) for one that there is not."""
    known = {name: label for label, name in backend.names.items()}
    if order is None:
        return {}
    if order.sites == "all":
        if not backend.targets:
            raise Refused("replication: this backend has one site only (no replication_device is configured).")
        return known
    if unknown := [name for name in order.sites if name not in known]:
        have = ", ".join(known) if backend.targets else f"{FAILBACK} only"
        raise Refused(f"replication: there is no site {', '.join(unknown)}; this backend has {have}.")
    return {name: known[name] for name in order.sites}


def _demand_hosts(source: Instance, name: str, hosts: Sequence[object]) -> None:
    if not hosts:
        raise Refused(f"replication: no host has reported from site {name}, where {source.name} is to have a replica.")

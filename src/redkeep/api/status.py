"""How servers are at this moment: the rows, beside what their agents see of them. A resource of Redkeep's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel

from redkeep.api.blockstorage.finding import all_teams
from redkeep.api.blockstorage.views import sentence
from redkeep.api.call import ThisCall
from redkeep.decide.parameters import shown_status
from redkeep.decide.promotion import lag_bytes
from redkeep.errors import RedkeepError
from redkeep.model.facts import ClusterFacts, Process, ServerFacts, Upstream
from redkeep.model.instance import Group, Instance, Status
from redkeep.model.operation import Operation
from redkeep.model.topology import Role
from redkeep.orders import BusAgents
from redkeep.ports import Bus

LOOK_LIMIT = 1.0
"""Seconds that an agent gets to answer; whoever does not is out of reach."""


class Member(BaseModel):
    """One server. What is not known is left out."""

    id: str
    name: str
    project: str
    group: str
    role: str
    status: str
    version: str
    cluster: str | None = None
    """The name of the cluster that it is a member of."""
    shard: str | None = None
    slots: int | None = None
    """How many it owns, by its own word."""
    host: str | None = None
    site: str | None = None
    """Where it is, when the backend has several."""
    address: str | None = None
    health: str
    """`ok`, or in words what is wrong."""
    lag_bytes: int | None = None
    """What a replica lacks of its primary's history."""
    keys: int | None = None
    memory_used: int | None = None
    memory_max: int | None = None
    disk_used: int | None = None
    pid: int | None = None


class StatusReport(BaseModel):
    """All servers, groups together, each primary first."""

    members: list[Member]
    operations: list[str]
    """What is being worked on."""
    backends: list[str] = []
    """For the administrator: where each backend is active, and how many of its managers have followed there."""


async def index(
    call: ThisCall, everything: Annotated[bool, Query(description="All projects; the administrator only")] = False
) -> StatusReport:
    """Ask every agent, at most a second, and put it beside the rows."""
    project = None if everything and call.caller.is_admin else call.project_id
    async with call.context.store.read() as tx:
        instances = await tx.instances(project_id=project)
        owners = sorted({one.project_id for one in instances if one.shard is not None})
        clusters = {cluster.id: cluster.name for owner in owners for cluster in await tx.clusters(owner)}
        groups = {group.id: group for group in await tx.groups()}
        operations = await tx.open_operations()
        found = await all_teams(tx, call.context.settings) if call.caller.is_admin else []
    facts = await look_at(call.context.bus, instances)
    ours = {one.group_id for one in instances}
    sites = bool(call.context.settings.sites.targets)
    leads = _leads(instances, groups)
    return StatusReport(
        members=[
            member(one, leads.get(one.id), facts, cluster=clusters.get(one.group_id), sites=sites)
            for one in _in_order(instances, leads)
        ],
        operations=[_at_work(one) for one in operations if one.group_id in ours],
        backends=[sentence(team) for team in found if team.services],
    )


def _at_work(operation: Operation) -> str:
    why = f" ({operation.error})" if operation.error else ""
    return f"{operation.kind}: {operation.step or operation.state}{why}"


def _leads(instances: Sequence[Instance], groups: Mapping[str, Group]) -> dict[str, str | None]:
    """Of each instance who is primary where it stands: of its group, or of its shard by the rows, which follow what
    Redis elected."""
    shards = {(one.group_id, one.shard): one.id for one in instances if one.shard and one.role is Role.PRIMARY}
    return {
        one.id: shards.get((one.group_id, one.shard)) if one.shard else groups[one.group_id].primary_id
        for one in instances
    }


def member(
    instance: Instance,
    lead: str | None,
    facts: Mapping[str, ServerFacts],
    *,
    cluster: str | None = None,
    sites: bool = False,
) -> Member:
    """One line of the report. `lead`: who is primary there; `cluster`: the name of the one that it is a member of."""
    mine, primary = facts.get(instance.id), facts.get(lead or "")
    is_primary = lead == instance.id
    said = mine.cluster if mine else None
    known = mine is not None and mine.alive
    return Member(
        id=instance.id,
        name=instance.name,
        project=instance.project_id,
        group=instance.group_id,
        role=Role.PRIMARY if is_primary else instance.role,
        status=shown_status(instance),
        version=instance.version,
        cluster=cluster,
        shard=instance.shard,
        slots=sum(last - first + 1 for first, last in said.ranges) if said and known else None,
        host=instance.host_id,
        site=instance.site or None if sites else None,
        address=str(instance.address) if instance.address else None,
        health=health(instance, mine, is_primary=is_primary),
        lag_bytes=lag_bytes(mine, primary) if mine and primary and known and not is_primary else None,
        keys=mine.keys if mine and known else None,
        memory_used=mine.memory_used if mine and known else None,
        memory_max=mine.memory_max if mine and known else None,
        disk_used=mine.disk_used if mine and known else None,
        pid=mine.pid if mine else None,
    )


def health(instance: Instance, facts: ServerFacts | None, *, is_primary: bool) -> str:
    """`ok`, or in words what is wrong with a server."""
    if instance.status is Status.ERROR:
        return instance.fault.message if instance.fault else "in error"
    if instance.status in (Status.BUILD, Status.SHUTDOWN):
        return _progress(facts.upstream) if facts and facts.upstream and facts.upstream.syncing else "ok"
    if facts is None:
        return "its agent does not answer"
    if facts.process is not Process.RUNNING:
        return f"{facts.process}{f': {facts.detail}' if facts.detail else ''}"
    if facts.fenced:
        return "refuses writes: no manager has confirmed it"
    if is_primary != (facts.role is Role.PRIMARY):
        return f"is {facts.role}, which is not its place"
    if facts.upstream is not None and not facts.upstream.link_up:
        return _progress(facts.upstream) if facts.upstream.syncing else "has lost its primary"
    return facts.trouble or (_in_cluster(facts.cluster) if facts.cluster is not None else "ok")


def _in_cluster(said: ClusterFacts) -> str:
    """What a member says of its cluster, if it is not well."""
    if not said.state_ok:
        return "says that the cluster is down"
    half_way = len(said.migrating) + len(said.importing)
    return f"{half_way} slots are half-way" if half_way else "ok"


def _progress(link: Upstream) -> str:
    """A first or full synchronisation, in bytes."""
    whole = f" of {link.total_bytes}" if link.total_bytes else ""
    return f"synchronises: {link.received_bytes}{whole} bytes"


async def look_at(bus: Bus, instances: Iterable[Instance]) -> dict[str, ServerFacts]:
    """Facts by instance, of those whose agents answer in a second."""
    by_host: dict[str, list[str]] = {}
    for one in instances:
        if one.host_id:
            by_host.setdefault(one.host_id, []).append(one.id)
    agents = BusAgents(bus)

    async def ask(host_id: str, names: list[str]) -> tuple[ServerFacts, ...]:
        try:
            return await agents.look(host_id, names, timeout=LOOK_LIMIT)
        except RedkeepError:
            return ()

    found = await asyncio.gather(*(ask(host_id, names) for host_id, names in by_host.items()))
    return {facts.instance_id: facts for looked in found for facts in looked}


def _in_order(instances: Iterable[Instance], leads: Mapping[str, str | None]) -> list[Instance]:
    """Groups by their age; in a group the primary first, in a cluster shard by shard."""
    first: dict[str, float] = {}
    for one in instances:
        first[one.group_id] = min(one.created, first.get(one.group_id, one.created))
    return sorted(
        instances,
        key=lambda one: (
            *(first[one.group_id], one.group_id),
            *(len(one.shard or ""), one.shard or ""),
            *(leads.get(one.id) != one.id, one.name),
        ),
    )

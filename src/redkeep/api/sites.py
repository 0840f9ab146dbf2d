"""The sites of a backend: which is active, how far behind the others are, and what would become of each instance if it
failed over now. Resources of Redkeep's own; the failover itself is asked for through the block storage API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import BaseModel, Field

from redkeep.api.call import Call, ThisCall
from redkeep.api.schemas import Absent
from redkeep.api.status import look_at
from redkeep.decide.sites import active_site
from redkeep.decide.survival import Prospect, prospect
from redkeep.errors import RedkeepError, Refused
from redkeep.model.instance import Instance
from redkeep.model.site import ServiceCluster
from redkeep.orders import CANARIES

METRICS = "text/plain; version=0.0.4"
CANARY_LIMIT = 1.0
"""Seconds that a manager gets to say what it has measured."""


class CanaryView(BaseModel):
    """What a manager has measured of a target: the slowest of the groups that it looked at."""

    manager: str
    groups: int
    lag_seconds: float | Absent = Field(None, description="From a write at the active site to its arrival here")
    rpo_seconds: float | Absent = Field(None, description="What a forced failover would lose; absent: not known")
    not_arrived: list[str] = Field(description="Primaries whose last message has not arrived")
    measured_seconds_ago: float


class SiteView(BaseModel):
    id: str = Field(description="As `replication_device` names it; `default` is where the backend belongs")
    label: str = Field(description="What its hosts are labelled with")
    active: bool
    hosts: int
    primaries: int
    canary: CanaryView | Absent = None


class SiteList(BaseModel):
    backend: str
    status: str = Field(description="Of the failover between sites, in the words of the block storage API")
    sites: list[SiteView]


class ProspectView(BaseModel):
    id: str
    name: str
    project: str
    site: str
    survives: bool
    in_order: bool = Field(description="It could go there losing nothing")
    lacking_bytes: int | Absent = Field(None, description="What a forced failover would lose now; absent: not known")
    reason: str


class Rehearsal(BaseModel):
    target: str
    instances: list[ProspectView]


TargetId = Annotated[str, Path(min_length=1, max_length=255, description="A `backend_id`, or `default`")]


async def index(call: ThisCall) -> SiteList:
    """The sites of this backend, with what the canary measures."""
    backend = call.context.settings.sites
    async with call.context.store.read() as tx:
        rows = [one for one in await tx.service_clusters() if one.backend == backend.name]
        hosts, groups, instances = await tx.hosts(), await tx.groups(), await tx.instances()
    here, canaries = active_site(backend, rows) or backend.site, await _canaries(call)
    primaries = {group.primary_id for group in groups}
    return SiteList(
        backend=backend.name,
        status=_status(rows),
        sites=[
            SiteView(
                id=name,
                label=label,
                active=label == here,
                hosts=sum(one.site == label for one in hosts),
                primaries=sum(one.site == label and one.id in primaries for one in instances),
                canary=canaries.get(name),
            )
            for label, name in backend.names.items()
        ],
    )


async def rehearse(call: ThisCall, target: TargetId) -> Rehearsal:
    """What would become of each instance if the backend failed over to this site now. Nothing is changed."""
    backend = call.context.settings.sites
    label = backend.site_label(target)
    if label is None:
        raise Refused(f"There is no site {target[:64]}; there are {', '.join(backend.names.values())}.", kind="missing")
    project = None if call.caller.is_admin else call.project_id
    async with call.context.store.read() as tx:
        groups, instances = await tx.groups(), await tx.instances(project_id=project)
    facts = await look_at(call.context.bus, instances)
    by_group = _by_group(instances)
    found = [prospect(group, by_group[group.id], label, facts) for group in groups if group.id in by_group]
    return Rehearsal(target=target, instances=[_view(one) for one in found if one is not None])


async def metrics(call: ThisCall) -> Response:
    """What `index` says, in the text form that Prometheus reads."""
    found = await index(call)
    lines = []
    for one in found.sites:
        words = f'{{backend="{found.backend}",site="{one.id}"}}'
        lines.append(f"redkeep_site_active{words} {int(one.active)}")
        lines.append(f"redkeep_site_hosts{words} {one.hosts}")
        lines.append(f"redkeep_site_primaries{words} {one.primaries}")
        if one.canary is not None:
            lines += _gauge("redkeep_site_lag_seconds", words, one.canary.lag_seconds)
            lines += _gauge("redkeep_site_rpo_seconds", words, one.canary.rpo_seconds)
            lines.append(f"redkeep_site_groups_measured{words} {one.canary.groups}")
            lines.append(f"redkeep_site_groups_not_arrived{words} {len(one.canary.not_arrived)}")
    names = sorted({line.partition("{")[0] for line in lines})
    grouped = ((f"# TYPE {name} gauge", *(line for line in lines if line.startswith(name + "{"))) for name in names)
    return Response("\n".join(line for group in grouped for line in (*group, "")), media_type=METRICS)


def _gauge(name: str, words: str, value: float | None) -> list[str]:
    return [] if value is None else [f"{name}{words} {value:.6f}"]


def _status(rows: Sequence[ServiceCluster]) -> str:
    return str(rows[0].replication_status) if rows else "disabled"


async def _canaries(call: Call) -> Mapping[str, CanaryView]:
    """Of whichever manager answers; none, when none does."""
    if not call.context.settings.sites.targets:
        return {}
    try:
        said: Mapping[str, Any] = await call.context.bus.request(CANARIES, {}, timeout=CANARY_LIMIT)
    except RedkeepError:
        return {}
    return {name: CanaryView(manager=said["manager"], **figures) for name, figures in said["targets"].items()}


def _by_group(instances: Iterable[Instance]) -> dict[str, list[Instance]]:
    found: dict[str, list[Instance]] = {}
    for one in instances:
        found.setdefault(one.group_id, []).append(one)
    return found


def _view(found: Prospect) -> ProspectView:
    one = found.instance
    return ProspectView(
        id=one.id,
        name=one.name,
        project=one.project_id,
        site=one.site,
        survives=found.survives,
        in_order=found.in_order,
        lacking_bytes=found.lacking_bytes,
        reason=found.reason,
    )

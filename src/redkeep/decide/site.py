"""Which way a backend may go between its sites, and what its rows say on the way.

The states are Cinder's (contract of the block storage API, section 4), with what is known to go wrong there put right
(its section 6, named G1 to G21):

    enabled, failed-over, failover-error, error  --asked for-->            failing-over
    failing-over  --the driver moved the storage to a target-->            failed-over
    failing-over  --the driver moved it back-->                            enabled
    failing-over  --refused, with nothing changed-->                       what it was before
    failing-over  --anything else, or nobody finished it in time-->        failover-error

The cluster's row is the desired state of all members, and nobody but these functions moves it. A member's row says what
its own driver does: it equals the cluster's only when that driver has followed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from redkeep.decide.lifecycle import Refusal
from redkeep.model.instance import Group, Host, Instance
from redkeep.model.site import (
    FAILBACK,
    FailoverResult,
    ReplicationStatus,
    Service,
    ServiceCluster,
    SiteFailover,
    Volume,
    shown_site,
)

Row = TypeVar("Row", ServiceCluster, Service)

MAY_FAIL_OVER = frozenset(
    {
        ReplicationStatus.ENABLED,
        ReplicationStatus.FAILED_OVER,
        ReplicationStatus.FAILOVER_ERROR,
        ReplicationStatus.ERROR,
    }
)
"""From the two errors too: asking again is the way out of them."""

FROZEN = "frozen"
"""The reason of whoever is disabled because of a freeze; a thaw enables those, and only those."""
FAILED_OVER = "failed-over"

MOST_REASON = 255
"""Characters of a reason."""

CALLS_ALLOWED = 5
"""How many managers may die of one failover before it is given up: then it is the failover that kills them."""


@dataclass(frozen=True, slots=True)
class Change:
    """Rows to be written in one transaction."""

    cluster: ServiceCluster
    services: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """What was asked for is so. Nothing is to be done, a second time least of all."""

    target: str


# --- Who is up -----------------------------------------------------------------------------------------------------


def is_up(service: Service, now: float, down_time: float) -> bool:
    """Its heartbeat says so, and nothing else does: a row that somebody wrote is no sign of life (G13)."""
    return now - service.heartbeat_at <= down_time


def cluster_is_up(services: Iterable[Service], now: float, down_time: float) -> bool:
    """One member is enough."""
    return any(is_up(one, now, down_time) for one in services)


# --- Asking for a failover -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for a failover."""

    id: str
    target: str | None
    """A `backend_id`; None or '' leave the choice to us."""
    forced: bool | None
    """None: in order if the old site answers, else forced."""
    by: str
    limit: float
    """Seconds after which it is given up."""


def choose_target(cluster: ServiceCluster, wanted: str | None) -> str | Refusal:
    """The target of a request. Without one: the first that is not active, or the active one when there is no other."""
    if wanted == FAILBACK or wanted in cluster.targets:
        return wanted or FAILBACK
    if not cluster.targets:
        return Refusal("invalid", f"Invalid replication target: {cluster.id} has no replication_device configured.")
    if wanted:
        known = ", ".join((*cluster.targets, FAILBACK))
        return Refusal("invalid", f"Invalid replication target {wanted!r}: {cluster.id} has {known}.")
    return next((one for one in cluster.targets if one != cluster.site), cluster.site)


def request_failover(
    cluster: ServiceCluster, services: Sequence[Service], wish: Wish, now: float, down_time: float
) -> Change | AlreadyThere | Refusal:
    """Accept a request, or say why not. What is refused has changed nothing at all (G9)."""
    up = cluster_is_up(services, now, down_time)
    if up and may_be_forced(cluster, wish):
        return _forced(cluster, services, wish, now)
    if cluster.replication_status not in MAY_FAIL_OVER or not up:
        return _not_in_state(cluster, up=up)
    target = choose_target(cluster, wish.target)
    if isinstance(target, Refusal):
        return target
    if target == cluster.site and cluster.replication_status in (
        ReplicationStatus.ENABLED,
        ReplicationStatus.FAILED_OVER,
    ):
        return AlreadyThere(target)
    failover = SiteFailover(
        id=wish.id,
        target=target,
        forced=wish.forced,
        came_from=cluster.replication_status,
        requested_by=wish.by,
        requested_at=now,
        deadline=now + wish.limit,
    )
    begun = replace(cluster, replication_status=ReplicationStatus.FAILING_OVER, failover=failover, updated_at=now)
    return Change(begun, tuple(in_step(one, begun, now) for one in services))


def may_be_forced(cluster: ServiceCluster, wish: Wish) -> bool:
    """The same is asked for again, forced, while it goes on in order: the old site was lost in the middle. Without this
    whoever began in order would have to wait for the deadline."""
    failover = cluster.failover
    return (
        cluster.replication_status is ReplicationStatus.FAILING_OVER
        and failover is not None
        and bool(wish.forced)
        and not failover.forced
        and wish.target in (None, "", failover.target)
    )


def _forced(cluster: ServiceCluster, services: Sequence[Service], wish: Wish, now: float) -> Change | Refusal:
    if cluster.failover is None:
        return _not_in_state(cluster, up=True)
    failover = replace(cluster.failover, forced=True, requested_by=wish.by, deadline=now + wish.limit)
    return Change(replace(cluster, failover=failover, updated_at=now), tuple(services))


def _not_in_state(cluster: ServiceCluster, *, up: bool) -> Refusal:
    """In Cinder's words, and what is the matter."""
    solitary = "No service could be changed: " if cluster.solitary else ""
    text = (
        f"{solitary}replication_status in {cluster.id} must be ['enabled', 'failed-over'] and must be up to failover. "
        f"(It is {cluster.replication_status} and {'up' if up else 'down'}; it may be asked for again from "
        f"'failover-error' and 'error'.)"
    )
    return Refusal("invalid", text)


# --- The ends of a failover ----------------------------------------------------------------------------------------


def succeeded(cluster: ServiceCluster, services: Sequence[Service], result: FailoverResult, now: float) -> Change:
    """The storage has moved: from now on the members have to follow to the new epoch."""
    target, failover = result.active_backend_id, _finished(cluster, None, now)
    is_back = target == FAILBACK
    done = replace(
        cluster,
        replication_status=ReplicationStatus.ENABLED if is_back else ReplicationStatus.FAILED_OVER,
        active_backend_id=shown_site(target),
        disabled=cluster.frozen if is_back else True,
        disabled_reason=(FROZEN if cluster.frozen else "") if is_back else FAILED_OVER,
        epoch=cluster.epoch + 1,
        failover=replace(failover, step="done", progress=1.0, updates=result.updates),
        updated_at=now,
    )
    return Change(done, tuple(in_step(one, done, now) for one in services))


def unchanged(cluster: ServiceCluster, services: Sequence[Service], reason: str, now: float) -> Change:
    """The driver refused, and has changed nothing: everything is as it was before."""
    failover = _finished(cluster, reason, now)
    back = replace(cluster, replication_status=failover.came_from, failover=failover, updated_at=now)
    return Change(back, tuple(in_step(one, back, now) for one in services))


def failed(cluster: ServiceCluster, services: Sequence[Service], reason: str, now: float) -> Change:
    """Nobody knows how far it went. No member follows anywhere (G7); who asks again finds out."""
    broken = replace(
        cluster,
        replication_status=ReplicationStatus.FAILOVER_ERROR,
        disabled=True,
        failover=_finished(cluster, reason, now),
        updated_at=now,
    )
    return Change(broken, tuple(replace(in_step(one, broken, now), disabled=True) for one in services))


def given_up(cluster: ServiceCluster, now: float) -> str | None:
    """Why an open failover should not be tried again, or None."""
    failover = cluster.failover
    if failover is None:
        return "there is no record of what was asked for"
    if now > failover.deadline:
        return failover.error or f"it was not done in time, at step {failover.step or 'asked for'!r}"
    if failover.attempts >= CALLS_ALLOWED:
        return failover.error or f"{failover.attempts} managers died of it, at step {failover.step!r}"
    return None


def check_result(cluster: ServiceCluster, result: FailoverResult) -> Refusal | None:
    """A driver may name a target, and nothing else."""
    if result.active_backend_id == FAILBACK or result.active_backend_id in cluster.targets:
        return None
    return Refusal("invalid", f"the driver names {result.active_backend_id!r}, which is no target")


SILENT_AFTER = 10.0
"""Seconds without a word from any host of a site after which it cannot be asked. Hosts are written down every two."""


def must_be_forced(hosts: Iterable[Host], label: str | None, now: float) -> bool:
    """Whether a failover has to do without the site that is active: nobody there was heard of lately."""
    return not any(one.site == label and now - one.seen_at <= SILENT_AFTER for one in hosts)


def volumes(groups: Iterable[Group], instances: Iterable[Instance]) -> tuple[Volume, ...]:
    """The primaries of all groups, as a driver sees them."""
    members: dict[str, list[Instance]] = {}
    for one in instances:
        members.setdefault(one.group_id, []).append(one)
    found = []
    for group in groups:
        of_group = members.get(group.id, [])
        primary = next((one for one in of_group if one.id == group.primary_id), None)
        if primary is not None:
            elsewhere = any(one.site != primary.site for one in of_group)
            status = ReplicationStatus.ENABLED if elsewhere else ReplicationStatus.DISABLED
            found.append(Volume(primary.id, group.id, status, primary.site))
    return tuple(found)


def _finished(cluster: ServiceCluster, error: str | None, now: float) -> SiteFailover:
    failover = cluster.failover or SiteFailover("", cluster.site, False, cluster.replication_status, "", now, now)
    return replace(failover, finished=now, error=error)


def in_step(service: Service, cluster: ServiceCluster, now: float) -> Service:
    """A member's row beside the cluster's: its status, which says whether its own driver is where the cluster is."""
    if cluster.replication_status is ReplicationStatus.FAILING_OVER:
        status = ReplicationStatus.FAILING_OVER
    elif service.fault:
        status = ReplicationStatus.ERROR
    elif service.applied_epoch < cluster.epoch:
        status = ReplicationStatus.FAILING_OVER
    else:
        status = cluster.replication_status
    return (
        service if status is service.replication_status else replace(service, replication_status=status, updated_at=now)
    )


# --- Members -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Duty:
    """What a member has to do now."""

    follow: bool = False
    """Its driver is not where the cluster is."""
    work: bool = False
    """A failover is open, and nobody works on it."""


def duty(cluster: ServiceCluster, service: Service, now: float) -> Duty:
    """What the two rows ask of a member. Messages ask for nothing: they only make it look (G1, G6)."""
    is_open = cluster.replication_status is ReplicationStatus.FAILING_OVER
    is_free = cluster.holder in (None, service.id) or cluster.lease_until <= now
    return Duty(follow=service.applied_epoch < cluster.epoch, work=is_open and is_free)


def followed(service: Service, cluster: ServiceCluster, now: float) -> Service:
    """Its driver works with the active site: its row says what the cluster's says, and no old reason stays (G17)."""
    row = replace(
        service,
        applied_epoch=cluster.epoch,
        active_backend_id=cluster.active_backend_id,
        frozen=cluster.frozen,
        disabled=cluster.disabled,
        disabled_reason=cluster.disabled_reason,
        fault=None,
        updated_at=now,
    )
    return in_step(row, cluster, now)


def could_not_follow(service: Service, reason: str, now: float) -> Service:
    """Its driver is where it was; the cluster is not touched by that. It tries again."""
    reason = reason[:MOST_REASON]
    return replace(
        service,
        replication_status=ReplicationStatus.ERROR,
        disabled=True,
        disabled_reason=reason,
        fault=reason,
        updated_at=now,
    )


@dataclass(frozen=True, slots=True)
class Following:
    """How far the members of a cluster are."""

    members: int
    followed: int
    missing: tuple[str, ...]
    """Those that have not followed, whether they are up or not (G18)."""
    failed: tuple[str, ...]
    """Those among them whose driver refused."""


def following(cluster: ServiceCluster, services: Collection[Service]) -> Following:
    """Which members work with the site that is active."""
    missing = [one for one in services if one.fault or one.applied_epoch < cluster.epoch]
    return Following(
        members=len(services),
        followed=len(services) - len(missing),
        missing=tuple(sorted(one.id for one in missing)),
        failed=tuple(sorted(one.id for one in missing if one.fault)),
    )


# --- Starting ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a driver's class can do."""

    name: str
    active_active: bool
    halves: bool
    """It brings `failover` and `failover_completed`."""
    whole: bool
    """It brings a `failover_host` of its own."""


def may_start(driver: Abilities, *, solitary: bool, targets: Collection[str]) -> str | None:
    """None, or why a manager must not start with this driver."""
    if not solitary and not driver.active_active:
        return f"Active-Active configuration is not currently supported by driver {driver.name}."
    if targets and not solitary and not driver.halves:
        return "Driver doesn't support clustered replication."
    if targets and not driver.halves and not driver.whole:
        return f"Driver {driver.name} doesn't support replication."
    return None


def configured(cluster: ServiceCluster, targets: tuple[str, ...], now: float) -> ServiceCluster:
    """The cluster with the targets of the settings. Nothing else of it is a starting member's to change (G2, G3, G4):
    only where there is no failover to remember does the status say whether there could be one."""
    status = cluster.replication_status
    if targets and status in (ReplicationStatus.NOT_CAPABLE, ReplicationStatus.DISABLED):
        status = ReplicationStatus.ENABLED
    elif not targets and status in (ReplicationStatus.NOT_CAPABLE, ReplicationStatus.ENABLED):
        status = ReplicationStatus.DISABLED
    if status is cluster.replication_status and targets == cluster.targets:
        return cluster
    return replace(cluster, replication_status=status, targets=targets, updated_at=now)


def joined(service: Service, cluster: ServiceCluster, now: float, *, is_new: bool) -> Service:
    """A member that has just made its driver from the cluster's row: where the cluster is, whatever its row said (G1).

    What an administrator said of it alone (disabled) stays, unless the cluster has moved since.
    """
    moved = is_new or service.fault is not None or service.applied_epoch < cluster.epoch
    row = replace(
        service,
        applied_epoch=cluster.epoch,
        active_backend_id=cluster.active_backend_id,
        frozen=cluster.frozen,
        disabled=cluster.disabled if moved else service.disabled,
        disabled_reason=cluster.disabled_reason if moved else service.disabled_reason,
        fault=None,
        updated_at=now,
    )
    return in_step(row, cluster, now)


# --- Freezing and switching off ------------------------------------------------------------------------------------


def freeze(cluster: ServiceCluster, services: Sequence[Service], now: float, *, frozen: bool) -> Change | Refusal:
    """Freeze or thaw the cluster and every member of it at once (G10). Allowed whatever the replication does."""
    if cluster.frozen == frozen:
        verb = "freeze" if frozen else "thaw"
        prefix = "No service could be changed: " if cluster.solitary else ""
        return Refusal("invalid", f"{prefix}frozen in {cluster.id} must be {not frozen} to {verb}.")
    return Change(_frozen(cluster, now, frozen=frozen), tuple(_frozen(one, now, frozen=frozen) for one in services))


def _frozen(row: Row, now: float, *, frozen: bool) -> Row:
    """Who was disabled for another reason stays so, and keeps that reason."""
    if frozen and not row.disabled:
        return replace(row, frozen=True, disabled=True, disabled_reason=FROZEN, updated_at=now)
    if not frozen and row.disabled_reason == FROZEN:
        return replace(row, frozen=False, disabled=False, disabled_reason="", updated_at=now)
    return replace(row, frozen=frozen, updated_at=now)

"""Members of a group at several sites: who is local, and at which sites a backend's primaries may be.

A group that has members at other sites writes only with a word for its site. The invariant: of such a group no two
servers at different sites accept writes. It rests on three facts.

* A manager gives that word only to the rightful primary of the group, and only at a site of `may_write_at`, both as the
  database had them after the agent had asked; it is good for `site_seconds` from the moment of asking.
* A failover that cannot ask the old site first denies it (`forced` on the row of the service cluster), saves its choice
  while that is so, and promotes when `site_seconds` and a margin have passed since, and since the chosen one was
  ordered, before which its group may have been at one site and free of this rule. From the choice on nobody but the
  chosen one is rightful, whatever becomes of the failover of the other groups.
* A failover in order has the old primary hold its writes before the other is promoted, as any planned change.

Within its own site nothing is different: see `decide/fencing.py`, where only local members count.
"""

from __future__ import annotations

from collections.abc import Iterable

from redkeep.model.instance import Instance, Status
from redkeep.model.site import Backend, ReplicationStatus, ServiceCluster

MARGIN = 1.0
"""Seconds beyond a word that an agent may take to see that it has run out and to fence, and by which clocks may run
apart in that time."""


def local(instances: Iterable[Instance], primary: Instance) -> tuple[Instance, ...]:
    """Those at the primary's site, itself included: they alone take its place, unless the whole site fails over."""
    return tuple(one for one in instances if one.site == primary.site)


def spans_sites(instances: Iterable[Instance]) -> bool:
    """Whether a group has somebody at another site, be it one that is not made yet. Those that never were do not
    count: they were given up, and lie there to be deleted."""
    return len({one.site for one in instances if one.site and (one.address or one.status is Status.BUILD)}) > 1


def may_write_at(backend: Backend, clusters: Iterable[ServiceCluster]) -> frozenset[str] | None:
    """Labels of the sites where primaries of groups with several may write. None: everywhere, nothing fails over here.

    `clusters`: all that there are. Managers of one backend that are in no service cluster together must agree.
    """
    rows = [one for one in clusters if one.backend == backend.name]
    if not backend.targets or not rows:
        return None
    return frozenset.intersection(*(_sites_of(backend, row) for row in rows))


def _sites_of(backend: Backend, cluster: ServiceCluster) -> frozenset[str]:
    """While it fails over in order, both: each group is at one of them, and moves to the other by itself. When it is
    forced, the new one alone. When that ended half way, all: each group is where its own row says, and whoever was
    chosen to take a place, was chosen while the old site was denied."""
    active, failover = backend.site_label(cluster.site), cluster.failover
    if cluster.replication_status is ReplicationStatus.FAILOVER_ERROR:
        return frozenset((backend.site, *(one.site for one in backend.targets)))
    if cluster.replication_status is not ReplicationStatus.FAILING_OVER or failover is None:
        return frozenset(one for one in (active,) if one is not None)
    target = backend.site_label(failover.target)
    return frozenset(one for one in ((target,) if failover.forced else (active, target)) if one is not None)


def active_site(backend: Backend, clusters: Iterable[ServiceCluster]) -> str:
    """Label of the site where new primaries go; empty when nothing is said of sites."""
    row = next((one for one in clusters if one.backend == backend.name), None)
    if not backend.targets:
        return ""
    return (backend.site_label(row.site) if row else None) or backend.site


def may_be_primary(instance: Instance, instances: Iterable[Instance], sites: frozenset[str] | None) -> bool:
    """Whether a manager may confirm it, as far as its site goes."""
    return sites is None or instance.site in sites or not spans_sites(instances)


def has_its_site(*, now: float, site_until: float, elsewhere: int) -> bool:
    """Whether a primary may write at `now`, as far as its site goes (the agent's monotonic clock).

    `site_until`: when the last word for its site ends. `elsewhere`: members at other sites, as its agent was told.
    """
    return not elsewhere or now < site_until


def seconds_until_fenced(*, now: float, denied_since: float, site_seconds: float) -> float:
    """How long to wait, at store time `now`, before one at another site may be promoted."""
    return max(0.0, denied_since + site_seconds + MARGIN - now)

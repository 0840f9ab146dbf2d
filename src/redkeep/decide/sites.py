"""Members of a group at several sites: who is local, and at which sites a backend's primaries may be.

A group that has members at other sites writes only with a word for its site. The invariant: of such a group no two
servers at different sites accept writes. It rests on three facts.

* A manager gives that word only to the rightful primary of the group, and only at a site of `may_write_at`, both as the
  database had them after the agent had asked; it is good for `site_seconds` from the moment of asking.
* A failover that cannot ask the old site first denies it (`forced` on the row of the service cluster), saves its choice
  while that is so, and promotes when `site_seconds` and a margin have passed since.
* A failover in order has the old primary hold its writes before the other is promoted, as any planned change.

Within its own site nothing is different: see `decide/fencing.py`, where only local members count.
"""

from __future__ import annotations

from collections.abc import Iterable

from redkeep.decide.topology import members
from redkeep.model.instance import Instance
from redkeep.model.site import Backend, ReplicationStatus, ServiceCluster

MARGIN = 1.0
"""Seconds beyond a word that an agent may take to see that it has run out and to fence, and by which clocks may run
apart in that time."""


def local(instances: Iterable[Instance], primary: Instance) -> tuple[Instance, ...]:
    """Those at the primary's site, itself included: they alone take its place, unless the whole site fails over."""
    return tuple(one for one in instances if one.site == primary.site)


def spans_sites(instances: Iterable[Instance]) -> bool:
    """Whether a group has members at more than one site."""
    return len({one.site for one in members(instances)}) > 1


def may_write_at(backend: Backend, cluster: ServiceCluster | None) -> frozenset[str] | None:
    """Labels of the sites where primaries of groups with several may write. None: everywhere, nothing fails over here.

    While it fails over in order, both: each group is at one of them, and moves from the one to the other by itself.
    When it is forced, only the new one, and that stays so if it fails half way: somebody may have been promoted there.
    """
    if cluster is None or not backend.targets:
        return None
    active, failover = backend.site_label(cluster.site), cluster.failover
    moving = cluster.replication_status in (ReplicationStatus.FAILING_OVER, ReplicationStatus.FAILOVER_ERROR)
    if not moving or failover is None:
        return _labels(active)
    target = backend.site_label(failover.target)
    return _labels(target) if failover.forced else _labels(active, target)


def _labels(*found: str | None) -> frozenset[str]:
    return frozenset(one for one in found if one is not None)


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

"""The driver of a backend whose groups have replicas at other sites: the primaries move, the data is there already.

In order, each group is promoted as any planned change: nothing is lost, both sites must answer, and nothing at all is
begun unless every group that has a replica there is seen to be in step. Forced, the old site is not asked: the row of
the backend has denied it its word, which is waited out; what may be lost is named.

Options of a `replication_device`: `parallel`, how many groups move at a time (8).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from redkeep.backends.base import BaseDriver
from redkeep.backends.moving import Arrived, Journey, Outcome, Stayed, move
from redkeep.backends.verifying import out_of_step
from redkeep.decide.sites import may_write_at
from redkeep.errors import NotNow, Refused, Unavailable
from redkeep.model.site import FAILBACK, FailoverResult, ReplicationStatus, SiteFailover, Volume, VolumeUpdate
from redkeep.ports import BackendContext

log = logging.getLogger(__name__)

PARALLEL = 8
"""More would be through sooner, and each would keep its writers waiting for longer."""
MOST_NAMED = 5
"""Groups that one message names."""


class RedisSites(BaseDriver):
    """See `ports.BackendDriver`."""

    SUPPORTS_ACTIVE_ACTIVE = True

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self.active_backend_id = context.active_backend_id

    async def failover(self, volumes: Sequence[Volume], secondary_id: str, *, forced: bool) -> FailoverResult:
        """Refused, with nothing changed, when it is to go in order and a group is not in step there."""
        site = self._site(secondary_id)
        groups = {one.group_id: one for one in volumes}
        open_, denied_since = await self._begin(site, forced=forced)
        if not forced:
            await self._require_in_step(groups, site, first=_is_first(open_))
        journey = Journey(
            site=site,
            forced=forced,
            failover_id=open_.id if open_ else "",
            denied_since=denied_since,
            parallel=self._parallel(secondary_id),
            requested_by=self.context.manager,
        )
        outcomes = await move(self.context, journey, list(groups), self.context.progress)
        self._require_moved(groups, outcomes, forced=forced)
        status = ReplicationStatus.ENABLED if secondary_id == FAILBACK else ReplicationStatus.FAILED_OVER
        updates = (_update(groups[name], outcome, status) for name, outcome in outcomes.items())
        return FailoverResult(secondary_id, tuple(one for one in updates if one is not None))

    async def failover_completed(self, active_backend_id: str) -> None:
        """What this manager does follows from the rows; here it only says where it is."""
        log.warning("site %s is active (%s)", self._site(active_backend_id), active_backend_id)
        self.active_backend_id = active_backend_id

    # --- how ------------------------------------------------------------------------------------------------------

    def _site(self, target: str) -> str:
        site = self.context.backend.site_label(target)
        if site is None:
            raise Refused(f"there is no replication_device {target}", kind="missing")
        return site

    def _parallel(self, target: str) -> int:
        options = next((one.options for one in self.context.backend.targets if one.backend_id == target), {})
        written = options.get("parallel", str(PARALLEL))
        if not written.isdecimal() or int(written) < 1:
            raise Refused(f"replication_device {target}: parallel must be a whole number from 1, not {written!r}")
        return int(written)

    async def _require_in_step(self, groups: Mapping[str, Volume], site: str, *, first: bool) -> None:
        """Raises Refused, or NotNow when somebody before us may have begun: then there is no way but on."""
        reasons = await out_of_step(self.context, list(groups), site)
        if reasons:
            named = "; ".join(reasons[:MOST_NAMED])
            more = f"; and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else ""
            message = f"not everything is in step at site {site}: {named}{more}"
            raise Refused(message, kind="busy") if first else NotNow(message)

    async def _begin(self, site: str, *, forced: bool) -> tuple[SiteFailover | None, float]:
        """Which failover this is and, of a forced one, a moment at which every other site is denied.

        Raises Refused when the row does not say so: whoever calls has saved it before.
        """
        backend = self.context.backend
        async with self.context.store.read() as tx:
            rows, now = await tx.service_clusters(), await tx.now()
        ours = [one for one in rows if one.backend == backend.name]
        open_ = next((one.failover for one in ours if one.failover and one.failover.finished is None), None)
        if forced and (open_ is None or may_write_at(backend, ours) != frozenset({site})):
            raise Refused(f"the row of backend {backend.name} does not say that only site {site} may write")
        return open_, now

    def _require_moved(self, groups: Mapping[str, Volume], outcomes: Mapping[str, Outcome], *, forced: bool) -> None:
        """In order all or it has failed; forced, as many as can be had. Raises NotNow, Unavailable."""
        stuck = [(groups[name], one) for name, one in outcomes.items() if isinstance(one, Stayed) and one.replicated]
        moved = any(isinstance(one, Arrived) for one in outcomes.values())
        if stuck and (not forced or not moved):
            reasons = "; ".join(f"{volume.id}: {one.reason}" for volume, one in stuck[:MOST_NAMED])
            message = f"{len(stuck)} of {len(outcomes)} did not move: {reasons}"
            raise Unavailable(message) if forced else NotNow(message)


def _is_first(failover: SiteFailover | None) -> bool:
    """Nobody has called a driver for it before, as far as the row says."""
    return failover is None or (failover.attempts <= 1 and failover.error is None)


def _update(volume: Volume, outcome: Outcome, status: ReplicationStatus) -> VolumeUpdate | None:
    match outcome:
        case Arrived(lost="", moved=_):
            return None
        case Arrived(lost=lost):
            return VolumeUpdate(volume.id, status, lost)
        case Stayed(reason=reason, replicated=True):
            return VolumeUpdate(volume.id, ReplicationStatus.FAILOVER_ERROR, reason)
        case Stayed(reason=reason):
            return VolumeUpdate(volume.id, ReplicationStatus.DISABLED, f"it stays where it is: {reason}")

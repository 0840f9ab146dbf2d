"""Names, as /v3 understands them, and what stands behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redkeep.api.blockstorage.views import Team, teams
from redkeep.api.settings import ApiSettings
from redkeep.errors import Refused
from redkeep.model.site import BINARY
from redkeep.ports import Transaction


def means(wanted: str, name: str) -> bool:
    """A name is meant exactly, or by all that stands before its `@` (not by the beginning of that)."""
    return wanted == name or ("@" not in wanted and "#" not in wanted and name.startswith(f"{wanted}@"))


async def all_teams(tx: Transaction, settings: ApiSettings) -> list[Team]:
    """Every service cluster with its members; those of managers that are alone included."""
    return teams(await tx.service_clusters(), await tx.services(), await tx.now(), settings.service_down_seconds)


async def locked(tx: Transaction, team: Team) -> Team:
    """The same, so that nobody else changes it until the transaction ends."""
    cluster = await tx.service_cluster(team.cluster.id, lock=True)
    services = await tx.services(cluster_id=team.cluster.id)
    return Team(cluster or team.cluster, tuple(services), await tx.now(), team.down_time)


def the_cluster(found: Iterable[Team], name: str, binary: str | None) -> Team:
    """The first that is meant. Raises Refused (kind `missing`), in Cinder's words."""
    for team in found:
        if not team.cluster.solitary and means(name, team.cluster.id) and binary in (None, BINARY):
            return team
    filters: dict[str, Any] = {"binary": binary or BINARY, "name": name[:300]}
    raise Refused(f"Cluster {filters} could not be found.", kind="missing")


def the_team(found: Iterable[Team], *, host: str | None, cluster: str | None) -> Team:
    """Whom freeze, thaw and failover are about: the whole cluster, also when one of its hosts is named. Raises Refused
    (kind `invalid`, as there)."""
    if host is not None:
        meant = [team for team in found if any(means(host, one.id) for one in team.services)]
    else:
        meant = [
            team
            for team in found
            if team.services and not team.cluster.solitary and means(cluster or "", team.cluster.id)
        ]
    if not meant:
        named = f"host={host}" if host is not None else f"cluster={cluster}"
        raise Refused(f"No service found with {named[:300]}")
    if len(meant) > 1:
        raise Refused("Services from different clusters found.")
    return meant[0]

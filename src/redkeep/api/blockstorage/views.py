"""Rows as answers of /v3. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redkeep.api.blockstorage.microversions import CLUSTERS, REPLICATION, Version
from redkeep.decide.site import following, is_up
from redkeep.model.site import BINARY, Service, ServiceCluster, site_of

PROGRESS = "redkeep:failover"
"""Our own key of a cluster's details: how the last failover goes, or went, and who has followed."""


@dataclass(frozen=True, slots=True)
class Team:
    """A service cluster with its members, at one moment."""

    cluster: ServiceCluster
    services: tuple[Service, ...]
    now: float
    down_time: float
    """Seconds without a sign of life after which a service is down."""

    @property
    def up(self) -> bool:
        return any(is_up(one, self.now, self.down_time) for one in self.services)

    @property
    def down_hosts(self) -> int:
        return sum(not is_up(one, self.now, self.down_time) for one in self.services)


def teams(clusters: Iterable[ServiceCluster], services: Sequence[Service], now: float, down_time: float) -> list[Team]:
    """Each with those who belong to it."""
    return [
        Team(one, tuple(each for each in services if each.cluster_id == one.id), now, down_time) for one in clusters
    ]


def moment(at: float | None) -> str:
    """Naive, UTC, with microseconds; empty when it never was."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(timespec="microseconds") if at else ""


def summary(team: Team, version: Version) -> dict[str, Any]:
    """A cluster in a list."""
    cluster = team.cluster
    view = {
        "name": cluster.id,
        "binary": BINARY,
        "state": "up" if team.up else "down",
        "status": "disabled" if cluster.disabled else "enabled",
    }
    return view | ({"replication_status": cluster.replication_status.value} if version >= REPLICATION else {})


def detail(team: Team, version: Version) -> dict[str, Any]:
    """A cluster by itself."""
    cluster = team.cluster
    view = summary(team, version) | {
        "num_hosts": len(team.services),
        "num_down_hosts": team.down_hosts,
        "last_heartbeat": moment(max((one.heartbeat_at for one in team.services), default=0.0)),
        "created_at": moment(cluster.created_at),
        "updated_at": moment(cluster.updated_at),
        "disabled_reason": cluster.disabled_reason,
    }
    if version >= REPLICATION:
        view |= {
            "frozen": cluster.frozen,
            "active_backend_id": cluster.active_backend_id,
            PROGRESS: progress(team),
        }
    return view


def progress(team: Team) -> dict[str, Any]:
    """How far a failover is: of the storage, and of the members, those that are down included."""
    cluster, members = team.cluster, following(team.cluster, team.services)
    view: dict[str, Any] = {
        "epoch": cluster.epoch,
        "targets": list(cluster.targets),
        "members": members.members,
        "followed": members.followed,
        "missing": list(members.missing),
        "failed": {one.id: one.fault for one in team.services if one.fault},
    }
    if (last := cluster.failover) is None:
        return view
    return view | {
        "id": last.id,
        "target": last.target,
        "forced": last.forced,
        "step": last.step,
        "progress": round(last.progress, 3),
        "attempts": last.attempts,
        "error": last.error,
        "worked_on_by": cluster.holder if last.finished is None else None,
        "requested_by": last.requested_by,
        "requested_at": moment(last.requested_at),
        "finished_at": moment(last.finished),
        "volumes": last.volumes,
        "volume_updates": [
            {"volume_id": one.volume_id, "replication_status": one.replication_status.value, "detail": one.detail}
            for one in last.updates
        ],
    }


def service(team: Team, one: Service, version: Version) -> dict[str, Any]:
    """One manager. `updated_at` is its last sign of life, as everybody who looks at it takes it to be."""
    view = {
        "binary": BINARY,
        "host": one.id,
        "zone": one.zone,
        "status": "disabled" if one.disabled else "enabled",
        "state": "up" if is_up(one, team.now, team.down_time) else "down",
        "updated_at": moment(one.heartbeat_at),
        "disabled_reason": one.disabled_reason,
        "replication_status": one.replication_status.value,
        "active_backend_id": one.active_backend_id,
        "frozen": one.frozen,
    }
    return view | ({"cluster": None if team.cluster.solitary else team.cluster.id} if version >= CLUSTERS else {})


def sentence(team: Team) -> str:
    """For people: `managers@redis at dr1: failed-over, 5 of 6 managers have followed (missing: m3@redis)`."""
    cluster, members = team.cluster, following(team.cluster, team.services)
    parts = [f"{cluster.replication_status}"]
    if cluster.failover is not None and cluster.failover.finished is None:
        parts.append(f"to {cluster.failover.target}, step {cluster.failover.step or 'asked for'!r}")
    parts.append(f"{members.followed} of {members.members} managers have followed")
    if members.missing:
        parts[-1] += f" (missing: {', '.join(members.missing)})"
    if team.down_hosts:
        parts.append(f"{team.down_hosts} of them down")
    if cluster.frozen:
        parts.append("frozen")
    if cluster.failover is not None and cluster.failover.error:
        parts.append(f"the last failover: {cluster.failover.error}")
    return f"{cluster.id} at {site_of(cluster.active_backend_id)}: {', '.join(parts)}"

"""Service clusters and services as rows, for the tests of /v3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redkeep.model.site import ReplicationStatus, Service, ServiceCluster
from redkeep.ports import Store


async def a_team(
    store: Store, name: str = "managers@redis", *members: str, silent: tuple[str, ...] = (), **changes: Any
) -> ServiceCluster:
    """A cluster that can fail over to dr1 and dr2, and its members; the silent ones were last heard an hour ago."""
    async with store.begin() as tx:
        now = await tx.now()
        plain = ServiceCluster(
            name, now, replication_status=ReplicationStatus.ENABLED, targets=("dr1", "dr2"), updated_at=None
        )
        cluster = replace(plain, **changes)
        await tx.save(cluster)
        for member in members:
            heard = now - (3600.0 if member in silent else 0.0)
            row = Service(member, name, now, heartbeat_at=heard, replication_status=cluster.replication_status)
            await tx.save(replace(row, applied_epoch=cluster.epoch, active_backend_id=cluster.active_backend_id))
    return cluster


async def cluster_row(store: Store, name: str = "managers@redis") -> ServiceCluster:
    async with store.read() as tx:
        row = await tx.service_cluster(name)
    assert row is not None
    return row


async def service_rows(store: Store, name: str | None = None) -> dict[str, Service]:
    async with store.read() as tx:
        return {one.id: one for one in await tx.services(cluster_id=name)}

"""What every Store does for the managers' services, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from redkeep.model.site import (
    ReplicationStatus,
    Service,
    ServiceCluster,
    SiteFailover,
    VolumeUpdate,
)
from redkeep.ports import Store

CLUSTER = "managers@redis"


def a_cluster(cluster_id: str = CLUSTER, **changes: Any) -> ServiceCluster:
    return replace(ServiceCluster(cluster_id, created_at=1.0), **changes)


def a_service(name: str = "m1", **changes: Any) -> Service:
    return replace(Service(f"{name}@redis", CLUSTER, created_at=1.0, incarnation="first"), **changes)


async def saved(store: Store, *rows: ServiceCluster | Service) -> None:
    async with store.begin() as unit:
        await unit.save(*rows)


async def test_rows_come_back_as_they_went_in(store: Store) -> None:
    lost = VolumeUpdate("i", ReplicationStatus.FAILOVER_ERROR, "17 writes")
    failover = SiteFailover("f", "dr1", True, ReplicationStatus.ENABLED, "admin", 1.0, 2.0, updates=(lost,))
    cluster = a_cluster(failover=failover, targets=("dr1", "dr2"), frozen=True, epoch=2**40)
    members = [a_service("b", fault="no route"), a_service("a")]

    await saved(store, *members, cluster)

    async with store.read() as unit:
        assert await unit.service_clusters() == [cluster]
        assert await unit.service_cluster(CLUSTER) == cluster
        assert await unit.service_cluster("nobody@redis") is None
        assert await unit.services(cluster_id=CLUSTER) == members[::-1]
        assert await unit.services(cluster_id="nobody@redis") == []


async def test_of_many_that_register_the_same_cluster_one_does(store: Store) -> None:
    async def register(number: int) -> bool:
        async with store.begin() as unit:
            return await unit.add(a_cluster(epoch=number))

    added = await asyncio.gather(*(register(number) for number in range(8)))

    async with store.read() as unit:
        (row,) = await unit.service_clusters()
    assert added.count(True) == 1
    assert row.epoch == added.index(True)


async def test_nothing_but_a_heartbeat_makes_a_service_look_alive(store: Store) -> None:
    await saved(store, a_cluster(), a_service(heartbeat_at=5.0))

    await saved(store, a_service(heartbeat_at=10**9, frozen=True, updated_at=10.0**9))
    async with store.begin() as unit:
        (changed,) = await unit.services()
        beaten = await unit.beat("m1@redis", "first")
        (alive,) = await unit.services()
        now = await unit.now()

    assert (changed.frozen, changed.heartbeat_at) == (True, 5.0)
    assert beaten
    assert abs(alive.heartbeat_at - now) < 5
    assert alive.updated_at == 10.0**9


async def test_an_earlier_run_of_a_service_beats_and_removes_nothing(store: Store) -> None:
    await saved(store, a_cluster(), a_service(incarnation="second", heartbeat_at=5.0))

    async with store.begin() as unit:
        assert not await unit.beat("m1@redis", "first")
        await unit.remove_service("m1@redis", "first")
        (row,) = await unit.services()
        await unit.remove_service("m1@redis", "second")
        none = await unit.services()

    assert row.heartbeat_at == 5.0
    assert none == []


async def test_the_lease_of_a_cluster_is_ones_and_saving_its_row_gives_nothing_back(store: Store) -> None:
    await saved(store, a_cluster())

    mine = await store.claim_cluster(CLUSTER, "m1", 60.0)
    theirs = await store.claim_cluster(CLUSTER, "m2", 60.0)
    await saved(store, a_cluster(frozen=True, holder="m3", lease_epoch=99))
    async with store.read() as unit:
        row = await unit.service_cluster(CLUSTER)

    assert mine is not None
    assert theirs is None
    assert row is not None
    assert (row.frozen, row.holder, row.lease_epoch) == (True, "m1", mine.lease_epoch)
    assert await store.renew_cluster(CLUSTER, "m1", mine.lease_epoch, 60.0)
    assert not await store.renew_cluster(CLUSTER, "m2", mine.lease_epoch, 60.0)


async def test_a_lease_that_is_over_or_given_back_is_anybodys(store: Store) -> None:
    await saved(store, a_cluster())

    first = await store.claim_cluster(CLUSTER, "m1", 0.0)
    second = await store.claim_cluster(CLUSTER, "m2", 60.0)
    assert first is not None
    assert second is not None
    await store.release_cluster(CLUSTER, "m1", first.lease_epoch)
    kept = await store.claim_cluster(CLUSTER, "m3", 60.0)
    await store.release_cluster(CLUSTER, "m2", second.lease_epoch)
    third = await store.claim_cluster(CLUSTER, "m3", 60.0)

    assert kept is None
    assert third is not None
    assert third.lease_epoch > second.lease_epoch > first.lease_epoch
    assert not await store.renew_cluster(CLUSTER, "m1", first.lease_epoch, 60.0)
    assert await store.claim_cluster("nobody@redis", "m1", 60.0) is None


async def test_frozen_is_a_backend_any_of_whose_clusters_is(store: Store) -> None:
    await saved(store, a_cluster("a@redis", frozen=True), a_cluster("b@redis"), a_cluster("c@other"))

    async with store.read() as unit:
        assert await unit.frozen("redis")
        assert not await unit.frozen("other")
        assert not await unit.frozen("nowhere")


async def test_a_freeze_waits_for_a_change_that_saw_none(store: Store) -> None:
    await saved(store, a_cluster())
    order: list[str] = []

    async def freeze() -> None:
        async with store.begin() as unit:
            row = await unit.service_cluster(CLUSTER, lock=True)
            assert row is not None
            await unit.save(replace(row, frozen=True))
        order.append("frozen")

    async with store.begin() as unit:
        assert not await unit.frozen("redis")
        freezing = asyncio.create_task(freeze())
        await asyncio.wait([freezing], timeout=0.2)
        order.append("changed")
    await freezing

    assert order == ["changed", "frozen"]


async def test_a_service_that_has_been_silent_for_long_is_forgotten_and_a_cluster_without_any(store: Store) -> None:
    alone = a_cluster("alone@redis", solitary=True)
    await saved(
        store,
        a_cluster(),
        a_cluster("left@redis", frozen=True),
        alone,
        a_service("old", heartbeat_at=5.0),
        a_service("young", heartbeat_at=50.0),
        a_service("alone", cluster_id=alone.id, heartbeat_at=5.0),
    )

    async with store.begin() as unit:
        await unit.prune(10.0)
        assert [one.id for one in await unit.services()] == ["young@redis"]
        assert [one.id for one in await unit.service_clusters()] == [CLUSTER]


async def test_reading_writes_nothing(store: Store) -> None:
    async with store.read() as unit:
        with pytest.raises(RuntimeError, match="begin"):
            await unit.add(a_cluster())
        with pytest.raises(RuntimeError, match="begin"):
            await unit.service_cluster(CLUSTER, lock=True)

"""What is done to the shards of a cluster: promotions in a row, large keys, dry runs, the six methods of the guest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from redis.exceptions import RedisError

from redkeep.agent.guest import METHODS, GuestAgentStrategy
from redkeep.errors import StaleEpoch
from redkeep.model.cluster_orders import ClusterAddSlots, MoveSlots
from redkeep.model.operation import Kind
from redkeep.model.slots import slot_of
from redkeep.model.topology import Role
from redkeep.orders import BusAgents
from redkeep.redis.admin import Admin
from redkeep.redis.versions import find_servers
from redkeep.testing.shards import ManagedCluster, managed_cluster
from redkeep.testing.stack import Part, stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

both_versions = pytest.mark.parametrize("version", find_servers())
NEWEST = next(iter(find_servers()))


@asynccontextmanager
async def made(version: str = NEWEST, *, replicas: int = 0) -> AsyncIterator[tuple[ManagedCluster, Part]]:
    async with stack(manager_options={"lease_seconds": 1.0, "look_interval": 0.2}) as found:
        agent = await found.start_agent()
        await found.start_manager()
        async with managed_cluster(found, primaries=3, replicas=replicas, version=version) as cluster:
            yield cluster, agent


@both_versions
async def test_a_replica_is_promoted_and_at_once_the_other_again_and_no_write_is_lost(version: str) -> None:
    """Twice in a row is what CLUSTER FAILOVER cannot do: nobody may take writes but the one whom all name."""
    async with made(version, replicas=1) as (cluster, _):
        written: dict[str, bytes] = {}
        stop = asyncio.Event()

        async def write() -> None:
            number = 0
            async with cluster.client() as client:
                while not stop.is_set():
                    number += 1
                    with contextlib.suppress(RedisError, OSError):
                        if await client.set(f"{{a}}:{number}", str(number)):
                            written[f"{{a}}:{number}"] = str(number).encode()
                    await asyncio.sleep(0.001)

        truth, rows = await cluster.truth(), {one.node_id: one for one in await cluster.members()}
        owner = next(node.id for node in truth.members for pair in node.ranges if pair[0] <= slot_of(b"a") <= pair[1])
        label = rows[owner].shard
        writer = asyncio.create_task(write())
        for _turn in range(2):
            old, (replica,) = await cluster.shard(label or "")
            await cluster.run(Kind.PROMOTE_SHARD_REPLICA, {"instance": replica.id})
            assert (await cluster.shard(label or ""))[0].id == replica.id
            views = [one.cluster for one in (await cluster.look()).values()]
            assert all(
                node.primary_id == replica.node_id
                for view in views
                for node in (view.view.members if view else ())
                if node.id == old.node_id
            ), "all members agree before it is answered"
        stop.set()
        await writer

        await cluster.settled()
        assert written
        await cluster.compare(written)
        assert not any(one.fenced for one in (await cluster.look()).values()), "nobody is held any more"


@both_versions
async def test_a_key_that_is_too_large_stays_with_its_slot_and_all_others_move(version: str) -> None:
    async with made(version) as (cluster, _):
        data = await cluster.fill(300)
        source, target = (await cluster.shard("1"))[0], (await cluster.shard("2"))[0]
        view = (await cluster.look())[source.id].cluster
        assert view is not None
        mine = [key for key in data if view.ranges[0][0] <= slot_of(key.encode()) <= view.ranges[0][1]]
        large, slots = mine[0], sorted({slot_of(key.encode()) for key in mine[:40]})
        data[large] = b"x" * 300_000
        await (await cluster.redis(source)).set(large, data[large])
        group, there = await cluster.group(), (await cluster.look())[target.id].cluster
        assert there is not None
        assert target.address is not None
        order = MoveSlots(
            source.id,
            cluster.id,
            group.epoch,
            tuple(slots),
            there.node_id,
            target.address,
            budget=20,
            largest_key=100_000,
        )

        facts = await BusAgents(cluster.bus).tell("host-1", order, timeout=30)

        assert facts.cluster is not None
        assert [slot for slot, _ in facts.cluster.kept] == [slot_of(large.encode())]
        assert "the limit is 100000" in facts.cluster.kept[0][1]
        assert facts.cluster.migrating == ()
        counts = await cluster.slots_by_shard()
        assert counts["2"] == 5461 + len(slots) - 1
        await cluster.settled()
        await cluster.compare(data)


async def test_a_dry_run_says_what_would_move_and_moves_nothing() -> None:
    async with made() as (cluster, _):
        first, _ = await cluster.shard("1")
        before = await cluster.slots_by_shard()

        done = await cluster.run(Kind.REBALANCE_CLUSTER, {"weights": {first.id: 0}, "dry_run": True})

        assert done.choice["slots"] == before["1"]
        assert {source for source, _, _ in done.choice["plan"]} == {"1"}
        assert await cluster.slots_by_shard() == before
        assert any(f"would move {before['1']} slots" in one.text for one in await cluster.events())


async def test_an_order_of_an_older_epoch_moves_nothing() -> None:
    async with made() as (cluster, _):
        first, _ = await cluster.shard("1")

        with pytest.raises(StaleEpoch):
            await BusAgents(cluster.bus).tell("host-1", ClusterAddSlots(first.id, cluster.id, 0, ((0, 1),)))


@both_versions
async def test_the_guest_agents_six_methods_do_what_the_specification_says(version: str) -> None:
    async with made(version, replicas=1) as (cluster, _):
        (primary, (replica,)), (other, _) = await cluster.shard("1"), await cluster.shard("2")
        assert primary.address is not None
        admin = Admin(primary.address, await cluster.password())
        guest = GuestAgentStrategy(admin, primary.address, 5000)
        try:
            assert await guest.get_node_ip() == primary.address
            assert await guest.get_node_id_for_removal() is None, "it has slots"
            assert replica.address is not None
            empty = GuestAgentStrategy(Admin(replica.address, await cluster.password()), replica.address, 5000)
            assert await empty.get_node_id_for_removal() == replica.node_id
            await empty.admin.close()
            await guest.remove_nodes(["f" * 40])
            assert other.address is not None
            await guest.cluster_meet(other.address.host, other.address.port)
            await guest.cluster_complete()
            (said,) = await admin.run(("CONFIG", "GET", "cluster-node-timeout"))
            assert "5000" in str(said)
        finally:
            await admin.close()
        assert all(callable(getattr(GuestAgentStrategy, name)) for name in METHODS)
        await cluster.settled()


async def test_redis_own_election_is_adopted_when_a_host_falls_silent() -> None:
    """No exit is told: the members elect, and the rows follow."""
    async with made(replicas=1) as (cluster, agent):
        primary, (replica,) = await cluster.shard("3")
        redis = await cluster.redis(replica)
        await redis.execute_command("CLUSTER", "FAILOVER", "FORCE")  # type: ignore[no-untyped-call]

        async def elected() -> bool:
            return (await cluster.shard("3"))[0].id == replica.id

        await cluster.found.eventually(elected, what="rows that follow the election")

        await cluster.settled()
        assert (await cluster.look())[primary.id].role is Role.REPLICA
        assert replace(primary, role=Role.REPLICA).shard == "3"
        assert not agent.task.done()

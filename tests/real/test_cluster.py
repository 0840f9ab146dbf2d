"""A client on a real Redis Cluster, while it fails over, grows, moves slots and loses nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from redkeep.errors import Unavailable
from redkeep.model.slots import ClusterView, slot_of
from redkeep.northbound import ServerError, connect
from redkeep.northbound.cluster import ClusterClient
from redkeep.redis.versions import find_servers
from redkeep.testing.clusters import ClusterProcesses, cluster_processes, wait_until
from redkeep.testing.servers import free_port

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=find_servers())
def cluster(request: pytest.FixtureRequest) -> Iterator[ClusterProcesses]:
    """Whole again after each test that hurts it."""
    with cluster_processes(version=request.param) as made:
        yield made


@asynccontextmanager
async def connected(cluster: ClusterProcesses, seed: int | None = None) -> AsyncIterator[ClusterClient]:
    client = await connect([cluster.servers[cluster.alive[0] if seed is None else seed].address])
    assert isinstance(client, ClusterClient)
    async with client:
        yield client


async def until(claim: Callable[[], bool], patience: float = 15.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


async def whole(cluster: ClusterProcesses) -> None:
    await asyncio.to_thread(wait_until, cluster.whole, "a whole cluster")


def empty_slot(cluster: ClusterProcesses, n: int) -> int:
    """The first slot of that primary."""
    return next(one for one in cluster.view(n).members if one.address == cluster.servers[n].address).ranges[0][0]


def key_in(slot: int, prefix: str = "k") -> str:
    return next(key for key in (f"{prefix}{n}" for n in range(10**6)) if slot_of(key.encode()) == slot)


async def test_commands_go_to_the_owner_of_their_key(cluster: ClusterProcesses) -> None:
    async with connected(cluster) as client:
        for n in range(60):
            await client.execute("SET", f"key {n}", n)
        await client.execute("MSET", "{tag}a", 1, "{tag}b", 2)
        reply = await client.execute("EVAL", "return redis.call('GET', KEYS[1])", 1, "{tag}a")

        assert [await client.execute("GET", f"key {n}") for n in range(60)] == [b"%d" % n for n in range(60)]
        assert reply == b"1"
        assert client.mode == "cluster"
        assert client.reads < 5


async def test_an_error_of_the_command_is_passed_on(cluster: ClusterProcesses) -> None:
    async with connected(cluster) as client:
        with pytest.raises(ServerError, match="CROSSSLOT"):
            await client.execute("MSET", "a", 1, "b", 2)


async def test_a_failover_without_a_lost_connection_is_followed(cluster: ClusterProcesses) -> None:
    async with connected(cluster) as client:
        n = cluster.owner(slot_of(b"moves"))
        await client.execute("SET", "moves", 1)
        successor = await asyncio.to_thread(cluster.fail_over, n)
        begun = time.monotonic()
        await client.execute("SET", "moves", 2)

        assert time.monotonic() - begun < 2.5
        await until(lambda: cluster.servers[successor].address in client.primaries)
    await whole(cluster)


async def test_a_killed_primary_is_replaced_and_commands_wait_for_it(cluster: ClusterProcesses) -> None:
    async with connected(cluster) as client:
        n = cluster.owner(slot_of(b"dies"))
        await asyncio.to_thread(cluster.kill, n)
        await client.execute("SET", "dies", 1, timeout=15)

        assert await client.execute("GET", "dies") == b"1"
        assert cluster.servers[n].address not in client.primaries
        assert client.reads < 60, "reading is rate-limited"
    await asyncio.to_thread(cluster.restart, n)
    await whole(cluster)


async def test_an_ask_to_a_node_that_the_client_does_not_know_is_resolved(cluster: ClusterProcesses) -> None:
    source = cluster.owner(0)
    slot = empty_slot(cluster, source)
    async with connected(cluster) as client:
        newcomer = await asyncio.to_thread(cluster.add)
        await asyncio.to_thread(cluster.meet, *cluster.alive)
        await whole(cluster)  # one that has just joined refuses everything for seconds
        cluster.begin_move(slot, source, newcomer)
        key = key_in(slot, "asked")
        await client.execute("SET", key, 1)
        assert client.owner(slot) == cluster.servers[source].address, "ASK does not change the map"
        assert cluster.order(newcomer, "CLUSTER", "COUNTKEYSINSLOT", slot) == 1

        cluster.end_move(slot, source, newcomer)
        assert await client.execute("GET", key) == b"1"
        assert client.owner(slot) == cluster.servers[newcomer].address
    cluster.move_slot(slot, newcomer, source)
    await asyncio.to_thread(cluster.remove, newcomer)
    await whole(cluster)


async def test_a_half_moved_slot_is_waited_for(cluster: ClusterProcesses) -> None:
    source = cluster.owner(16383)
    slot = empty_slot(cluster, source)
    target = (
        cluster.owner(slot_of(b"elsewhere")) if cluster.owner(slot_of(b"elsewhere")) != source else cluster.owner(0)
    )
    tag = key_in(slot)
    async with connected(cluster) as client:
        await client.execute("MSET", f"{{{tag}}}a", 1, f"{{{tag}}}b", 2)
        cluster.begin_move(slot, source, target)
        cluster.order(source, "MIGRATE", "127.0.0.1", cluster.servers[target].port, f"{{{tag}}}a", 0, 5000)
        read = asyncio.create_task(client.execute("MGET", f"{{{tag}}}a", f"{{{tag}}}b"))
        await asyncio.sleep(0.02)
        assert not read.done()
        cluster.move_slot(slot, source, target)

        assert await read == [b"1", b"2"]
    cluster.move_slot(slot, target, source)


async def test_a_node_that_comes_back_under_another_address_is_found(cluster: ClusterProcesses) -> None:
    async with connected(cluster) as client:
        n = cluster.owner(slot_of(b"moves house"))
        await asyncio.to_thread(cluster.kill, n)
        cluster.servers[n].port = free_port()
        cluster.servers[n].address = type(cluster.servers[n].address)("127.0.0.1", cluster.servers[n].port)
        await asyncio.to_thread(cluster.restart, n)

        await client.execute("SET", "moves house", 1, timeout=15)
        assert cluster.servers[n].address in {one.address for one in client.view.members}
    await whole(cluster)


async def test_a_cluster_without_owners_is_no_cluster_yet() -> None:
    with cluster_processes(primaries=1, replicas=0) as cluster:
        cluster.order(0, "CLUSTER", "DELSLOTS", 7)
        with pytest.raises(Unavailable, match="16383 of 16384"):
            await connect(cluster.addresses, timeout=0.3)


async def test_a_cut_off_minority_does_not_lead_back(cluster: ClusterProcesses) -> None:
    """What a node described before the others went on has a lower epoch, and is not believed."""
    async with connected(cluster) as client:
        before = cluster.view(cluster.alive[0])
        await asyncio.to_thread(cluster.fail_over, cluster.owner(0))
        await client.execute("SET", key_in(0), 1)
        await until(lambda: client.view.epoch > before.epoch)
        owner = client.owner(0)
        client.hear(before)

        assert client.owner(0) == owner
        assert ClusterView.from_news(client.view.to_news()) == client.view
    await whole(cluster)

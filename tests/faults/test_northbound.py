"""Faults 36 to 38, and many in a row: what the driver's users hear, and that both sides have the same afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from redkeep.errors import OutcomeUnknown, Refused, Unavailable
from redkeep.model.slots import slot_of
from redkeep.northbound import (
    Availability,
    Detector,
    Keeper,
    Mirror,
    Notice,
    Publisher,
    ServerError,
    Subscriber,
    connect,
)
from redkeep.northbound.places import feed_of, place_of
from redkeep.redis.versions import find_servers
from redkeep.testing.clusters import ClusterProcesses, cluster_processes, wait_until

pytestmark = [pytest.mark.real, pytest.mark.faults]
FAULTS = 50
PERIOD = 0.3
LOSE = "for _, k in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', k) end"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterProcesses]:
    with cluster_processes(timeout_ms=500) as made:
        yield made


async def until(claim: Callable[[], bool], what: str, patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def whole(cluster: ClusterProcesses) -> None:
    await asyncio.to_thread(wait_until, cluster.whole, "a whole cluster")


async def test_36_a_subscribers_node_dies_and_it_hears_again_soon(cluster: ClusterProcesses) -> None:
    notices: list[Notice] = []
    heard: list[int] = []
    async with (
        await connect(cluster.addresses) as client,
        Subscriber(client, on_notice=notices.append) as subscriber,
    ):
        await subscriber.subscribe("a", lambda message: heard.append(message.data))
        await Publisher(client).publish("a", 1)
        n = cluster.place(next(iter(subscriber._ears._ears)))
        await until(lambda: heard == [1], "heard")
        begun = time.monotonic()
        await asyncio.to_thread(cluster.kill, n)
        await until(lambda: len(notices) == 1, "recovered")
        await subscriber.subscribe("a", lambda message: heard.append(message.data), after=subscriber.position("a"))
        took = time.monotonic() - begun
        await Publisher(client).publish("a", 2)
        await until(lambda: heard == [1, 2], "heard again")
    await asyncio.to_thread(cluster.restart, n)
    await whole(cluster)
    # sharded, it waits for the election: node timeout 0.5 s, and up to 1 s until the votes are in
    assert took < 4


@pytest.mark.parametrize("fault", ["kill", "hang"])
@pytest.mark.parametrize("version", find_servers())
async def test_36_a_subscriber_waits_for_no_election(version: str, fault: str) -> None:
    """There is none for half a minute here, and one who waited for it would be late."""
    notices: list[Notice] = []
    heard: list[int] = []
    with cluster_processes(version=version, timeout_ms=30_000) as slow:
        async with (
            await connect(slow.addresses) as client,
            Subscriber(client, on_notice=notices.append) as subscriber,
        ):
            await subscriber.subscribe("a", lambda message: heard.append(message.data))
            await Publisher(client).publish("a", 1)
            await until(lambda: heard == [1], "heard")
            place = slow.place(next(iter(subscriber._ears._ears)))
            owner = slow.owner(feed_of("a").slot)
            begun = time.monotonic()
            await asyncio.to_thread(slow.servers[place].kill, signal.SIGSTOP if fault == "hang" else signal.SIGKILL)
            await until(lambda: notices == [Notice("recovered")], "recovered", 15)
            await subscriber.subscribe(
                "a", lambda message: heard.append(message.data), after=subscriber.position("a"), timeout=15
            )
            took = time.monotonic() - begun
            print(f"{version} {fault}: subscribed again after {took:.2f} s")
            assert took < 20, "not as long as an election takes here"
            assert slow.place(next(iter(subscriber._ears._ears))) != place
            if fault == "hang":
                await asyncio.to_thread(slow.servers[place].kill, signal.SIGCONT)
            elif place == owner:
                return  # nobody can publish there until somebody is elected
            await Publisher(client, timeout=20).publish("a", 2)
            await until(lambda: heard[-1:] == [2], "heard again")


async def test_37_many_that_see_the_same_failure_ask_the_database_little(cluster: ClusterProcesses) -> None:
    """The processes are simulated: 200 on one client, with a connection each for the news."""
    async with (
        await connect(cluster.addresses) as looking,
        await connect(cluster.addresses) as shared,
        running(Detector(looking, name="one", period=PERIOD)),
    ):
        many = [Availability(shared, period=PERIOD) for _ in range(200)]
        async with contextlib.AsyncExitStack() as stack:
            for one in many:
                await stack.enter_async_context(running(one))
            await until(lambda: all(one.generation for one in many), "all have heard")
            before = many[0].generation
            reads = sum(one.reads for one in many)
            for one in many:
                one.hint("a connection was lost")
            n = cluster.owner(place_of("x", None).slot)
            await asyncio.to_thread(cluster.fail_over, n)
            await until(lambda: all(one.generation > before for one in many), "all have heard again")

            assert sum(one.hints for one in many) <= 200
            assert sum(one.reads for one in many) - reads <= 20
    await whole(cluster)


async def test_38_a_node_that_listeners_use_leaves_and_the_gap_is_reported(cluster: ClusterProcesses) -> None:
    """Its slot moves away; meanwhile the log is cut shorter than what was missed."""
    notices: list[Notice] = []
    feed = feed_of("shrinks")
    source = cluster.owner(feed.slot)
    primaries = [cluster.place(one.address) for one in cluster.view(source).primaries]
    target = next(n for n in primaries if n != source)
    async with (
        await connect(cluster.addresses) as client,
        Subscriber(client, on_notice=notices.append) as subscriber,
    ):
        publisher = Publisher(client)
        await subscriber.subscribe("shrinks", print)
        first = await publisher.publish("shrinks", 0)
        await until(lambda: subscriber.position("shrinks") == first, "heard")
        await asyncio.to_thread(cluster.move_slot, feed.slot, source, target)
        await until(lambda: notices == [Notice("recovered")], "recovered")
        for n in range(5):
            await publisher.publish("shrinks", n)
        await client.execute("XTRIM", feed.log, "MAXLEN", 2)
        await subscriber.subscribe("shrinks", print, after=first)
        await until(lambda: notices[1:] == [Notice("resynchronise", "shrinks")], "told of the gap")
    await asyncio.to_thread(cluster.move_slot, feed.slot, target, source)


async def test_the_whole_cluster_goes_down_and_comes_back_empty_and_everything_is_restored(
    cluster: ClusterProcesses,
) -> None:
    async with (
        await connect(cluster.addresses) as looking,
        running(Detector(looking, name="one", period=PERIOD)),
        mirroring(cluster, "north") as (north, northern),
        mirroring(cluster, "south") as (south, southern),
    ):
        for n in range(20):
            await north.put("ports", f"north-{n}", b"1")
            await south.put("ports", f"south-{n}", b"2")
        await until(lambda: northern.health.generation > 0 and not northern.health.dirty, "the first resync")
        generation = northern.health.generation
        for n in cluster.alive:
            await asyncio.to_thread(cluster.kill, n)
        for n in range(len(cluster.servers)):
            await asyncio.to_thread(cluster.restart, n)
        await until(lambda: northern.health.generation > generation, "a new generation", 40)
        await until(lambda: not northern.health.dirty and not southern.health.dirty, "resynchronised", 40)

        stored = await looking.send(place_of("ports", None).slot, ("HGETALL", place_of("ports", None).entries))
        assert len(stored) == 40
        assert {key.decode(): value for key, value in stored.items()} == north.entries("ports")
        await until(lambda: south.entries("ports") == north.entries("ports"), "the same on both sides")
    await whole(cluster)


async def test_a_primary_that_was_cut_off_and_returns_does_not_lead_back(cluster: ClusterProcesses) -> None:
    """Stopped until another was elected, it wakes up with the old view and the old role."""
    async with await connect(cluster.addresses) as client:
        n = cluster.owner(slot_of(b"k"))
        await client.execute("SET", "k", 0)
        cluster.servers[n].kill(signal.SIGSTOP)
        for number in range(1, 60):
            await client.execute("SET", "k", number, retry="always", timeout=15)
            if number == 5:
                cluster.servers[n].kill(signal.SIGCONT)
        await whole(cluster)

        assert await client.execute("GET", "k") == b"59"
        assert client.owner(slot_of(b"k")) != cluster.servers[n].address


@pytest.fixture
def growing() -> Iterator[ClusterProcesses]:
    """One of its own: a node that has left stays away."""
    with cluster_processes(timeout_ms=500) as made:
        yield made


async def test_both_sides_stay_the_same_while_the_cluster_grows_moves_their_table_and_shrinks(
    growing: ClusterProcesses,
) -> None:
    cluster = growing
    slot = place_of("ports", None).slot
    dice = random.Random(7)
    async with (
        await connect(cluster.addresses) as looking,
        running(Detector(looking, name="one", period=PERIOD)),
        mirroring(cluster, "north") as (north, northern),
        mirroring(cluster, "south") as (south, southern),
    ):
        await until(lambda: northern.health.generation > 0 and not northern.health.dirty, "the first resync")
        source, stop = cluster.owner(slot), asyncio.Event()

        async def go_on_changing() -> None:
            while not stop.is_set():
                await asyncio.gather(*(change(side, dice) for side in (north, south)))
                await asyncio.sleep(0.005)

        changing = asyncio.create_task(go_on_changing())
        members = [n for n in range(len(cluster.servers)) if cluster.servers[n].running]
        new = await asyncio.to_thread(cluster.add)
        await asyncio.to_thread(cluster.meet, *members, new)
        await whole(cluster)
        await asyncio.to_thread(cluster.move_slot, slot, source, new)
        address = cluster.servers[new].address
        for side in (north, south):
            await until(lambda side=side: side._door.owner(slot) == address, "the new owner is known")  # type: ignore[misc]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(cluster.move_slot, slot, new, source)
        await asyncio.sleep(0.5)
        stop.set()
        await changing
        await asyncio.to_thread(cluster.remove, new)
        await whole(cluster)
        generation = max(northern.health.generation, southern.health.generation) + 1
        for keeper in (northern, southern):
            keeper.hear(generation)
        await until(lambda: not northern.health.dirty and not southern.health.dirty, "resynchronised", 40)

        owned = {key: value for side in (north, south) for key, value in mine(side).items()}
        stored = await looking.send(slot, ("HGETALL", place_of("ports", None).entries), retry="always")
        assert owned
        assert {key.decode(): value for key, value in stored.items()} == owned
        assert north.entries("ports") == south.entries("ports") == owned
        assert address not in north._door.primaries  # type: ignore[attr-defined]


# --- many ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(service: Detector | Availability | Keeper) -> AsyncIterator[None]:
    task = asyncio.create_task(service.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def mirroring(cluster: ClusterProcesses, owner: str) -> AsyncIterator[tuple[Mirror, Keeper]]:
    """A process: a mirror, who keeps it, and who hears."""
    client = await connect(cluster.addresses)
    mirror = Mirror(client, owner=owner, tables=["ports"], timeout=1.0)
    keeper = Keeper(client, mirror, authorities=["north", "south"], patience=5.0)
    availability = Availability(client, on_generation=keeper.hear, period=PERIOD)

    async def again(notice: Notice) -> None:
        channel = mirror.channels[0]
        if notice.kind == "recovered":
            with contextlib.suppress(Unavailable, OutcomeUnknown, ServerError):
                await subscriber.subscribe(channel, mirror.hear, after=subscriber.position(channel), timeout=20)

    async with client, running(keeper), running(availability), Subscriber(client, on_notice=again) as subscriber:
        await subscriber.subscribe(mirror.channels[0], mirror.hear)
        yield mirror, keeper


async def change(mirror: Mirror, dice: random.Random) -> None:
    key = f"{mirror.owner}-{dice.randrange(40)}"
    with contextlib.suppress(Unavailable, OutcomeUnknown, Refused, ServerError):
        if dice.random() < 0.25:
            await mirror.drop("ports", key)
        else:
            await mirror.put("ports", key, b"%d" % dice.randrange(10**6))


async def hurt(cluster: ClusterProcesses, dice: random.Random) -> None:
    """One fault of the table's shard, mostly one that loses data; whole again afterwards."""
    n = cluster.owner(place_of("ports", None).slot)
    match dice.choice(["empty", "empty", "empty", "stop", "loss", "loss"]):
        case "empty":  # killed, and back at once without its data
            await asyncio.to_thread(cluster.kill, n)
            await asyncio.to_thread(cluster.restart, n)
        case "stop":
            cluster.servers[n].kill(signal.SIGSTOP)
            await asyncio.sleep(0.2)
            cluster.servers[n].kill(signal.SIGCONT)
        case "loss":  # entries vanish, as with a replica that lagged, and its digests with them
            cluster.order(n, "EVAL", LOSE, 0, place_of("ports", None).entries + b"*")


async def test_after_fifty_faults_both_sides_and_the_database_have_the_same(cluster: ClusterProcesses) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    dice = random.Random(seed)
    async with (
        await connect(cluster.addresses) as looking,
        running(Detector(looking, name="one", period=PERIOD)),
        mirroring(cluster, "north") as (north, northern),
        mirroring(cluster, "south") as (south, southern),
    ):
        for _ in range(FAULTS):
            await asyncio.gather(*(change(side, dice) for side in (north, south) for _ in range(4)))
            await asyncio.gather(hurt(cluster, dice), *(change(side, dice) for side in (north, south)))
        await whole(cluster)
        owned = {key: value for side in (north, south) for key, value in mine(side).items()}
        for _ in range(2):  # the last fault may have been none that anybody could see
            generation = max(northern.health.generation, southern.health.generation) + 1
            for keeper in (northern, southern):
                keeper.hear(generation)
            await until(lambda: not northern.health.dirty and not southern.health.dirty, "resynchronised", 40)

        stored = await looking.send(place_of("ports", None).slot, ("HGETALL", place_of("ports", None).entries))
        assert north.entries("ports") == south.entries("ports") == owned
        assert {key.decode(): value for key, value in stored.items()} == owned


def mine(mirror: Mirror) -> dict[str, bytes]:
    metas = mirror.metas("ports")
    return {key: value for key, value in mirror.entries("ports").items() if metas[key].owner == mirror.owner}

"""One detector among several, many controllers, and both sides of the data, while the cluster changes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from redkeep.decide.consistency import digest, make_entry
from redkeep.northbound import Availability, Detector, Keeper, Mirror, Report, Subscriber, connect
from redkeep.northbound.cluster import ClusterClient
from redkeep.northbound.detector import SLOT, STATE
from redkeep.northbound.places import place_of
from redkeep.redis.versions import find_servers
from redkeep.testing.clusters import ClusterProcesses, cluster_processes, wait_until

pytestmark = pytest.mark.real
PERIOD = 0.3


@pytest.fixture(scope="module", params=find_servers())
def cluster(request: pytest.FixtureRequest) -> Iterator[ClusterProcesses]:
    with cluster_processes(version=request.param) as made:
        yield made


async def until(claim: Callable[[], bool], patience: float = 15.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


async def whole(cluster: ClusterProcesses) -> None:
    await asyncio.to_thread(wait_until, cluster.whole, "a whole cluster")


@dataclass
class Controller:
    """As it is in each process of an application."""

    client: ClusterClient
    availability: Availability
    generations: list[int]
    reads_at_start: int = 0


@dataclass
class Site:
    """Detectors and controllers on one cluster."""

    cluster: ClusterProcesses
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    clients: list[ClusterClient] = field(default_factory=list)
    detectors: list[Detector] = field(default_factory=list)
    controllers: list[Controller] = field(default_factory=list)

    async def client(self) -> ClusterClient:
        client = await connect(self.cluster.addresses)
        assert isinstance(client, ClusterClient)
        self.clients.append(client)
        return client

    async def detector(self, name: str) -> asyncio.Task[None]:
        self.detectors.append(Detector(await self.client(), name=name, period=PERIOD))
        self.tasks.append(asyncio.create_task(self.detectors[-1].run()))
        return self.tasks[-1]

    async def controller(self) -> Controller:
        generations: list[int] = []
        client = await self.client()
        made = Controller(client, Availability(client, on_generation=generations.append, period=PERIOD), generations)
        self.tasks.append(asyncio.create_task(made.availability.run()))
        self.controllers.append(made)
        return made

    async def settle(self) -> None:
        """Until all controllers have heard of the present generation."""
        await until(lambda: any(detector.generation for detector in self.detectors))
        newest = max(detector.generation for detector in self.detectors)
        await until(lambda: all(one.availability.generation >= newest for one in self.controllers))
        for one in self.controllers:
            one.reads_at_start = one.client.reads

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for client in self.clients:
            await client.close()


@asynccontextmanager
async def site(cluster: ClusterProcesses, controllers: int) -> AsyncIterator[Site]:
    made = Site(cluster)
    try:
        await made.detector("one")
        for _ in range(controllers):
            await made.controller()
        await made.settle()
        yield made
    finally:
        await made.close()


async def test_a_failover_without_a_lost_connection_reaches_all_and_none_of_them_reads(
    cluster: ClusterProcesses,
) -> None:
    async with site(cluster, 5) as made:
        before = made.controllers[0].availability.generation
        n = cluster.owner(SLOT)
        successor = await asyncio.to_thread(cluster.fail_over, n)
        address = cluster.servers[successor].address
        await until(lambda: all(one.client.owner(SLOT) == address for one in made.controllers))
        await until(lambda: all(one.availability.generation == before + 1 for one in made.controllers))

        assert all(one.generations[-1:] == [before + 1] for one in made.controllers)
        assert [one.client.reads - one.reads_at_start for one in made.controllers] == [0] * 5
        assert [one.availability.reads for one in made.controllers] == [1] * 5
    await whole(cluster)


async def test_the_death_of_a_primary_is_told_once_and_a_hint_makes_the_detector_look(
    cluster: ClusterProcesses,
) -> None:
    async with site(cluster, 3) as made:
        before = made.controllers[0].availability.generation
        n = cluster.owner(0)
        await asyncio.to_thread(cluster.kill, n)
        await until(lambda: all(one.availability.generation > before for one in made.controllers))
        for one in made.controllers:
            await one.client.execute("SET", "k", 1, timeout=15)

        assert all(one.generations.count(before + 1) == 1 for one in made.controllers)
        assert sum(one.availability.hints for one in made.controllers) > 0
        assert all(cluster.servers[n].address not in one.client.primaries for one in made.controllers)
    await asyncio.to_thread(cluster.restart, n)
    await whole(cluster)


async def test_a_primary_that_came_back_at_once_and_empty_is_a_new_generation(cluster: ClusterProcesses) -> None:
    """The topology is the same: only the run of the process tells."""
    async with site(cluster, 1) as made:
        before = made.controllers[0].availability.generation
        n = cluster.owner(8000)
        await asyncio.to_thread(cluster.kill, n)
        await asyncio.to_thread(cluster.restart, n)

        await until(lambda: made.controllers[0].availability.generation > before)
    await whole(cluster)


async def test_one_of_several_detectors_leads_and_another_takes_over(cluster: ClusterProcesses) -> None:
    made = Site(cluster)
    try:
        first = await made.detector("a")
        await until(lambda: made.detectors[0].leads)
        await made.detector("b")
        await until(lambda: made.detectors[0].looks > 3)
        assert not made.detectors[1].looks
        first.cancel()
        await until(lambda: made.detectors[1].looks > 1)
    finally:
        await made.close()


async def test_a_lost_announcement_is_made_good_by_the_next_heartbeat(cluster: ClusterProcesses) -> None:
    async with site(cluster, 1) as made:
        one = made.controllers[0]

        def forgets_until_it_reads() -> bool:  # again, since an announcement in full may come just then
            if one.availability.reads < 2:
                one.availability._digest = "something older"
            return one.availability.reads >= 2

        await until(forgets_until_it_reads)
        await until(lambda: one.availability._digest != "something older")
        assert one.generations == [one.availability.generation]


async def test_the_state_survives_who_wrote_it(cluster: ClusterProcesses) -> None:
    async with site(cluster, 1) as made:
        generation = made.controllers[0].availability.generation
    async with site(cluster, 1) as again:
        assert again.controllers[0].availability.generation == generation
        assert await again.clients[0].send(SLOT, ("HGET", STATE, b"generation")) == b"%d" % generation


# --- consistency -----------------------------------------------------------------------------------------------------


@dataclass
class Side:
    """A process with a mirror of the table."""

    mirror: Mirror
    keeper: Keeper
    subscriber: Subscriber
    reports: list[Report]


@asynccontextmanager
async def side(client: ClusterClient, owner: str) -> AsyncIterator[Side]:
    mirror = Mirror(client, owner=owner, tables=["ports"])
    reports: list[Report] = []
    keeper = Keeper(
        client,
        mirror,
        authorities=["north", "south"],
        patience=2.0,
        on_clean=lambda _, report: reports.append(report),
    )
    task = asyncio.create_task(keeper.run())
    async with Subscriber(client) as subscriber:
        await subscriber.subscribe(mirror.channels[0], mirror.hear)
        yield Side(mirror, keeper, subscriber, reports)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_after_a_loss_each_side_pushes_what_it_owns_and_takes_what_it_lacks(cluster: ClusterProcesses) -> None:
    async with (
        await connect(cluster.addresses) as one,
        await connect(cluster.addresses) as other,
    ):
        assert isinstance(one, ClusterClient)
        assert isinstance(other, ClusterClient)
        async with side(one, "north") as north, side(other, "south") as south:
            for n in range(30):
                await north.mirror.put("ports", f"n{n}", b"of north")
                await south.mirror.put("ports", f"s{n}", b"of south")
            await north.mirror.drop("ports", "n0")
            await until(lambda: len(south.mirror.entries("ports")) == len(north.mirror.entries("ports")) == 59)
            n = cluster.owner(place_of("ports", None).slot)
            cluster.client(n).flushall()  # everything is lost
            south.keeper.hear(7)
            north.keeper.hear(7)
            south.keeper.hear(7)
            await until(lambda: not north.keeper.health.dirty and not south.keeper.health.dirty)

            assert north.mirror.entries("ports") == south.mirror.entries("ports")
            assert len(north.mirror.entries("ports")) == 59
            stored = await one.send(place_of("ports", None).slot, ("HGETALL", place_of("ports", None).entries))
            assert {key.decode(): value for key, value in stored.items()} == north.mirror.entries("ports")
            assert (north.reports[0].pushed, south.reports[0].pushed) == (29, 30)
            assert north.keeper.resyncs == south.keeper.resyncs == 1, "once for a generation"
            digests = await one.send(
                place_of("ports", None).slot, ("HGETALL", place_of("ports", None).beside("digests"))
            )
            found = {int(leaf): int(total) for leaf, total in digests.items() if int(total)}
            assert found == digest(north.mirror.metas("ports").items())


async def test_only_what_differs_travels(cluster: ClusterProcesses) -> None:
    async with await connect(cluster.addresses) as client:
        north = Mirror(client, owner="north", tables=["many"])
        for n in range(500):
            north._local["many"].put(f"k{n}", make_entry(f"k{n}", b"v", 1, "north"))
        first = await north.push()
        assert first.pushed == 500

        for n in range(5):
            north._local["many"].put(f"k{n}", make_entry(f"k{n}", b"w", 2, "north"))
        north._local["many"].drop("k499")
        second = await north.push()
        assert (second.pushed, second.dropped) == (5, 1)
        assert (await north.push()).changes == 0
        south = Mirror(client, owner="south", tables=["many"])
        assert (await south.load()).taken == 499
        assert south.entries("many") == north.entries("many")

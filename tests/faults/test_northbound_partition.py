"""Faults 11 and 13 for the driver: a minority that is cut off with its own clients, and a primary that nobody hears."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from redkeep.model.slots import slot_of
from redkeep.northbound import Availability, Client, Detector, Keeper, Mirror, connect
from redkeep.northbound.places import place_of
from redkeep.testing.clusters import ClusterProcesses, cluster_processes, wait_until
from redkeep.testing.netns import Net, Unsupported, net

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.timeout(300)]
PERIOD = 0.3
SLOT = place_of("ports", None).slot

SOUTH = """
import asyncio, json, sys
from redkeep.errors import RedkeepError
from redkeep.northbound import Availability, Keeper, Mirror, connect

async def main(seeds):
    async with await connect(seeds) as client:
        mirror = Mirror(client, owner="south", tables=["ports"], timeout=0.5)
        keeper = Keeper(client, mirror, authorities=["north", "south"], patience=5.0)
        availability = Availability(client, on_generation=keeper.hear, period=0.3)
        tasks = [asyncio.create_task(one.run()) for one in (keeper, availability)]
        told = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        counts, number = {}, 0
        while not told.done():
            number += 1
            try:
                await mirror.put("ports", f"south-{number % 50}", b"%d" % number)
                said = "ok"
            except RedkeepError as error:
                said = type(error).__name__
            counts[said] = counts.get(said, 0) + 1
            if number == 1:
                print("begun", flush=True)
            await asyncio.sleep(0.01)
        entries = {key: value.decode() for key, value in mirror.entries("ports").items() if key.startswith("south")}
        print(json.dumps({"counts": counts, "entries": entries}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # goes on resynchronising until it is told a second time
        print(json.dumps({key: value.decode() for key, value in mirror.entries("ports").items()}), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

asyncio.run(main(sys.argv[1:]))
"""
"""A process on the cut-off side: it writes all the time, and resynchronises when it hears that it must."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Net]:
    try:
        with net(6) as found:
            yield found
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def cluster(hosts: Net) -> Iterator[ClusterProcesses]:
    with cluster_processes(net=hosts) as made:
        yield made


async def until(claim: Callable[[], bool], what: str, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def whole(cluster: ClusterProcesses) -> None:
    await asyncio.to_thread(wait_until, cluster.whole, "a whole cluster", 60.0)


@dataclass
class South:
    """The process of that name."""

    process: subprocess.Popen[str]

    def said(self) -> Any:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()


@asynccontextmanager
async def south_on(hosts: Net, host: int, seeds: list[str]) -> AsyncIterator[South]:
    process = subprocess.Popen(  # noqa: ASYNC220 (starting it takes no time)
        hosts.command(host, sys.executable, "-c", SOUTH, *seeds),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        south = South(process)
        assert (await asyncio.to_thread(south.said)).strip() == "begun"
        yield south
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


@asynccontextmanager
async def running(*services: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in services]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def stored(client: Client) -> dict[str, bytes]:
    found = await client.send(SLOT, ("HGETALL", place_of("ports", None).entries), retry="always", timeout=10)
    return {key.decode(): value for key, value in found.items()}


async def test_11_what_was_written_on_the_side_that_was_cut_off_is_restored_and_both_sides_agree(
    hosts: Net, cluster: ClusterProcesses
) -> None:
    """The table's primary, and a controller on its host, are cut off from the other five hosts, where the rest is."""
    await whole(cluster)
    old = cluster.owner(SLOT)
    seeds = [str(cluster.servers[old].address), *(str(one.address) for one in cluster.servers)]
    async with (
        await connect(cluster.addresses) as looking,
        await connect(cluster.addresses) as client,
        south_on(hosts, old + 1, seeds) as south,
    ):
        north = Mirror(client, owner="north", tables=["ports"], timeout=2.0)
        keeper = Keeper(client, north, authorities=["north", "south"], patience=5.0)
        availability = Availability(client, on_generation=keeper.hear, period=PERIOD)
        async with running(Detector(looking, name="one", period=PERIOD), keeper, availability):
            await until(lambda: availability.generation > 0 and not keeper.health.dirty, "the first resync")
            generation = availability.generation
            await asyncio.to_thread(hosts.cut, old + 1)
            try:
                await until(lambda: client.owner(SLOT) not in (None, cluster.servers[old].address), "another primary")
                for n in range(20):
                    await north.put("ports", f"north-{n}", b"%d" % n)
                await until(lambda: availability.generation > generation, "a generation")
                await asyncio.sleep(1.0)  # in which the other side finds nobody, or writes to whom nobody follows
            finally:
                await asyncio.to_thread(hosts.heal, old + 1)
            await whole(cluster)
            await asyncio.sleep(1.0)  # and writes again
            south.tell()
            theirs = json.loads(await asyncio.to_thread(south.said))

            def restored(found: dict[str, bytes]) -> bool:
                return bool(theirs["entries"].items() <= {key: value.decode() for key, value in found.items()}.items())

            await until(lambda: not keeper.health.dirty, "north is clean")
            deadline = time.monotonic() + 60
            while not restored(await stored(client)):
                assert time.monotonic() < deadline, "what south owns is restored"
                await asyncio.sleep(0.1)
            keeper.hear(availability.generation + 1)  # what south restored after north had looked
            await until(lambda: not keeper.health.dirty and restored(north.entries("ports")), "and north has it")
            south.tell()
            everything = json.loads(await asyncio.to_thread(south.said))

            assert theirs["counts"]["ok"] > 100
            assert theirs["counts"].keys() & {"Unavailable", "OutcomeUnknown"}, "it was cut off"
            assert await stored(client) == north.entries("ports")
            assert everything == {key: value.decode() for key, value in north.entries("ports").items()}
            assert len([key for key in everything if key.startswith("north")]) == 20


async def test_13_a_primary_that_hears_and_is_not_heard_is_replaced_once(hosts: Net, cluster: ClusterProcesses) -> None:
    await whole(cluster)
    slot = slot_of(b"k")
    old = cluster.owner(slot)
    async with await connect(cluster.addresses) as client:
        await client.execute("SET", "k", 0)
        await asyncio.to_thread(hosts.mute, old + 1)
        try:
            for number in range(1, 100):
                await client.execute("SET", "k", number, retry="always", timeout=30)
        finally:
            await asyncio.to_thread(hosts.unmute, old + 1)
        await whole(cluster)

        assert await client.execute("GET", "k", retry="always", timeout=20) == b"99"
        assert client.owner(slot) != cluster.servers[old].address

"""What detectors, controllers, mirrors and keepers promise, on every kind and version of server, both faces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from tests.contract.northbound_world import FACES, KINDS, VERSIONS, Servers, World

from redkeep import northbound
from redkeep.northbound import sync
from redkeep.northbound.places import place_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]
PERIOD = 0.3


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Servers]]:
    started: dict[str, Servers] = {}
    yield started
    for servers in started.values():
        servers.close()


@pytest.fixture(params=[f"{kind}-{version}-{face}" for kind in KINDS for version in VERSIONS for face in FACES])
async def world(request: pytest.FixtureRequest, running: dict[str, Servers]) -> AsyncIterator[World]:
    kind, version, face = request.param.split("-")
    name = f"{kind}-{version}"
    servers = running[name] = running.get(name) or Servers(kind, version)
    await asyncio.to_thread(servers.flush)
    made = World(face, servers)
    yield made
    await made.close()


async def until(claim: Callable[[], Any], what: str, patience: float = 40.0) -> None:
    deadline = time.monotonic() + patience
    while not await asyncio.to_thread(claim):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class Face:
    """Makes the same things of either face, and calls them the same way."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self.world = world
        self.stack = stack
        self.threads = world.face == "sync"

    async def client(self) -> Any:
        return await asyncio.to_thread(self.world.blocking) if self.threads else await self.world.client()

    async def started(self, kind: str, client: Any, *args: Any, **options: Any) -> Any:
        """A service, running until the end of the test."""
        if self.threads:
            made = await asyncio.to_thread(lambda: getattr(sync, kind)(client, *args, **options))
            self.stack.push_async_callback(asyncio.to_thread, made.close)
            return made
        made = getattr(northbound, kind)(client, *args, **options)
        await self.stack.enter_async_context(_running(made))
        return made

    async def mirror(self, client: Any, owner: str) -> Any:
        return (sync.Mirror if self.threads else northbound.Mirror)(client, owner=owner, tables=["ports"])

    async def call(self, method: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(method, *args) if self.threads else await method(*args)

    async def restart_empty(self) -> None:
        """The primary of the table is killed, and back at once without its data."""
        servers = self.world.servers
        assert servers is not None
        if servers.cluster is None:
            await asyncio.to_thread(servers.processes[0].kill)
            await asyncio.to_thread(servers.processes[0].start)
        else:
            n = await asyncio.to_thread(servers.cluster.owner, place_of("ports", None).slot)
            await asyncio.to_thread(servers.cluster.kill, n)
            await asyncio.to_thread(servers.cluster.restart, n)


@asynccontextmanager
async def _running(service: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(service.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_loss_is_told_once_and_both_sides_restore_what_they_own(world: World) -> None:
    async with AsyncExitStack() as stack:
        face = Face(world, stack)
        await face.started("Detector", await face.client(), name="one", period=PERIOD)
        sides, generations = [], list[int]()
        for owner in ("north", "south"):
            client = await face.client()
            mirror = await face.mirror(client, owner)
            await face.call(mirror.load)
            keeper = await face.started("Keeper", client, mirror, authorities=["north", "south"], patience=10.0)
            told = generations.append if owner == "north" else print

            def hear(generation: int, keeper: Any = keeper, told: Callable[[int], Any] = told) -> None:
                told(generation)
                keeper.hear(generation)

            availability = await face.started("Availability", client, on_generation=hear, period=PERIOD)
            sides.append((mirror, keeper, availability))
        await until(lambda: all(a.generation and not k.health.dirty for _, k, a in sides), "the first generation")
        for n in range(20):
            for mirror, *_ in sides:
                await face.call(mirror.put, "ports", f"{mirror.owner}-{n}", b"%d" % n)
        before = sides[0][2].generation
        await face.restart_empty()

        await until(lambda: all(k.health.generation > before and not k.health.dirty for _, k, _ in sides), "restored")
        await until(lambda: all(len(mirror.entries("ports")) == 40 for mirror, *_ in sides), "all on both sides")
        inspecting = await world.client()
        stored = await inspecting.send(place_of("ports", None).slot, ("HGETALL", place_of("ports", None).entries))
        assert {key.decode(): value for key, value in stored.items()} == sides[0][0].entries("ports")
        assert sides[0][0].entries("ports") == sides[1][0].entries("ports")
        assert len(generations) == len(set(generations)), "each generation once"


async def test_a_detector_leads_alone_and_another_takes_over(world: World) -> None:
    async with AsyncExitStack() as stack:
        face = Face(world, stack)
        async with AsyncExitStack() as first_stack:
            face.stack = first_stack
            first = await face.started("Detector", await face.client(), name="one", period=PERIOD)
            await until(lambda: first.generation, "a generation")
            face.stack = stack
            second = await face.started("Detector", await face.client(), name="two", period=PERIOD)
            inner = first.inner if face.threads else first
            looks = inner.looks
            await until(lambda: inner.looks > looks + 3, "the first goes on")
            assert second.generation == 0
        await until(lambda: second.generation, "the second leads")

        assert second.generation == first.generation, "nothing was lost: no new generation"


@pytest.mark.parametrize("version", VERSIONS)
async def test_thirty_controllers_hear_news_from_three_nodes_ten_from_each(
    version: str, running: dict[str, Servers]
) -> None:
    """Also where other messages stay in their shard: news go to every node."""
    name = f"cluster-{version}"
    servers = running[name] = running.get(name) or Servers("cluster", version)
    await asyncio.to_thread(servers.flush)
    assert servers.cluster is not None
    cluster = servers.cluster

    def listeners() -> list[int]:
        found = []
        for n in cluster.alive:
            with cluster.servers[n].client() as admin:
                found.append(len([one for one in admin.client_list() if one["name"] == name and int(one["sub"])]))
        return sorted(found)

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await northbound.connect(servers.seeds, name=name))
        for _ in range(30):
            await stack.enter_async_context(_running(northbound.Availability(client, period=60.0)))
        await until(lambda: sum(listeners()) == 30, "all listen")

        assert listeners() == [0, 0, 0, 10, 10, 10]

"""A client of the twin: for publishers and subscribers in tests of applications, with faults to order.

    twin = MemoryDoor()
    client = MemoryClient(twin)
    subscriber = Subscriber(client)

`redkeep.northbound.sync.connect_twin` is the same for threads. Subscribing, queueing, catching up and recovering are
those of the product: the twin only stands for servers and connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redkeep.decide.routing import Retry
from redkeep.errors import Unavailable
from redkeep.model.topology import Address, Topology
from redkeep.northbound.client import TIMEOUT, Client, Command
from redkeep.northbound.ears import Ear
from redkeep.northbound.memory_tables import MemoryDoor
from redkeep.northbound.nodes import Node
from redkeep.northbound.places import Feed
from redkeep.northbound.wire import Login, Reply, ServerError

HERE = Address("127.0.0.1", 1)
"""Where the twin claims to be. Nothing is ever opened there."""


class MemoryEar(Ear):
    """What hears of the twin in one event loop."""

    def __init__(
        self, door: MemoryDoor, on_push: Callable[[Ear, Sequence[Any]], None], on_lost: Callable[[Ear], None]
    ) -> None:
        super().__init__(HERE)
        self.feeds: set[bytes] = set()
        self._loop = asyncio.get_running_loop()
        self._door = door
        self._on_push = on_push
        self._on_lost = on_lost
        self._open = True
        door.listeners.add(self.hear)

    @property
    def alive(self) -> bool:
        return self._open

    def hear(self, live: bytes, payload: bytes) -> None:
        """From any thread. Without a payload the connection is lost."""
        self._loop.call_soon_threadsafe(self._pass_on if payload else self._break, live, payload)

    def _pass_on(self, live: bytes, payload: bytes) -> None:
        if self._open and live in self.feeds:
            self._on_push(self, [b"message", live, payload])

    def _break(self, *_: bytes) -> None:
        if self._open:
            self.close()
            self._on_lost(self)

    def close(self) -> None:
        self._open = False
        self._door.listeners.discard(self.hear)


class MemoryEars:
    """As `ears.Ears`."""

    def __init__(
        self, client: Client, *, on_push: Callable[[Ear, Sequence[Any]], None], on_lost: Callable[[Ear], None]
    ) -> None:
        assert isinstance(client, MemoryClient)  # noqa: S101 (it makes them itself)
        self._door = client.door
        self._on_push = on_push
        self._on_lost = on_lost
        self._ear: MemoryEar | None = None

    async def subscribe(self, feed: Feed, deadline: float) -> Ear:
        while True:
            try:
                ear = await self.open_for(feed)
            except Unavailable:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(0.01)
            else:
                ear.feeds.add(feed.live)
                return ear

    def unsubscribe(self, feed: Feed, ear: Ear) -> None:
        assert isinstance(ear, MemoryEar)  # noqa: S101 (there are no others here)
        ear.feeds.discard(feed.live)

    async def open_for(self, feed: Feed, avoid: Address | None = None) -> MemoryEar:  # noqa: ARG002 (there is one node)
        if not self._door.available:
            raise Unavailable("the twin is away")
        if self._ear is None or not self._ear.alive:
            self._ear = MemoryEar(self._door, self._on_push, self._on_lost)
        return self._ear

    def drop(self, ear: Ear) -> None:
        ear.close()

    def drop_all(self, failed: Ear) -> None:
        failed.close()
        self.close()

    def close(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None


class MemoryClient(Client):
    """One server that is always there, unless a test says otherwise by the names of its `door`."""

    hearing = MemoryEars

    def __init__(self, door: MemoryDoor) -> None:
        super().__init__(Login())
        self.door = door

    @property
    def mode(self) -> str:
        return "single"

    @property
    def topology(self) -> Topology:
        return Topology("", 0, HERE, ())

    @property
    def primaries(self) -> tuple[Address, ...]:
        return (HERE,)

    def owner(self, slot: int) -> Address | None:  # noqa: ARG002 (one has all)
        return HERE

    async def ready(self, timeout: float) -> None:
        """It is."""

    async def send(self, slot: int, args: Command, *, retry: Retry = "if_not_run", timeout: float = TIMEOUT) -> Reply:
        await asyncio.sleep(0)
        return await self.door.send(slot, args, retry=retry, timeout=timeout)

    async def send_many(
        self, slot: int, commands: Sequence[Command], *, retry: Retry = "if_not_run", timeout: float = TIMEOUT
    ) -> list[Reply]:
        return await self.door.send_many(slot, commands, retry=retry, timeout=timeout)

    def _slot(self, args: Command) -> int:  # noqa: ARG002 (no slots here)
        return 0

    def _node(self, slot: int) -> Node | None:  # noqa: ARG002 (no connections here)
        return None

    def _met(self, node: Node | None, error: ServerError, *, moved: bool, slot: int) -> Node | None:  # noqa: ARG002
        return None

    def _want_look(self) -> None:
        """Nothing ever moves."""

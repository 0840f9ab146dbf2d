"""The connections of a subscriber: to the owner of each channel where messages stay within a shard, else to one node.

Which one node is settled by a counter in Redis, so that the connections of all processes are spread evenly.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.client import Client
from redkeep.northbound.link import Pause
from redkeep.northbound.places import SPACE, Feed
from redkeep.northbound.wire import Connection, ServerError

log = logging.getLogger(__name__)

COUNTER = SPACE + "listeners"
PING_EVERY = 0.75
PING_TIMEOUT = 0.75
"""Seconds: a hung server is found after at most the sum of both."""


class Ear:
    """One connection that hears."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.connection: Connection | None = None
        self.watch: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self.connection is not None and self.connection.alive

    def close(self) -> None:
        if self.watch is not None:
            self.watch.cancel()
        if self.connection is not None:
            self.connection.abort()


class Ears:
    """All connections of one subscriber. `on_lost` is called once for each that breaks by itself."""

    def __init__(
        self, client: Client, *, on_push: Callable[[Ear, Sequence[Any]], None], on_lost: Callable[[Ear], None]
    ) -> None:
        self._client = client
        self._on_push = on_push
        self._on_lost = on_lost
        self._ears: dict[Address, Ear] = {}
        self._avoid: Address | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def subscribe(self, feed: Feed, deadline: float) -> Ear:
        """A connection that hears this feed, confirmed. Raises Unavailable after `deadline` (loop time)."""
        loop, pause = asyncio.get_running_loop(), Pause()
        while True:
            try:
                ear = await self.open_for(feed)
                assert ear.connection is not None  # noqa: S101 (just opened)
                command = "SSUBSCRIBE" if self._client.sharded else "SUBSCRIBE"
                await ear.connection.send(command, feed.live, timeout=max(0.01, deadline - loop.time()))
            except ServerError as error:
                if error.code not in ("MOVED", "CLUSTERDOWN", "LOADING", "MASTERDOWN"):
                    raise
                failure: Exception = error
                self._client.doubt(f"SSUBSCRIBE: {error}")
            except (Unavailable, OutcomeUnknown) as error:
                failure = error
                self._client.doubt(f"subscribing: {error}")
            else:
                return ear
            if loop.time() >= deadline or self._closed:
                raise Unavailable(f"not subscribed to {feed.channel}: {failure}") from failure
            await pause.sleep()

    def unsubscribe(self, feed: Feed, ear: Ear) -> None:
        if ear.connection is not None and ear.alive:
            ear.connection.tell("SUNSUBSCRIBE" if self._client.sharded else "UNSUBSCRIBE", feed.live)

    async def open_for(self, feed: Feed, avoid: Address | None = None) -> Ear:
        """The connection for that feed. Raises Unavailable or ServerError."""
        self._avoid = avoid or self._avoid
        async with self._opening:
            if self._client.sharded:
                address = self._client.owner(feed.slot)
            else:
                address = next((known for known, ear in self._ears.items() if ear.alive), None)
                address = address or await choose_node(self._client, self._avoid)
            if address is None or self._closed:
                raise Unavailable("no node is known to hear from")
            ear = self._ears.get(address)
            if ear is None or not ear.alive:
                ear = self._ears[address] = await self._open(address)
            return ear

    async def _open(self, address: Address) -> Ear:
        ear = Ear(address)
        ear.connection = await Connection.open(
            address,
            self._client.login,
            on_push=partial(self._on_push, ear),
            on_lost=lambda: self._broke(ear),
        )
        ear.watch = asyncio.create_task(self._watch(ear.connection))
        return ear

    async def _watch(self, connection: Connection) -> None:
        """A server that no longer answers is as good as gone."""
        while connection.alive:
            await asyncio.sleep(PING_EVERY)
            try:
                await connection.send("PING", timeout=PING_TIMEOUT)
            except (Unavailable, OutcomeUnknown) as error:
                connection.abort(f"hung: {error}")
            except ServerError as error:  # as while it loads
                log.debug("%s: %s", connection.address, error)

    def _broke(self, ear: Ear) -> None:
        if self._ears.get(ear.address) is ear:
            self._on_lost(ear)

    def drop(self, ear: Ear) -> None:
        if self._ears.get(ear.address) is ear:
            del self._ears[ear.address]
        ear.close()

    def drop_all(self, failed: Ear) -> None:
        """Every subscription is void: so are the connections, of which `failed` is to be avoided for now."""
        self._avoid = failed.address
        ears, self._ears = [*self._ears.values(), failed], {}
        for ear in ears:
            ear.close()

    def close(self) -> None:
        self._closed = True
        ears, self._ears = list(self._ears.values()), {}
        for ear in ears:
            ear.close()


async def choose_node(client: Client, avoid: Address | None) -> Address | None:
    """The next in turn of those who may serve, without the one that has just failed if there are others."""
    primaries = client.primaries
    others = [address for address in primaries if address != avoid] or list(primaries)
    if len(others) < 2:
        return others[0] if others else None
    try:
        turn = await client.execute("INCR", COUNTER, retry="always", timeout=0.5)
    except (Unavailable, OutcomeUnknown):  # the counter's own shard is down: better uneven than deaf
        turn = random.randrange(len(others))  # noqa: S311 (spreads load)
    return others[int(turn) % len(others)]

"""The connections of a subscriber: to the owner of each channel where messages stay within a shard, else to one node.

Which one node is settled by a counter in Redis, so that the connections of all processes are spread evenly. When an
owner is gone its replicas are heard from, which takes no election: what is published later reaches them, too.
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
AVOIDED = 10.0
"""Seconds for which others are preferred to a node that has just failed."""


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
        self._failed: Address | None = None
        self._failed_at = 0.0
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
        if avoid is not None:
            self._avoid(avoid)
        async with self._opening:
            if self._closed:
                raise Unavailable("the subscriber is closed")
            return await self._open_first(await self._candidates(feed))

    async def _candidates(self, feed: Feed) -> list[Address]:
        """Whom to hear that feed from, the best first."""
        avoided = self._avoided
        if not self._client.sharded:
            here = next((known for known, ear in self._ears.items() if ear.alive), None)
            chosen = here or await choose_node(self._client, avoided)
            return [chosen] if chosen else []
        owner, others = self._client.owner(feed.slot), self._client.stand_ins(feed.slot)
        if owner is None:
            return others
        node = self._client.node_at(owner)
        fit = owner != avoided and node is not None and node.alive
        return [owner, *others] if fit else [*others, owner]

    async def _open_first(self, candidates: Sequence[Address]) -> Ear:
        failure: Unavailable = Unavailable("no node is known to hear from")
        for address in candidates:
            ear = self._ears.get(address)
            if ear is not None and ear.alive:
                return ear
            try:
                self._ears[address] = ear = await self._open(address)
            except Unavailable as error:
                failure = error
            else:
                return ear
        raise failure

    @property
    def _avoided(self) -> Address | None:
        return self._failed if asyncio.get_running_loop().time() - self._failed_at < AVOIDED else None

    def _avoid(self, address: Address) -> None:
        self._failed, self._failed_at = address, asyncio.get_running_loop().time()

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
        self._avoid(failed.address)
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
        patience = 0.5 if avoid is None else 0.2  # after a failure being heard again soon is worth more
        turn = await client.execute("INCR", COUNTER, retry="always", timeout=patience)
    except (Unavailable, OutcomeUnknown):  # the counter's own shard is down: better uneven than deaf
        turn = random.randrange(len(others))  # noqa: S311 (spreads load)
    return others[int(turn) % len(others)]

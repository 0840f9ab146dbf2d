"""A controller's end of it: hears what the detector announces, and tells it when something looks wrong here.

It reads the state once at the start, and again only when it has missed something. News moves the client's connections;
a new generation is passed on to whoever keeps data consistent. A MOVED or a lost connection becomes a hint, so that the
detector looks now: with jitter, once for many, and not at all when news came meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.slots import ClusterView
from redkeep.northbound.client import Client
from redkeep.northbound.detector import HA_TOPIC, HINT_TOPIC, HINTED, PERIOD, SLOT, STATE, TIMEOUT
from redkeep.northbound.ears import choose_node
from redkeep.northbound.link import Pause
from redkeep.northbound.scripts import HINT
from redkeep.northbound.wire import Connection, ServerError

log = logging.getLogger(__name__)

SILENCE = 4.0
"""Periods without news after which nobody is expected to announce anything, and the connection is made anew."""
HINT_JITTER = 0.03
"""Seconds within which a hint goes out."""
HINTS_APART_MS = 100


class Availability:
    """One per process. `on_generation` is called from the loop with each generation that was not heard of before."""

    def __init__(
        self, client: Client, *, on_generation: Callable[[int], Any] | None = None, period: float = PERIOD
    ) -> None:
        """`period` is the detector's."""
        self._client = client
        self._on_generation = on_generation
        self._period = period
        self._digest = ""
        self._heard_at = 0.0
        self._hinting: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self.generation = 0
        self.reads = 0
        """How often it has read the state."""
        self.hints = 0

    async def run(self) -> None:
        """Until cancelled."""
        self._client.on_trouble = self.hint
        pause, avoid = Pause(longest=0.5), None
        try:
            while True:
                try:
                    address = await choose_node(self._client, avoid)
                    if address is None:
                        raise Unavailable("no node is known to hear from")
                    avoid = address
                    await self._listen(await Connection.open(address, self._client.login, on_push=self._hear))
                    pause.reset()
                except (Unavailable, OutcomeUnknown, ServerError) as error:
                    log.info("hearing of changes: %s", error)
                await pause.sleep()
        finally:
            self._client.on_trouble = None
            for task in (self._hinting, self._reading):
                if task is not None:
                    task.cancel()

    async def _listen(self, connection: Connection) -> None:
        """Until the connection is lost, or so silent that it may as well be."""
        loop = asyncio.get_running_loop()
        try:
            await connection.send("SUBSCRIBE", HA_TOPIC, timeout=TIMEOUT)
            await self._read()
            self._heard_at = loop.time()
            while loop.time() - self._heard_at < SILENCE * self._period:
                lost = asyncio.create_task(connection.closed())
                await asyncio.wait([lost], timeout=self._period)
                if lost.done():
                    self.hint("lost the connection that news come over")
                    return
                lost.cancel()
        finally:
            connection.abort()

    async def _read(self) -> None:
        """What was announced last."""
        self.reads += 1
        names = (b"generation", b"digest", b"view")
        found = await self._client.send(SLOT, ("HMGET", STATE, *names), retry="always", timeout=2.0)
        if found[0] is not None:
            self._fold({"generation": int(found[0]), "digest": found[1].decode(), "view": json.loads(found[2])})

    def _hear(self, push: Sequence[Any]) -> None:
        if push[0] != b"message":
            return
        try:
            news = json.loads(push[2])
            if news["v"] != 1:
                raise ValueError(f"version {news['v']}")
            self._fold(news)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("unreadable news: %r", error)

    def _fold(self, news: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        if hasattr(self._client, "announced_until"):
            self._client.announced_until = loop.time() + SILENCE * self._period
        if "view" in news:
            self._digest = str(news["digest"])
            if hear := getattr(self._client, "hear", None):
                hear(ClusterView.from_news(news["view"]))
        elif news["digest"] != self._digest or int(news["generation"]) > self.generation:
            self._missed()
        if "view" in news and int(news["generation"]) > self.generation:
            self.generation = int(news["generation"])
            if self._on_generation is not None:
                self._on_generation(self.generation)

    def _missed(self) -> None:
        """A message got lost: read what it said, not all at the same moment."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_soon())

    async def _read_soon(self) -> None:
        await asyncio.sleep(random.random() * self._period / 2)  # noqa: S311 (spreads load)
        try:
            await self._read()
        except (Unavailable, OutcomeUnknown, ServerError, ValueError) as error:
            log.info("reading what was announced: %s", error)

    # --- hints -------------------------------------------------------------------------------------------------------

    def hint(self, what: str) -> None:
        """Have the detector look, unless news comes in the next moment, or others have said it already."""
        if self._hinting is None or self._hinting.done():
            self._hinting = asyncio.create_task(self._hint(what))

    async def _hint(self, what: str) -> None:
        before = self._heard_at
        await asyncio.sleep(HINT_JITTER * random.random())  # noqa: S311 (spreads load)
        if self._heard_at != before:
            return
        self.hints += 1
        for node in self._client.random_nodes():
            try:
                assert node.data is not None  # noqa: S101 (they are connected)
                if node.address == self._client.owner(SLOT):
                    keys = (HINTED,)
                    await HINT.run(
                        self._client, SLOT, keys, what, HINTS_APART_MS, HINT_TOPIC, retry="never", timeout=TIMEOUT
                    )
                else:
                    await node.data.send("PUBLISH", HINT_TOPIC, what, timeout=TIMEOUT)
            except (Unavailable, OutcomeUnknown, ServerError) as error:
                log.info("hinting: %s", error)
            else:
                break
        await asyncio.sleep(HINTS_APART_MS / 1000)

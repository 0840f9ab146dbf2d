"""Keeps a mirror consistent: after each generation of the database one resync, tried until it is through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from redkeep.decide.consistency import Health
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound.client import Client
from redkeep.northbound.detector import SLOT, TAG
from redkeep.northbound.link import Pause
from redkeep.northbound.mirror import Mirror, Report
from redkeep.northbound.wire import ServerError

log = logging.getLogger(__name__)

PUSHED = f"{TAG}:pushed".encode()
"""A hash: owner -> generation for which it has pushed what it owns."""
PATIENCE = 10.0
"""Seconds for which the others are waited for. Who has not pushed by then may have lost objects dropped here; they come
back when it does."""


class Keeper:
    """`hear` it the generations; `run` it."""

    def __init__(
        self,
        client: Client,
        mirror: Mirror,
        *,
        authorities: Collection[str] = (),
        patience: float = PATIENCE,
        on_clean: Callable[[int, Report], Any] | None = None,
    ) -> None:
        """`authorities` are the owners whose push must be through before missing means gone; itself not counted."""
        self.health = Health()
        self.resyncs = 0
        self._client = client
        self._mirror = mirror
        self._authorities = [owner for owner in authorities if owner != mirror.owner]
        self._patience = patience
        self._on_clean = on_clean
        self._dirty = asyncio.Event()

    def hear(self, generation: int) -> None:
        """Data may have been lost."""
        self.health = self.health.heard(generation)
        if self.health.dirty:
            self._dirty.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._dirty.wait()
            pause = Pause(first=0.05, longest=1.0)
            while self.health.dirty:
                generation = self.health.generation
                try:
                    report = await self.resync(generation)
                except (Unavailable, OutcomeUnknown, ServerError) as error:
                    log.info("resync of generation %d: %s", generation, error)
                    await pause.sleep()
                else:
                    self.health = self.health.resynchronised(generation)
                    if self._on_clean is not None:
                        self._on_clean(generation, report)
            self._dirty.clear()

    async def resync(self, generation: int) -> Report:
        """Push what is mine, say so, wait for the others, take what is theirs."""
        self.resyncs += 1
        report = await self._mirror.push()
        args = ("HSET", PUSHED, self._mirror.owner, generation)
        await self._client.send(SLOT, args, retry="always")
        await self._others_have_pushed(generation)
        return await self._mirror.pull(report)

    async def _others_have_pushed(self, generation: int) -> None:
        loop, pause = asyncio.get_running_loop(), Pause(first=0.01)
        deadline = loop.time() + self._patience
        while self._authorities:
            found = await self._client.send(SLOT, ("HMGET", PUSHED, *self._authorities), retry="always")
            if all(int(one or 0) >= generation for one in found):
                return
            if loop.time() >= deadline:
                log.warning("not all of %s have pushed generation %d", self._authorities, generation)
                return
            await pause.sleep()

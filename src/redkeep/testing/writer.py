"""A client that writes without pause and remembers every acknowledgement: what gaps and losses are measured with."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from array import array
from dataclasses import dataclass, field

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound import Client

PAGE = 500


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time between two acknowledged writes in a row."""

    seconds: float
    began: float
    """`time.monotonic()` of the acknowledgement before it."""


@dataclass
class Writer:
    """Sets a new key each time: `prefix:0`, `prefix:1`, … An acknowledged one must be there for ever after."""

    client: Client
    prefix: str = "w"
    acknowledged: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    unknown: list[int] = field(default_factory=list)
    """Writes of which nobody can know whether they ran."""
    refused: int = 0
    """Writes that are known not to have run."""
    pause: float = 0.0
    """Seconds between two writes, where many write at once."""
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Writer:
        self._task = asyncio.create_task(self._write(), name=f"writer {self.prefix}")
        await self.further(20)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Write no more. Harmless when repeated."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _write(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                await self.client.execute("SET", f"{self.prefix}:{number}", number, timeout=10)
            except OutcomeUnknown:
                self.unknown.append(number)
            except Unavailable:
                self.refused += 1
            else:
                self.times.append(time.monotonic())
                self.acknowledged.append(number)
            if self.pause:
                await asyncio.sleep(self.pause)

    async def further(self, count: int, limit: float = 20.0) -> None:
        """Wait until that many more writes were acknowledged. Raises TimeoutError."""
        target = len(self.acknowledged) + count
        async with asyncio.timeout(limit):
            while len(self.acknowledged) < target:
                if self._task is not None and self._task.done():
                    self._task.result()
                await asyncio.sleep(0.001)

    def longest_gap(self, since: float) -> Gap:
        """From the last acknowledgement before `since` (monotonic) on."""
        first = next((at for at in range(len(self.times)) if self.times[at] >= since), len(self.times))
        window = self.times[max(0, first - 1) :]
        pairs = ((after - before, before) for before, after in itertools.pairwise(window))
        seconds, began = max(pairs, default=(0.0, since))
        return Gap(seconds, began)

    async def lost(self, reader: Client | None = None) -> list[int]:
        """Acknowledged writes that are not there. Ask when the writer has stopped."""
        client, missing = reader or self.client, []
        for start in range(0, len(self.acknowledged), PAGE):
            page = self.acknowledged[start : start + PAGE]
            keys = [f"{self.prefix}:{number}" for number in page]
            if client.mode == "cluster":  # the keys are in different slots
                values = await asyncio.gather(*(client.execute("GET", key) for key in keys))
            else:
                values = await client.execute("MGET", *keys)
            missing += [number for number, value in zip(page, values, strict=True) if value is None]
        return missing

"""What a writing process leaves behind: each acknowledged write and its moment, and how far it is right now."""

from __future__ import annotations

import itertools
import json
import mmap
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

KEY = "w:%d"
_PROGRESS = struct.Struct("qd")


class Progress:
    """Count and moment of the last acknowledgement, in memory that writer and watcher share."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_PROGRESS.size)
            self._memory = mmap.mmap(file.fileno(), _PROGRESS.size)

    def write(self, count: int, moment: float) -> None:
        _PROGRESS.pack_into(self._memory, 0, count, moment)

    def read(self) -> tuple[int, float]:
        """Count, and `time.monotonic()` of the last one, which is one clock for all processes."""
        count, moment = _PROGRESS.unpack_from(self._memory)
        return int(count), float(moment)


@dataclass
class Record:
    """Writes by number. The key of a write is `KEY % number`, and no number is used twice."""

    acknowledged: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    """`time.monotonic()` of each acknowledgement."""
    failed: int = 0
    """Writes that ended in an error: known not to have run, or not known."""

    def longest_gap(self, since: float) -> float:
        """Seconds between two acknowledgements in a row, from the last one before `since` on."""
        first = next((at for at, moment in enumerate(self.times) if moment >= since), len(self.times))
        window: Sequence[float] = self.times[max(0, first - 1) :]
        return max((after - before for before, after in itertools.pairwise(window)), default=0.0)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(json.dumps([len(self.times), self.failed]).encode() + b"\n")
            self.acknowledged.tofile(file)
            self.times.tofile(file)

    @classmethod
    def load(cls, path: Path) -> Self:
        found = cls()
        with path.open("rb") as file:
            count, found.failed = json.loads(file.readline())
            found.acknowledged.fromfile(file, count)
            found.times.fromfile(file, count)
        return found

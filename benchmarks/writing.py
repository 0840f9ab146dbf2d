"""The other end of a writing process: starts it, watches how far it is, ends it and reads what it noted."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import Progress, Record

WARM = 1000
"""Acknowledged writes before anything is done to the servers."""
POLL = 0.02


class Failed(Exception):
    """A contestant did not do what it has to, so that there is nothing to measure."""


def until(holds: Callable[[], bool], limit: float, what: str) -> None:
    """Raises Failed after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {limit:g} s")
        time.sleep(POLL)


class Writing:
    """A running writer. `finish` ends it."""

    def __init__(self, spec: Mapping[str, Any], directory: Path) -> None:
        self._directory = directory
        self._progress = Progress(directory / "progress")
        command = [sys.executable, "-m", "benchmarks.writer", json.dumps(spec), str(directory)]
        self.process = subprocess.Popen(command, start_new_session=True)

    @property
    def count(self) -> int:
        return self._progress.read()[0]

    def further(self, count: int, limit: float) -> None:
        """Wait until so many more writes were acknowledged."""
        target = self.count + count
        until(lambda: self.count >= target or self._ended(), limit, "the writer's next acknowledged write")

    def _ended(self) -> bool:
        if (code := self.process.poll()) is not None:
            raise Failed(f"the writer ended by itself, with status {code}")
        return False

    def finish(self) -> Record:
        """Stop writing; what it noted."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            raise Failed("the writer does not end") from None
        return Record.load(self._directory / "record")


@contextlib.contextmanager
def writing(spec: Mapping[str, Any]) -> Iterator[Writing]:
    """A writer that has warmed up; gone with the block."""
    directory = Path(tempfile.mkdtemp(prefix="redkeep-bench-writer-"))
    writer = Writing(spec, directory)
    try:
        writer.further(WARM, 20)
        yield writer
    finally:
        if writer.process.poll() is None:
            writer.process.kill()
            writer.process.wait()
        shutil.rmtree(directory, ignore_errors=True)

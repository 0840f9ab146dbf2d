"""SIGSTOP of the primary under a writing client, against Redis Sentinel: milliseconds without an acknowledged write."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from benchmarks.contest import Options, contest
from benchmarks.figures import Sample
from benchmarks.groups import Contestant, Servers, until_quiet
from benchmarks.peers import Sentinels
from benchmarks.product import Redkeep
from benchmarks.race import AFTERWARDS
from benchmarks.writing import Writing, writing
from redkeep.model.topology import Address

NAME = "hang-failover"
MEGABYTES = 20
PEER = "sentinel-200ms"
"""The better tuned one."""
BUSY = "while True: pass"
PAUSE = 0.002
SILENCE = 0.05
"""Seconds without an acknowledgement; whoever detects a stopped server in less would not be believed."""


def run(options: Options) -> dict[str, Any]:
    """The JSON object. `stale_writes`: acknowledged by the old primary after it had been replaced. `false_failovers`:
    changes of primary, and restarts of servers, while every core was kept busy and nothing was wrong."""
    version, megabytes = options.version, options.megabytes or MEGABYTES
    return contest(
        NAME,
        {
            "redkeep": lambda: Redkeep(version, megabytes),
            PEER: lambda: Sentinels(version, megabytes, down_after_ms=200),
            "sentinel-1000ms": lambda: Sentinels(version, megabytes, down_after_ms=1000),
        },
        measure=_measure,
        peer=PEER,
        options=options,
        config={
            "fault": "SIGSTOP of the primary's process; SIGCONT once its successor has acknowledged a write",
            "data_mb": megabytes,
            "sentinel": "3 sentinels, quorum 2, failover-timeout 180000, parallel-syncs 1",
            "load": f"{os.cpu_count()} busy processes and a writer for {options.load_seconds:g} s",
        },
        afterwards=lambda contestant: {"false_failovers": _under_load(contestant, options.load_seconds)},
    )


def _measure(contestant: Contestant) -> Sample:
    servers = contestant.servers
    until_quiet(contestant)
    before, old = servers.full_resyncs(), servers.primary()
    with writing(contestant.client) as writer:
        began = time.monotonic()
        contestant.hang()
        _until_silent(writer)
        writer.further(1, 60)
        with _writing_to(servers, old) as accepted:
            contestant.resume()
            contestant.bring_back()
            until_quiet(contestant)
        writer.further(1, 60)
        time.sleep(AFTERWARDS)
        record = writer.finish()
    after = servers.full_resyncs()
    return Sample(
        gap_ms=record.longest_gap(began) * 1000,
        writes=len(record.acknowledged),
        failed=record.failed,
        lost=servers.take_away(record.acknowledged),
        full_resyncs=sum(count - before.get(process, 0) for process, count in after.items()),
        stale=len(accepted),
    )


def _until_silent(writer: Writing) -> None:
    """An acknowledgement from before the stop may still be under way: the next one is the successor's."""
    count = -1
    while writer.count != count:
        count = writer.count
        time.sleep(SILENCE)


@contextlib.contextmanager
def _writing_to(servers: Servers, address: Address) -> Iterator[list[float]]:
    """A client that knows nobody but the old primary; the moments at which that said OK, while it was not primary."""
    accepted: list[float] = []
    stop = threading.Event()

    def write() -> None:
        with Redis(
            address.host, address.port, password=servers.password, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        ) as redis:
            while not stop.wait(PAUSE):
                with contextlib.suppress(RedisError):
                    redis.set("stale", "1")
                    accepted.append(time.monotonic())

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield accepted
    finally:
        stop.set()
        thread.join()


def _under_load(contestant: Contestant, seconds: float) -> int:
    """Keep every core busy; how often somebody took over, or was started again, though nothing was wrong."""
    until_quiet(contestant)
    servers, busy = contestant.servers, []
    primaries, processes = [servers.primary()], set(servers.full_resyncs())
    try:
        with writing(contestant.client) as writer:
            busy += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                writer.further(1, 60)
                if (primary := servers.primary()) != primaries[-1]:
                    primaries.append(primary)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    until_quiet(contestant)
    return len(primaries) - 1 + len(set(servers.full_resyncs()) - processes)

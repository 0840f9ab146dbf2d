"""A benchmark of contestants under one event: makes them, lets them take turns, ends them whatever happens."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks.figures import outcome
from benchmarks.groups import Contestant
from benchmarks.race import AFTERWARDS, Measure, race

OURS = "redkeep"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    runs: int = 10
    version: str = "7.0"
    megabytes: int | None = None
    """None: what the benchmark was designed for."""
    peers: tuple[str, ...] | None = None
    """Only these take part besides us; None: all."""
    load_seconds: float = 20.0
    """How long `hang-failover` keeps all cores busy, looking for failovers that nobody needs."""
    replicas: tuple[int, ...] = (1, 2, 4)
    """How many `attach-replica` attaches at once, by turns."""
    instances: tuple[int, ...] = (10, 50)
    """How many `site-failover` moves, by turns."""
    managers: tuple[int, ...] = (2, 10, 50)
    """How many `site-failover` tells of it, by turns."""


def contest(
    name: str,
    makers: Mapping[str, Callable[[], Contestant]],
    *,
    measure: Measure,
    peer: str,
    options: Options,
    config: Mapping[str, Any],
    afterwards: Callable[[Contestant], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The JSON object of a benchmark. The first of the makers is ours. `afterwards` adds figures to each."""
    load = [os.getloadavg()[0]]
    more: dict[str, Mapping[str, Any]] = {}
    wanted = [one for one in makers if one == OURS or options.peers is None or one in options.peers]
    with contextlib.ExitStack() as stack:
        contestants = []
        for one in wanted:
            print(f"preparing {one}", file=sys.stderr, flush=True)
            contestants.append(makers[one]())
            stack.callback(contestants[-1].close)
        samples = race(contestants, measure, runs=options.runs)
        if afterwards is not None:
            more = {one.name: afterwards(one) for one in contestants}
    load.append(os.getloadavg()[0])
    settings = {**config, **circumstances(options), "load_average": [round(one, 2) for one in load]}
    return outcome(name, samples, ours=OURS, peer=peer, config=settings, more=more)


def circumstances(options: Options) -> dict[str, Any]:
    """What any figure depends on."""
    return {
        "redis": options.version,
        "python": platform.python_version(),
        "redis-py": redis.__version__,
        "cores": os.cpu_count(),
        "members": "1 primary, 2 replicas, all on this machine",
        "writer": "one process, one SET of a new key at a time; redis-py: no retries, 10 ms pauses, timeout 1 s",
        "watched_after_whole_s": AFTERWARDS,
    }

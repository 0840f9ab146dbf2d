"""Reading a table of 1,000 entries while the database holds more and more other keys: the time stays the same."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from benchmarks.contest import Options
from redkeep.northbound import Tables, connect
from redkeep.testing.servers import redis_process

NAME = "northbound-scale"
ENTRIES = 1000
OTHERS = (1_000, 10_000, 100_000, 1_000_000)
REPEATS = 40
FLAT = 1.5
"""The slowest may take so many times as long as the fastest, and it is still called flat: this is the noise here."""


def run(options: Options) -> dict[str, Any]:
    with redis_process("enable-debug-command yes" if options.version >= "7" else "", version=options.version) as server:
        found = asyncio.run(_measure(str(server.address)))
    cases: dict[str, dict[str, Any]] = {
        call: {
            "unit": "ms",
            "by_other_keys": {str(count): round(found[call, count], 3) for count in OTHERS},
            "slowest_to_fastest": round(_ratio([found[call, count] for count in OTHERS]), 2),
        }
        for call in ("get_all_keys", "get_all_entries")
    }
    return {
        "name": NAME,
        "entries": ENTRIES,
        "cases": cases,
        "flat": all(case["slowest_to_fastest"] <= FLAT for case in cases.values()),
        "config": {"redis": options.version, "repeats": REPEATS, "load_average": round(os.getloadavg()[0], 2)},
    }


async def _measure(address: str) -> Mapping[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    async with await connect([address]) as client:
        tables = Tables(client)
        await tables.set_keys("bench", {f"key-{n}": "v" * 100 for n in range(ENTRIES)})
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "get_all_keys": lambda: tables.get_all_keys("bench"),
            "get_all_entries": lambda: tables.get_all_entries("bench"),
        }
        there = 0
        for count in OTHERS:
            print(f"{count} other keys", file=sys.stderr, flush=True)
            await client.execute("DEBUG", "POPULATE", count - there, f"other-{count}", timeout=60)
            there = count
            for call, work in calls.items():
                found[call, count] = await _median_ms(work)
    return found


async def _median_ms(work: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        assert len(await work()) == ENTRIES
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def _ratio(times: list[float]) -> float:
    return max(times) / min(times)


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{NAME}: ms for a table of {found['entries']} entries, by how many other keys there are", ""]
    for call, case in found["cases"].items():
        lines.append(f"{call:<18}" + "".join(f"{count:>10}: {ms:<7}" for count, ms in case["by_other_keys"].items()))
    return "\n".join([*lines, "", "flat" if found["flat"] else "not flat"])

"""A resync of 100,000 entries of which 100 differ, against pushing everything: bytes on the wire, and time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.contest import Options
from redkeep.decide.consistency import make_entry
from redkeep.northbound import Client, Mirror, connect
from redkeep.northbound.mirror import Report
from redkeep.testing.servers import redis_process

NAME = "resync"
ENTRIES = 100_000
DIFFER = 100
VALUE = b"v" * 230


def run(options: Options) -> dict[str, Any]:
    with redis_process(version=options.version) as server:
        full, part, report = asyncio.run(_measure(str(server.address)))
    return {
        "name": NAME,
        "entries": ENTRIES,
        "differ": DIFFER,
        "ours": {"bytes": part[0], "seconds": round(part[1], 4)},
        "full_push": {"bytes": full[0], "seconds": round(full[1], 4)},
        "ratio": {"bytes": round(full[0] / part[0], 1), "seconds": round(full[1] / part[1], 1)},
        "pushed": report.pushed,
        "dropped": report.dropped,
        "config": {"redis": options.version, "value_bytes": len(VALUE), "load_average": round(os.getloadavg()[0], 2)},
    }


async def _measure(address: str) -> tuple[tuple[int, float], tuple[int, float], Report]:
    async with await connect([address]) as client:
        mirror = Mirror(client, owner="north", tables=["bench"], timeout=60)
        table = mirror._local["bench"]  # noqa: SLF001 (to change the local side without telling the other)
        for n in range(ENTRIES):
            table.put(f"key-{n}", make_entry(f"key-{n}", VALUE, 1, "north"))
        full = await _costs(client, mirror)
        for n in range(0, ENTRIES, ENTRIES // DIFFER):
            table.put(f"key-{n}", make_entry(f"key-{n}", VALUE + b"!", 2, "north"))
        part = await _costs(client, mirror)
        report = part[2]
        assert report.pushed == DIFFER
        assert not (await mirror.push()).changes
    return full[:2], part[:2], report


async def _costs(client: Client, mirror: Mirror) -> tuple[int, float, Report]:
    before, begun = await _bytes(client), time.perf_counter()
    report = await mirror.push()
    await mirror.pull(report)
    return await _bytes(client) - before, time.perf_counter() - begun, report


async def _bytes(client: Client) -> int:
    """That the server has read and written."""
    said = await client.execute("INFO", "stats")
    lines = dict(line.split(b":", 1) for line in bytes(said).splitlines() if b":" in line)
    return int(lines[b"total_net_input_bytes"]) + int(lines[b"total_net_output_bytes"])


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{NAME}: {found['differ']} of {found['entries']} entries differ", ""]
    lines += [
        f"{one:<12}{found[one]['bytes']:>14,} bytes{found[one]['seconds']:>10} s" for one in ("ours", "full_push")
    ]
    ratio = found["ratio"]
    return "\n".join([*lines, "", f"{ratio['bytes']} times fewer bytes, {ratio['seconds']} times faster"])

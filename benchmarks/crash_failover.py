"""kill -9 of the primary under a writing client, against Redis Sentinel: milliseconds without an acknowledged write."""

from __future__ import annotations

from typing import Any

from benchmarks.contest import Options, contest
from benchmarks.peers import Sentinels
from benchmarks.product import Redkeep
from benchmarks.race import across

NAME = "crash-failover"
MEGABYTES = 20
PEER = "sentinel-200ms"
"""The better tuned one. Shorter than 200 ms, a sentinel takes a busy primary for a dead one."""


def run(options: Options) -> dict[str, Any]:
    """The JSON object."""
    version, megabytes = options.version, options.megabytes or MEGABYTES
    return contest(
        NAME,
        {
            "redkeep": lambda: Redkeep(version, megabytes),
            PEER: lambda: Sentinels(version, megabytes, down_after_ms=200),
            "sentinel-1000ms": lambda: Sentinels(version, megabytes, down_after_ms=1000),
        },
        measure=across(lambda contestant: contestant.crash()),
        peer=PEER,
        options=options,
        config={
            "fault": "SIGKILL of the primary's process",
            "data_mb": megabytes,
            "sentinel": "3 sentinels, quorum 2, failover-timeout 180000, parallel-syncs 1",
        },
    )

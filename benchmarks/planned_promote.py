"""A replica takes over from a living primary, against FAILOVER and SENTINEL FAILOVER: milliseconds without a write."""

from __future__ import annotations

from typing import Any

from benchmarks.contest import Options, contest
from benchmarks.peers import Plain, Sentinels
from benchmarks.product import Redkeep
from benchmarks.race import across

NAME = "planned-promote"
MEGABYTES = 200
PEER = Plain.name
"""The one that loses nothing."""


def run(options: Options) -> dict[str, Any]:
    """The JSON object."""
    version, megabytes = options.version, options.megabytes or MEGABYTES
    return contest(
        NAME,
        {
            "redkeep": lambda: Redkeep(version, megabytes),
            PEER: lambda: Plain(version, megabytes),
            "sentinel-200ms": lambda: Sentinels(version, megabytes, down_after_ms=200),
        },
        measure=across(lambda contestant: contestant.promote()),
        peer=PEER,
        options=options,
        config={
            "action": "promote_to_replica_source through REST; FAILOVER TO; SENTINEL FAILOVER",
            "data_mb": megabytes,
            "sentinel": "3 sentinels, quorum 2, failover-timeout 180000, parallel-syncs 1",
        },
    )

"""A shard's replica takes over from its primary, twice in a row, against CLUSTER FAILOVER: ms without a write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.cluster_groups import PlainCluster, RedkeepCluster
from benchmarks.contest import OURS, Options
from benchmarks.shard_failover import Group, duel

NAME = "shard-promote"
PEER = "cluster-failover"
IN_A_ROW = 2
"""The second one comes right after the first has been answered: that is where CLUSTER FAILOVER fails."""


def run(options: Options) -> dict[str, Any]:
    """The JSON object."""
    version = options.version
    makers: dict[str, Callable[[], Group]] = {
        OURS: lambda: RedkeepCluster(version, 3, 1),
        PEER: lambda: PlainCluster(version, 3, 3, timeout_ms=5000, name=PEER),
    }
    config = {"action": "promote through REST; CLUSTER FAILOVER, with ROLE asked until it is so", "in_a_row": IN_A_ROW}
    return duel(
        NAME,
        makers,
        lambda group, primary: group.promote_replica(group.nodes.replica_of(primary)),
        PEER,
        options,
        config,
        times=IN_A_ROW,
    )

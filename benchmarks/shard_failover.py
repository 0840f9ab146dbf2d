"""kill -9 of a shard's primary under a writing RedisCluster, against plain Redis Cluster: ms without a write."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.cluster_groups import TAG, WHOLE_LIMIT, Nodes, PlainCluster, RedkeepCluster, cluster_spec, lost
from benchmarks.contest import OURS, Options, circumstances
from benchmarks.figures import Sample, outcome
from benchmarks.race import AFTERWARDS
from benchmarks.writing import until, writing
from redkeep.model.slots import slot_of
from redkeep.model.topology import Address

NAME = "shard-failover"
PEER = "cluster-200ms"
"""The better tuned one."""


class Group(Protocol):
    """A cluster, whoever manages it."""

    name: str
    nodes: Nodes

    def kill(self, address: Address) -> None: ...
    def promote_replica(self, replica: Address) -> None: ...
    def bring_back(self) -> None: ...
    def close(self) -> None: ...


def run(options: Options) -> dict[str, Any]:
    """The JSON object."""
    version = options.version
    makers: dict[str, Callable[[], Group]] = {
        OURS: lambda: RedkeepCluster(version, 3, 1),
        PEER: lambda: PlainCluster(version, 3, 3, timeout_ms=200),
        "cluster-1000ms": lambda: PlainCluster(version, 3, 3, timeout_ms=1000),
    }
    config = {"fault": "SIGKILL of the primary of the shard that is written to", "members": "3 shards of 2"}
    return duel(NAME, makers, lambda group, primary: group.kill(primary), PEER, options, config)


def duel(
    name: str,
    makers: dict[str, Callable[[], Group]],
    event: Callable[[Group, Address], None],
    peer: str,
    options: Options,
    config: dict[str, Any],
    *,
    times: int = 1,
) -> dict[str, Any]:
    """Contestants take turns; `times` events follow each other in one run, as they may in practice."""
    wanted = [one for one in makers if one == OURS or options.peers is None or one in options.peers]
    groups: dict[str, Group] = {}
    samples: dict[str, list[Sample]] = {one: [] for one in wanted}
    try:
        for one in wanted:
            print(f"preparing {one}", file=sys.stderr, flush=True)
            groups[one] = makers[one]()
        for number in range(options.runs):
            for one in wanted:
                for _ in range(times):
                    samples[one].append(measured(groups[one], event))
                    print(f"run {number + 1} {one}: {samples[one][-1]}", file=sys.stderr, flush=True)
    finally:
        for group in groups.values():
            group.close()
    settings = {**circumstances(options), "writer": "one process, redis-py RedisCluster, retries off", **config}
    return outcome(name, samples, ours=OURS, peer=peer, config=settings, more={})


def measured(group: Group, event: Callable[[Group, Address], None]) -> Sample:
    """What a writer sees of one event."""
    until(group.nodes.agree, WHOLE_LIMIT, f"{group.name}: a whole cluster")
    primary = group.nodes.owner(slot_of(TAG.encode()))
    with writing(cluster_spec(group.nodes)) as writer:
        began = time.monotonic()
        event(group, primary)
        writer.further(1, 60)
        group.bring_back()
        until(group.nodes.agree, WHOLE_LIMIT, f"{group.name}: a whole cluster after it")
        writer.further(1, 60)
        time.sleep(AFTERWARDS)
        record = writer.finish()
    return Sample(
        gap_ms=record.longest_gap(began) * 1000,
        writes=len(record.acknowledged),
        failed=record.failed,
        lost=lost(group.nodes, list(record.acknowledged)),
        full_resyncs=0,
    )

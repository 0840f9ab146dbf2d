"""`python -m benchmarks NAME [--json]`: run one benchmark, or list them."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import NoReturn

from benchmarks import (
    attach_replica,
    cluster_create,
    crash_failover,
    hang_failover,
    planned_promote,
    rebalance,
    shard_failover,
    shard_promote,
    site_failover,
)
from benchmarks.contest import Options
from benchmarks.figures import table
from benchmarks.northbound import NORTHBOUND
from benchmarks.writing import Failed

REPLICATION = (crash_failover, hang_failover, planned_promote, attach_replica)
CLUSTERS = (cluster_create, rebalance, shard_failover, shard_promote)

BENCHMARKS: Mapping[str, ModuleType] = {
    module.NAME: module for module in (*REPLICATION, *CLUSTERS, site_failover, *NORTHBOUND)
}
"""Each module says in the first line of its docstring what it measures."""


def main() -> int:
    """The command; its exit status."""
    asked = _arguments().parse_args()
    if asked.name is None:
        for name, module in BENCHMARKS.items():
            print(f"{name:<24}{(module.__doc__ or '').splitlines()[0]}")
        return 0
    signal.signal(signal.SIGTERM, _interrupt)  # ends like Ctrl-C: with everything cleaned up
    options = Options(
        runs=asked.runs,
        version=asked.redis,
        megabytes=asked.data_mb,
        peers=tuple(asked.peers.split(",")) if asked.peers else None,
        load_seconds=asked.load_seconds,
        replicas=_counts(asked.replicas),
        instances=_counts(asked.instances),
        managers=_counts(asked.managers),
    )
    try:
        found = BENCHMARKS[asked.name].run(options)
    except Failed as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    show = getattr(BENCHMARKS[asked.name], "table", table)
    print(json.dumps(found) if asked.json else show(found))
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure us and the peers in the same run.")
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="without one, they are listed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=10, help="runs of each contestant (default: 10)")
    parser.add_argument("--redis", default="7.0", metavar="X.Y", help="version of redis-server (default: 7.0)")
    parser.add_argument("--data-mb", type=int, help="data in each group; by default what the benchmark is meant for")
    parser.add_argument("--peers", metavar="A,B", help="only these peers take part")
    parser.add_argument(
        "--load-seconds", type=float, default=20.0, help="hang-failover: how long all cores are kept busy (default: 20)"
    )
    parser.add_argument(
        "--replicas", default="1,2,4", metavar="N,M", help="attach-replica: how many at once, by turns (default: 1,2,4)"
    )
    parser.add_argument(
        "--instances", default="10,50", metavar="N,M", help="site-failover: how many move, by turns (default: 10,50)"
    )
    parser.add_argument(
        "--managers", default="2,10,50", metavar="N,M", help="site-failover: how many follow (default: 2,10,50)"
    )
    return parser


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(count) for count in text.split(",") if count)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

"""A quarter of the slots moves to a new shard under light load, against redis-cli: seconds, and p99 of the load."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.cluster_groups import WHOLE_LIMIT, LightLoad, Nodes, PlainCluster, RedkeepCluster, run_cli
from benchmarks.contest import Options, circumstances
from benchmarks.figures import percentile
from benchmarks.writing import until

NAME = "rebalance"
KEYS = 200_000
SHARDS = 4
PEER = "redis-cli"


def run(options: Options) -> dict[str, Any]:
    """The JSON object. Each case is a run of its own, all in turns: gentle, fast, redis-cli, gentle, ..."""
    keys = KEYS if options.megabytes is None else options.megabytes * 10_000
    print("preparing redkeep and plain members", file=sys.stderr, flush=True)
    ours = RedkeepCluster(options.version, SHARDS, 0)
    try:
        plain = PlainCluster(options.version, SHARDS, 0, name=PEER)
        try:
            return _race(options, keys, ours, plain)
        finally:
            plain.close()
    finally:
        ours.close()


def _race(options: Options, keys: int, ours: RedkeepCluster, plain: PlainCluster) -> dict[str, Any]:
    ours.nodes.fill(keys)
    plain.nodes.fill(keys)
    last = ours.ids[ours.nodes.addresses[-1]]
    gate = plain.nodes.addresses[0]
    own = plain.processes.id(SHARDS - 1)
    ways: dict[str, tuple[Nodes, Callable[[], None], Callable[[], None]]] = {
        **{
            pace: (
                ours.nodes,
                lambda: ours.act({"rebalance": {"weights": {last: 0}, "pace": "fast"}}),
                lambda pace=pace: ours.act({"rebalance": {"pace": pace}}),  # type: ignore[misc]
            )
            for pace in ("gentle", "fast")
        },
        PEER: (
            plain.nodes,
            lambda: run_cli("rebalance", str(gate), "--cluster-weight", f"{own}=0", "--cluster-pipeline", "1000"),
            lambda: run_cli("rebalance", str(gate), "--cluster-use-empty-masters"),
        ),
    }
    cases: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(options.runs):
        for name, (nodes, empty, act) in ways.items():
            empty()
            until(nodes.agree, WHOLE_LIMIT, "members that agree")
            cases[name].append(_measured(nodes, keys, act))
            print(f"run {number + 1} {name}: {cases[name][-1]}", file=sys.stderr, flush=True)
    return _outcome(options, keys, cases)


def _measured(nodes: Nodes, keys: int, act: Callable[[], None]) -> dict[str, float]:
    load = LightLoad(nodes, keys)
    with load.running():
        time.sleep(1.0)
        began = time.monotonic()
        act()
        ended = time.monotonic()
        until(nodes.agree, WHOLE_LIMIT, "members that agree afterwards")
    before, during = load.between(0, began), load.between(began, ended)
    return {
        "seconds": round(ended - began, 3),
        "p99_before_ms": round(percentile(before, 0.99), 2),
        "p99_ms": round(percentile(during, 0.99), 2),
        "max_ms": round(max(during), 2),
        "client_errors": load.failed,
        "keys_missing": keys - nodes.keys(),
    }


def _outcome(options: Options, keys: int, cases: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    medians = {
        name: {what: round(statistics.median(one[what] for one in runs), 3) for what in runs[0]}
        for name, runs in cases.items()
    }
    peer = medians[PEER]
    for name in ("gentle", "fast"):
        medians[name]["ratio"] = round(peer["seconds"] / medians[name]["seconds"], 2)
        medians[name]["p99_ratio"] = round(medians[name]["p99_ms"] / max(0.01, peer["p99_ms"]), 2)
    spread = [one["seconds"] for one in cases["gentle"]]
    return {
        "name": NAME,
        "unit": "s",
        "ours": medians["gentle"]["seconds"],
        "peer": peer["seconds"],
        "peer_name": PEER,
        "ratio": medians["gentle"]["ratio"],
        "runs": options.runs,
        "spread": {"min": min(spread), "max": max(spread)},
        "cases": medians,
        "samples": dict(cases),
        "config": {**circumstances(options), "keys": keys, "value_bytes": 100, "slots": 4096, "members": "4 primaries"},
    }


def table(found: Mapping[str, Any]) -> str:
    """The same for people."""
    columns = ("seconds", "p99_before_ms", "p99_ms", "max_ms", "client_errors", "keys_missing")
    lines = [f"{NAME}: {found['config']['slots']} slots, {found['config']['keys']} keys, {found['runs']} runs", ""]
    lines.append(f"{'':<16}" + "".join(f"{one:>15}" for one in columns))
    lines += [f"{name:<16}" + "".join(f"{row[one]:>15,}" for one in columns) for name, row in found["cases"].items()]
    for name in ("gentle", "fast"):
        row = found["cases"][name]
        lines.append(f"{name}: {row['ratio']:g} times faster than {PEER}, at {row['p99_ratio']:g} times its p99")
    return "\n".join(lines)

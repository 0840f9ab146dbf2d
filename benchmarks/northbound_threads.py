"""The driver's synchronous face against blocking redis-py, in one thread and in eight; and what telling costs."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis.cluster import RedisCluster

from benchmarks.contest import Options
from benchmarks.northbound_throughput import BULK, KEYS, VALUE
from redkeep.model.topology import Address
from redkeep.northbound.places import place_of
from redkeep.northbound.sync import Publisher, Tables, connect
from redkeep.testing.clusters import cluster_processes
from redkeep.testing.servers import redis_process

NAME = "northbound-threads"
SECONDS = 0.4
THREADS = 8
TABLE = "bench"
_HASH = place_of(TABLE, None).entries
_PAGES = [dict.fromkeys(KEYS[n : n + BULK], VALUE) for n in range(0, len(KEYS), BULK)]

Call = Callable[[int], Any]


def run(options: Options) -> dict[str, Any]:
    """All calls in turns, so many times; medians."""
    found: dict[str, Any] = {}
    for where in ("cluster", "single-server"):
        print(f"measuring on {where}", file=sys.stderr, flush=True)
        if where == "cluster":
            with cluster_processes(version=options.version, timeout_ms=5000) as cluster:
                found[where] = _measure(cluster.addresses[0], options, cluster=True)
        else:
            with redis_process(version=options.version) as server:
                found[where] = _measure(server.address, options, cluster=False)
    return {
        "name": NAME,
        "unit": "calls per second; in bulk: entries",
        "peer_name": "redis-py",
        "cases": found["cluster"]["cases"],
        "servers": found,
        "config": {
            "redis": options.version,
            "redis-py": redis.__version__,
            "threads": THREADS,
            "bulk": BULK,
            "value_bytes": len(VALUE),
            "load_average": round(os.getloadavg()[0], 2),
            "telling": "set_key that is logged and published in the same call, against the bare one: share of its rate",
        },
    }


def _measure(address: Address, options: Options, *, cluster: bool) -> dict[str, Any]:
    peer: Any = (
        RedisCluster(host=address.host, port=address.port) if cluster else redis.Redis(address.host, address.port)
    )
    with connect([address]) as client:
        tables, telling, publisher = Tables(client), Tables(client, tell=True), Publisher(client)
        cases: dict[str, dict[str, tuple[Call, int]]] = {
            "set_key": {
                "ours": (lambda n: tables.set_key(TABLE, KEYS[n % len(KEYS)], VALUE), 1),
                "redis-py": (lambda n: peer.hset(_HASH, KEYS[n % len(KEYS)], VALUE), 1),
                "told": (lambda n: telling.set_key(TABLE, KEYS[n % len(KEYS)], VALUE), 1),
            },
            "get_key": {
                "ours": (lambda n: tables.get_key(TABLE, KEYS[n % len(KEYS)]), 1),
                "redis-py": (lambda n: peer.hget(_HASH, KEYS[n % len(KEYS)]), 1),
            },
            "set_keys": {
                "ours": (lambda n: tables.set_keys(TABLE, _PAGES[n % len(_PAGES)]), BULK),  # type: ignore[arg-type]
                "redis-py": (lambda n: _pipelined(peer, _PAGES[n % len(_PAGES)]), BULK),
            },
            "publish": {
                "ours": (lambda n: publisher.publish(TABLE, {"n": n}), 1),
                "redis-py": (lambda n: peer.publish(TABLE, f'{{"n":{n}}}'), 1),
            },
        }
        samples: dict[str, dict[str, list[float]]] = {}
        for page in _PAGES:
            tables.set_keys(TABLE, page)  # type: ignore[arg-type]
        for _ in range(max(2, options.runs // 2)):
            for call, contestants in cases.items():
                for name, (work, size) in contestants.items():
                    for threads in (1, THREADS):
                        rate = _rate(work, threads) * size
                        samples.setdefault(f"{call}, {threads} threads", {}).setdefault(name, []).append(rate)
    peer.close()
    return _cases(samples)


def _pipelined(peer: Any, page: Mapping[str, str]) -> None:
    pipeline = peer.pipeline(transaction=False)
    for key, value in page.items():
        pipeline.hset(_HASH, key, value)
    pipeline.execute()


def _rate(work: Call, threads: int) -> float:
    counts = [0] * threads
    end = time.perf_counter() + SECONDS

    def run_on(place: int) -> None:
        n = place * 100
        while time.perf_counter() < end:
            for _ in range(5):
                work(n)
                n += 1
        counts[place] = n - place * 100

    begun = time.perf_counter()
    running = [threading.Thread(target=run_on, args=(place,)) for place in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    return sum(counts) / (time.perf_counter() - begun)


def _cases(samples: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    cases: dict[str, Any] = {}
    telling: dict[str, float] = {}
    for case, each in samples.items():
        medians = {name: round(statistics.median(rates)) for name, rates in each.items()}
        cases[case] = {
            "ours": medians["ours"],
            "peer": medians["redis-py"],
            "ratio": round(medians["ours"] / medians["redis-py"], 2),
            "spread": {name: [round(min(rates)), round(max(rates))] for name, rates in each.items()},
        }
        if "told" in medians:
            telling[case] = round(medians["told"] / medians["ours"], 3)
    return {"cases": cases, "telling": telling}


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{NAME}: {found['unit']}"]
    for where, said in found["servers"].items():
        lines += ["", f"{where:<24}{'ours':>12}{'redis-py':>12}{'ratio':>8}"]
        lines += [
            f"  {case:<22}{one['ours']:>12}{one['peer']:>12}{one['ratio']:>8}" for case, one in said["cases"].items()
        ]
        lines += [f"  {case}: told as well, {share:.0%} of the bare rate" for case, share in said["telling"].items()]
    return "\n".join(lines)

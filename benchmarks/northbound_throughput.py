"""The driver's tables and messages against redis-py and valkey-glide, on a cluster and a single server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import redis

from benchmarks.contest import Options
from benchmarks.drivers import CHANNEL, Driver, Glide, Ours, RedisPy
from redkeep.model.topology import Address
from redkeep.northbound.messages import body
from redkeep.northbound.places import feed_of
from redkeep.testing.clusters import cluster_processes
from redkeep.testing.servers import redis_process

NAME = "northbound-throughput"
KEYS = [f"key-{n}" for n in range(1000)]
VALUE = "v" * 230
SECONDS = 0.4
TASKS = 50
BULK = 100
MESSAGES = 20_000
OURS, PEER = "redkeep", "redis-py"
REACH = {"single": 1.0, "bulk": 3.0, "concurrent": 6.0, "pubsub": 2.0}

Case = tuple[str, str]
"""Name of the case, and of the call."""

_PUBLISH = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
command = sys.stdin.buffer.read()
with socket.create_connection((host, port)) as connection:
    for start in range(0, count, 500):
        connection.sendall(command * 500)
        seen = 0
        while seen < 500:
            seen += connection.recv(65536).count(b"\\r\\n")
"""


def run(options: Options) -> dict[str, Any]:
    """All contestants take turns in every case."""
    found: dict[str, Any] = {}
    for where in ("cluster", "single-server"):
        print(f"measuring on {where}", file=sys.stderr, flush=True)
        with _servers(where, options.version) as address:
            samples = asyncio.run(_measure(address, where == "cluster", max(2, options.runs // 2), options))
        found[where] = {"cases": _cases(samples)}
    return {
        "name": NAME,
        "unit": "operations per second",
        "peer_name": PEER,
        "cases": found["cluster"]["cases"],
        "servers": found,
        "reach": REACH,
        "reached": {
            where: {case: each["ratio"] >= REACH[case] for case, each in said["cases"].items()}
            for where, said in found.items()
        },
        "config": {
            "redis": options.version,
            "redis-py": redis.__version__,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 2),
            "value_bytes": len(VALUE),
            "tasks": TASKS,
            "bulk": BULK,
            "layout": "a field of one hash per key for all; ours in bulk: one HSET or HMGET; the peers: a pipeline",
            "figures": "median of the runs; of a case with several calls that with the worst ratio",
        },
    }


@contextlib.contextmanager
def _servers(where: str, version: str) -> Iterator[Address]:
    if where == "cluster":
        with cluster_processes(version=version, timeout_ms=5000) as cluster:
            yield cluster.addresses[0]
    else:
        with redis_process(version=version) as server:
            yield server.address


async def _measure(
    address: Address, cluster: bool, rounds: int, options: Options
) -> Mapping[Case, Mapping[str, list[float]]]:
    kinds: dict[str, Any] = {OURS: Ours, PEER: RedisPy}
    if find_spec("glide") is not None and (options.peers is None or "glide" in options.peers):
        kinds["valkey-glide"] = Glide
    samples: dict[Case, dict[str, list[float]]] = {}
    drivers: dict[str, Driver] = {name: await kind.open(address, cluster=cluster) for name, kind in kinds.items()}
    await drivers[OURS].set_many(dict.fromkeys(KEYS, VALUE))
    for _ in range(rounds):
        for case, work in _CASES.items():
            for name, driver in drivers.items():
                samples.setdefault(case, {}).setdefault(name, []).append(await work(driver))
    for driver in drivers.values():
        await driver.close()
    owner = await _owner(address)
    for _ in range(rounds):
        for name, kind in kinds.items():
            driver = await kind.open(address, cluster=cluster)
            rate = await _pubsub(driver, owner)
            samples.setdefault(("pubsub", "callback"), {}).setdefault(name, []).append(rate)
            await driver.close()
    return samples


async def _owner(address: Address) -> Address:
    driver = await Ours.open(address, cluster=True)
    found = driver._client.owner(feed_of(CHANNEL).slot)  # noqa: SLF001 (a benchmark of our own)
    await driver.close()
    return found or address


async def _one_by_one(call: Callable[[int], Awaitable[Any]], size: int = 1) -> float:
    done, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < SECONDS:
        for n in range(20):
            await call(done + n)
        done += 20
    return done * size / spent


async def _at_once(call: Callable[[int], Awaitable[Any]]) -> float:
    counts = [0] * TASKS
    end = time.perf_counter() + SECONDS

    async def task(n: int) -> None:
        while time.perf_counter() < end:
            for _ in range(5):
                await call(n * 20 + counts[n])
                counts[n] += 1

    await asyncio.gather(*(task(n) for n in range(TASKS)))
    return sum(counts) / SECONDS


def _key(n: int) -> str:
    return KEYS[n % len(KEYS)]


_PAGES = [KEYS[n : n + BULK] for n in range(0, len(KEYS), BULK)]
_CASES: dict[Case, Callable[[Driver], Awaitable[float]]] = {
    ("single", "set_key"): lambda one: _one_by_one(lambda n: one.set(_key(n), VALUE)),
    ("single", "get_key"): lambda one: _one_by_one(lambda n: one.get(_key(n))),
    ("single", "publish"): lambda one: _one_by_one(lambda n: one.publish({"n": n})),
    ("bulk", "set_keys"): lambda one: _one_by_one(
        lambda n: one.set_many(dict.fromkeys(_PAGES[n % len(_PAGES)], VALUE)), BULK
    ),
    ("bulk", "get_keys"): lambda one: _one_by_one(lambda n: one.get_many(_PAGES[n % len(_PAGES)]), BULK),
    ("concurrent", "set_key"): lambda one: _at_once(lambda n: one.set(_key(n), VALUE)),
    ("concurrent", "get_key"): lambda one: _at_once(lambda n: one.get(_key(n))),
}


async def _pubsub(driver: Driver, owner: Address) -> float:
    """Messages per second from the first to the last, each read as JSON in a callback."""
    times: list[float] = []
    everything = asyncio.Event()

    def callback(data: Any) -> None:
        assert data["n"] == 1
        times.append(time.perf_counter())
        if len(times) == MESSAGES:
            everything.set()

    await driver.hear(callback)
    sharded = isinstance(driver, Ours) and driver._client.sharded  # noqa: SLF001
    said = body(CHANNEL, {"n": 1, "what": "x" * 50}).encode()
    publish, channel = b"SPUBLISH" if sharded else b"PUBLISH", feed_of(CHANNEL).live
    parts = (publish, channel, b'{"v":1,"id":"7-1","after":"7-1",' + said)  # as published: it names the one before
    command = b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    await asyncio.sleep(0.1)
    with redis.Redis(owner.host, owner.port) as first:
        first.execute_command(publish, channel, b'{"v":1,"id":"7-1",' + said)
    async with asyncio.timeout(30):
        while not times:
            await asyncio.sleep(0.01)
    times.clear()
    publishing = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PUBLISH,
        owner.host,
        str(owner.port),
        str(MESSAGES),
        stdin=subprocess.PIPE,
    )
    await publishing.communicate(command)
    async with asyncio.timeout(30):
        await everything.wait()
    return (len(times) - 1) / (times[-1] - times[0])


def _cases(samples: Mapping[Case, Mapping[str, list[float]]]) -> dict[str, Any]:
    cases: dict[str, Any] = {}
    for (case, call), each in samples.items():
        medians = {name: round(statistics.median(rates)) for name, rates in each.items()}
        figures = {
            "ours": medians[OURS],
            "peer": medians[PEER],
            "ratio": round(medians[OURS] / medians[PEER], 2),
            "spread": {name: [round(min(rates)), round(max(rates))] for name, rates in each.items()},
            "peers": {name: rate for name, rate in medians.items() if name != OURS},
        }
        cases.setdefault(case, {"calls": {}})["calls"][call] = figures
    for said in cases.values():
        worst = min(said["calls"].values(), key=lambda figures: figures["ratio"])
        said |= {key: worst[key] for key in ("ours", "peer", "ratio")}
    return cases


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{NAME}: {found['unit']}; peers: redis-py, and valkey-glide where it is installed", ""]
    for where, said in found["servers"].items():
        lines.append(f"{where:<16}{'call':<12}{'ours':>10}{'redis-py':>10}{'ratio':>8}{'reach':>7}{'glide':>10}")
        for case, each in said["cases"].items():
            for call, one in each["calls"].items():
                glide = one["peers"].get("valkey-glide", "-")
                figures = f"{one['ours']:>10}{one['peer']:>10}{one['ratio']:>8}{REACH[case]:>7}{glide:>10}"
                lines.append(f"  {case:<14}{call:<12}{figures}")
    return "\n".join(lines)

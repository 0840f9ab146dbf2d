"""Failovers as writers and controllers see them: ours and redis-py's RedisCluster; and what the topology costs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import RedisError

from benchmarks.contest import Options
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.slots import slot_of
from redkeep.northbound import Availability, Client, Detector, connect
from redkeep.testing.clusters import ClusterProcesses, cluster_processes, wait_until

NAME = "northbound-ha"
NODE_TIMEOUT_MS = 1000
CONTROLLERS = (1, 100, 1000)
SPACING = 4.5
"""Seconds between failovers of one shard: sooner, Redis counts votes twice and stops writing for 5 s."""
COUNTED_SECONDS = 3.0
KEY = "{bench}k"

Write = Callable[[], Awaitable[Any]]

_WATCH = """
import socket, sys, time
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    peer.sendall(b"ROLE\\r\\n")
    if b"master" in peer.recv(4096):
        print(time.perf_counter(), flush=True)
        break
    time.sleep(0.001)
"""
"""Says when that server has become a primary. A process of its own: it must not wait for the one that is measured."""


def run(options: Options) -> dict[str, Any]:
    with cluster_processes(version=options.version, timeout_ms=NODE_TIMEOUT_MS) as cluster:
        return asyncio.run(_measure(cluster, max(2, options.runs), options))


async def _measure(cluster: ClusterProcesses, runs: int, options: Options) -> dict[str, Any]:
    gaps: dict[str, dict[str, list[float]]] = {"failover": {}, "kill": {}, "kill, after the election": {}}
    for _ in range(runs):
        for name, opened in (("ours", _ours), ("redis-py", _redis_py)):
            for event, cause in (("failover", _fail_over), ("kill", _kill)):
                print(f"{event}: {name}", file=sys.stderr, flush=True)
                gap, after = await _gap(cluster, opened, cause)
                gaps[event].setdefault(name, []).append(gap)
                if cause is _kill:
                    gaps["kill, after the election"].setdefault(name, []).append(after)
                await asyncio.sleep(SPACING)
    known, commands = await _controllers(cluster)
    cases = {event: _case(said) for event, said in gaps.items()}
    return {
        "name": NAME,
        "unit": "ms",
        "cases": cases,
        "last_controller_knows_ms": known,
        "topology_commands_per_second": commands,
        "config": {
            "redis": options.version,
            "node_timeout_ms": NODE_TIMEOUT_MS,
            "runs": runs,
            "load_average": round(os.getloadavg()[0], 2),
            "gap": "from the fault to the first write that is acknowledged by the new primary; the median of the runs",
            "after the election": "from the moment at which the new primary calls itself one: the driver's own share",
            "controllers": "Availability objects with a connection each, in one process, that share a client",
        },
    }


def _case(said: Mapping[str, list[float]]) -> dict[str, Any]:
    ours, peer = (statistics.median(said[name]) * 1000 for name in ("ours", "redis-py"))
    samples = {name: [round(gap * 1000, 1) for gap in found] for name, found in said.items()}
    return {
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "peer_name": "redis-py",
        "ratio": round(peer / ours, 2),
        "samples": samples,
    }


# --- writers ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _ours(cluster: ClusterProcesses) -> AsyncIterator[Write]:
    async with await connect([server.address for server in cluster.servers]) as client:
        yield lambda: client.execute("SET", KEY, "v", retry="always", timeout=20)


@asynccontextmanager
async def _redis_py(cluster: ClusterProcesses) -> AsyncIterator[Write]:
    nodes = [ClusterNode(one.address.host, one.port) for one in cluster.servers]
    client = RedisCluster(startup_nodes=nodes, socket_timeout=1, socket_connect_timeout=1)
    try:
        yield lambda: client.set(KEY, "v")
    finally:
        await client.aclose()


async def _gap(
    cluster: ClusterProcesses,
    opened: Callable[[ClusterProcesses], contextlib.AbstractAsyncContextManager[Write]],
    cause: Callable[[ClusterProcesses, int], int],
) -> tuple[float, float]:
    """Seconds from the fault to the first write that began after the new primary's promotion or waited for it, and how
    many of them were left when the new primary had been elected."""
    await asyncio.to_thread(wait_until, cluster.whole, "a whole cluster", 60.0)
    old = cluster.owner(_slot())
    acknowledged: list[float] = []
    async with _promotion(cluster.servers[cluster.replica_of(old)].port) as promoted, opened(cluster) as write:
        for _ in range(20):
            await write()
        enough = asyncio.Event()
        task = asyncio.create_task(_write_on(write, acknowledged, enough))
        fault = time.perf_counter()
        await asyncio.to_thread(cause, cluster, old)
        count = len(acknowledged)
        deadline = time.perf_counter() + 40
        while len(acknowledged) < count + 50 and time.perf_counter() < deadline:
            await asyncio.sleep(0.001)
        enough.set()  # not cancelled: some clients do not let themselves be
        await asyncio.wait([task], timeout=30)
    if not cluster.servers[old].running:
        await asyncio.to_thread(cluster.restart, old)
    moments = [fault, *(moment for moment in acknowledged if moment > fault)]
    gaps = [(after - before, after) for before, after in itertools.pairwise(moments)]
    longest = max(gaps, default=(40.0, fault + 40.0))
    share = longest[1] - (promoted[0] if promoted else fault)
    return longest[0] if cause is _fail_over else longest[1] - fault, share


@asynccontextmanager
async def _promotion(port: int) -> AsyncIterator[list[float]]:
    """Filled with the moment at which that server becomes a primary."""
    moments: list[float] = []
    watch = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WATCH, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert watch.stdout is not None
    await watch.stdout.readline()

    async def read() -> None:
        assert watch.stdout is not None
        if line := await watch.stdout.readline():
            moments.append(float(line))

    reading = asyncio.create_task(read())
    try:
        yield moments
    finally:
        await asyncio.wait([reading], timeout=1.0)
        reading.cancel()
        with contextlib.suppress(ProcessLookupError):
            watch.kill()
        await watch.wait()


async def _write_on(write: Write, acknowledged: list[float], enough: asyncio.Event) -> None:
    while not enough.is_set():
        try:
            await write()
        except (RedisError, OSError, Unavailable, OutcomeUnknown):
            await asyncio.sleep(0.005)
        else:
            acknowledged.append(time.perf_counter())


def _fail_over(cluster: ClusterProcesses, old: int) -> int:
    return cluster.fail_over(old)


def _kill(cluster: ClusterProcesses, old: int) -> int:
    cluster.kill(old)
    return old


def _slot() -> int:
    return slot_of(KEY.encode())


# --- controllers -----------------------------------------------------------------------------------------------------


async def _controllers(cluster: ClusterProcesses) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds from a change to the last one's knowing it, and commands a second, by how many there are."""
    known: dict[str, float] = {}
    commands: dict[str, float] = {}
    async with (
        await connect(cluster.addresses, name="detector") as looking,
        await connect(cluster.addresses, name="controllers") as shared,
    ):
        detector = Detector(looking, name="bench")
        tasks = [asyncio.create_task(detector.run())]
        controllers: list[Availability] = []
        try:
            for count in CONTROLLERS:
                print(f"{count} controllers", file=sys.stderr, flush=True)
                await asyncio.to_thread(wait_until, cluster.whole, "a whole cluster", 60.0)
                while len(controllers) < count:
                    controllers.append(Availability(shared))
                    tasks.append(asyncio.create_task(controllers[-1].run()))
                    if len(controllers) % 50 == 0:
                        await asyncio.sleep(0.05)
                await _until(lambda: detector.generation > 0 and all(one.reads for one in controllers))
                await asyncio.sleep(2.0)
                commands[str(count)] = round(await _commands(cluster), 1)
                known[str(count)] = round(await _last_knows(cluster, shared, controllers) * 1000, 1)
                await asyncio.sleep(SPACING)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return known, commands


async def _last_knows(cluster: ClusterProcesses, shared: Client, controllers: list[Availability]) -> float:
    """From the promotion on, with one writer that meets the MOVED."""
    before = {id(one): one._digest for one in controllers}  # noqa: SLF001 (what each has heard)
    await asyncio.to_thread(cluster.fail_over, cluster.owner(_slot()))
    promoted = time.perf_counter()
    await shared.execute("SET", KEY, "v", retry="always")
    await _until(lambda: all(one._digest != before[id(one)] for one in controllers))  # noqa: SLF001
    return time.perf_counter() - promoted


async def _commands(cluster: ClusterProcesses) -> float:
    before, begun = _processed(cluster), time.perf_counter()
    await asyncio.sleep(COUNTED_SECONDS)
    after, spent = _processed(cluster), time.perf_counter() - begun
    return (after - before - len(cluster.alive)) / spent  # without those that count


def _processed(cluster: ClusterProcesses) -> int:
    """Commands that are no replication traffic of a link."""
    total = 0
    for n in cluster.alive:
        said = cluster.client(n).info("commandstats")
        total += sum(one["calls"] for name, one in said.items() if name != "cmdstat_replconf")
    return total


async def _until(claim: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.perf_counter() + patience
    while not claim():
        if time.perf_counter() > deadline:
            raise TimeoutError("the controllers do not come to know it")
        await asyncio.sleep(0.002)


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{NAME}: ms to the first write after the fault, median of {found['config']['runs']} runs", ""]
    for event, case in found["cases"].items():
        lines.append(f"{event:<26} ours {case['ours']:>9}   redis-py {case['peer']:>9}   {case['ratio']} times")
    known, commands = found["last_controller_knows_ms"], found["topology_commands_per_second"]
    lines += [f"{count:>5} controllers: the last knows after {ms} ms" for count, ms in known.items()]
    lines += [f"{count:>5} controllers: {rate} commands/s" for count, rate in commands.items()]
    return "\n".join(lines)

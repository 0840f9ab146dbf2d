"""A process that does nothing but write: `python -m benchmarks.writer SPEC DIRECTORY`. SIGTERM ends it.

Each write sets a new key and waits for its acknowledgement. Every client is used as its own users would: ours through
`redkeep.northbound.connect`; redis-py with its retries off and 10 ms between attempts, which is the quickest that it
gets, since its defaults back off for up to a second. One that knows its servers by address tries the next one at once
when one refuses, and pauses only after it has asked all.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from benchmarks.record import KEY, Progress, Record
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound import Client, connect

LONGEST_LIFE = 180.0
"""Seconds after which it ends in any case: whoever started it may be gone."""
PAUSE = 0.01
SOCKET_TIMEOUT = 1.0

Write = Callable[[str, int], object]
"""Sets a key, once; raises redis-py's errors."""


class Log:
    """Notes acknowledgements for the end, and the last one for who watches."""

    def __init__(self, directory: Path) -> None:
        self.record = Record()
        self._progress = Progress(directory / "progress")

    def acknowledge(self, number: int) -> None:
        now = time.monotonic()
        self.record.acknowledged.append(number)
        self.record.times.append(now)
        self._progress.write(number, now)


def write_through_redkeep(spec: dict[str, Any], log: Log) -> None:
    async def main() -> None:
        async with await connect(spec["addresses"], password=spec["password"]) as client:
            writing = asyncio.ensure_future(_write_for_ever(client, log))
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, writing.cancel)
            await asyncio.wait([writing], timeout=LONGEST_LIFE)
            if not writing.cancelled() and writing.done():
                writing.result()

    asyncio.run(main())


async def _write_for_ever(client: Client, log: Log) -> None:
    for number in itertools.count(1):
        try:
            await client.execute("SET", KEY % number, number, timeout=30)
        except (OutcomeUnknown, Unavailable):
            log.record.failed += 1
        else:
            log.acknowledge(number)


def write_through_sentinel(spec: dict[str, Any], log: Log) -> None:
    once = Retry(NoBackoff(), 0)
    options: dict[str, Any] = {"socket_timeout": SOCKET_TIMEOUT, "retry": once}
    sentinel = Sentinel([tuple(one) for one in spec["sentinels"]], sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    primary = sentinel.master_for(spec["service"], **options)  # type: ignore[no-untyped-call]
    _write_until_stopped(primary.set, log)


def write_by_address(spec: dict[str, Any], log: Log) -> None:
    options: dict[str, Any] = {"socket_timeout": SOCKET_TIMEOUT, "retry": Retry(NoBackoff(), 0)}
    clients = [Redis(host, int(port), **options) for host, port in (one.split(":") for one in spec["addresses"])]
    for client in clients:
        client.ping()
    current = 0

    def write(key: str, value: int) -> None:
        nonlocal current
        for _ in range(len(clients) - 1):
            try:
                clients[current].set(key, value)
            except RedisError:
                current = (current + 1) % len(clients)
            else:
                return
        clients[current].set(key, value)

    _write_until_stopped(write, log)


def write_to_cluster(spec: dict[str, Any], log: Log) -> None:
    places = (one.split(":") for one in spec["addresses"])
    nodes = [ClusterNode(host, int(port)) for host, port in places]  # type: ignore[no-untyped-call]
    once = Retry(NoBackoff(), 0)
    client = RedisCluster(startup_nodes=nodes, password=spec["password"], socket_timeout=SOCKET_TIMEOUT, retry=once)
    tag = spec["tag"]
    _write_until_stopped(lambda key, value: client.set(f"{{{tag}}}{key}", value), log)


def _write_until_stopped(write: Write, log: Log) -> None:
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    deadline = time.monotonic() + LONGEST_LIFE
    for number in itertools.count(1):
        if stopped or time.monotonic() > deadline:
            return
        try:
            write(KEY % number, number)
        except RedisError:
            log.record.failed += 1
            time.sleep(PAUSE)
        else:
            log.acknowledge(number)


WAYS: dict[str, Callable[[dict[str, Any], Log], None]] = {
    "redkeep": write_through_redkeep,
    "sentinel": write_through_sentinel,
    "addresses": write_by_address,
    "cluster": write_to_cluster,
}


def main() -> None:
    """The process."""
    spec, directory = json.loads(sys.argv[1]), Path(sys.argv[2])
    log = Log(directory)
    WAYS[spec["way"]](spec, log)
    log.record.save(directory / "record")


if __name__ == "__main__":
    main()

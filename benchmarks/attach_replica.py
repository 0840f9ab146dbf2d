"""Give a primary its first replicas, against Redis' default configuration: seconds until all are in step."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.contest import OURS, Options, circumstances
from benchmarks.groups import WHOLE_LIMIT, Servers
from benchmarks.product import Redkeep
from benchmarks.writing import until
from redkeep.testing.servers import RedisProcess

NAME = "attach-replica"
PEER = "redis-defaults"
MEGABYTES = 500
LIMIT = 180.0
MOST_IN_ONE_ORDER = 4
"""As the installation is configured here; by default it is three, as in Trove."""


class Source(Protocol):
    """A primary full of data, and no replica yet."""

    name: str
    servers: Servers

    def attach(self, count: int) -> None:
        """Ask for so many replicas. May return before there are any."""
        ...

    def detach(self) -> None:
        """End all replicas."""
        ...

    def close(self) -> None: ...


class Ours(Redkeep):
    """Ordered through REST: its time includes placing, starting and recording."""

    def __init__(self, version: str, megabytes: int) -> None:
        super().__init__(version, megabytes, replicas=0)
        self._source = next(iter(self._members.values()))

    def attach(self, count: int) -> None:
        """More than one order takes are two, worked on one after the other."""
        for few in range(count, 0, -MOST_IN_ONE_ORDER):
            self.order_replicas(self._source, min(few, MOST_IN_ONE_ORDER))

    def detach(self) -> None:
        until(lambda: all(one["status"] == "ACTIVE" for one in self._list()), WHOLE_LIMIT, "active replicas")
        for one in self._list():
            if one["id"] != self._source:
                self._api.delete(f"/v1.0/admin/instances/{one['id']}").raise_for_status()
        until(lambda: len(self._list()) == 1, WHOLE_LIMIT, "the end of the replicas")


class Defaults:
    """Plain servers; the replicas run already when the clock starts. They keep no append only file, as ours do."""

    name = PEER

    def __init__(self, version: str, megabytes: int) -> None:
        self._version = version
        self._replicas: list[RedisProcess] = []
        self._primary = RedisProcess(version=version).start()
        self.servers = Servers([self._primary.address])
        self.servers.fill(megabytes)

    def prepare(self, count: int) -> None:
        self._replicas = [RedisProcess(version=self._version).start() for _ in range(count)]

    def attach(self, count: int) -> None:
        for one in self._replicas[:count]:
            with one.client() as redis:
                redis.replicaof(self._primary.address.host, self._primary.address.port)

    def detach(self) -> None:
        for one in self._replicas:
            one.close()

    def close(self) -> None:
        self.detach()
        self._primary.close()


def run(options: Options) -> dict[str, Any]:
    """The JSON object; under `replicas`, the figures by how many were attached."""
    megabytes = options.megabytes or MEGABYTES
    load = [os.getloadavg()[0]]
    makers: Mapping[str, Callable[[], Source]] = {
        OURS: lambda: Ours(options.version, megabytes),
        PEER: lambda: Defaults(options.version, megabytes),
    }
    with contextlib.ExitStack() as stack:
        sources = {}
        for name, make in makers.items():
            print(f"preparing {name}", file=sys.stderr, flush=True)
            sources[name] = make()
            stack.callback(sources[name].close)
        found = {str(count): _compare(sources, count, options.runs) for count in options.replicas}
    load.append(os.getloadavg()[0])
    config = {
        "data_mb": megabytes,
        "values": "1000 bytes, incompressible",
        "ours": "from the request to REST until the servers are in step: with placing and starting them",
        "peer": "from REPLICAOF on running servers until they are in step",
        **circumstances(options),
        "members": "1 primary, and as many replicas as named, all on this machine",
        "load_average": [round(one, 2) for one in load],
    }
    first = next(iter(found.values()))
    return {"name": NAME, "unit": "s", **first, "peer_name": PEER, "replicas": found, "config": config}


def _compare(sources: Mapping[str, Source], count: int, runs: int) -> dict[str, Any]:
    """They take turns."""
    samples: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(1, runs + 1):
        for name, source in sources.items():
            samples[name].append(_attach(source, count))
            print(f"run {number}/{runs} {name}: {count} in {samples[name][-1]:.2f} s", file=sys.stderr, flush=True)
    ours, peer = (statistics.median(samples[name]) for name in (OURS, PEER))
    return {
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "ratio": round(peer / ours, 1),
        "runs": runs,
        "spread": {"min": round(min(samples[OURS]), 2), "max": round(max(samples[OURS]), 2)},
        "samples": {name: [round(one, 2) for one in found] for name, found in samples.items()},
    }


def _attach(source: Source, count: int) -> float:
    if isinstance(source, Defaults):
        source.prepare(count)
    began = time.monotonic()
    source.attach(count)
    until(lambda: _in_step(source.servers, count), LIMIT, f"{source.name}: {count} replicas in step")
    seconds = time.monotonic() - began
    source.detach()
    until(lambda: _in_step(source.servers, 0), LIMIT, f"{source.name}: no replica")
    return seconds


def _in_step(servers: Servers, count: int) -> bool:
    """The primary sends its stream to so many, and each says itself that its link is up."""
    (primary,) = servers.addresses
    said = servers.ask("replication").get(primary, {})
    found = [said[f"slave{number}"] for number in range(int(said.get("connected_slaves", 0)))]
    return len(found) == count and all(
        one["state"] == "online" and _is_up(one["ip"], one["port"], servers.password) for one in found
    )


def _is_up(host: str, port: int, password: str | None) -> bool:
    with Redis(host, port, password=password, socket_timeout=1) as redis:
        try:
            return bool(redis.info("replication").get("master_link_status") == "up")
        except RedisError:
            return False


def table(found: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [f"{NAME}: seconds until all replicas are in step, {found['runs']} runs each, taking turns", ""]
    lines += [f"{'replicas':<12}{'redkeep':>10}{PEER:>18}{'ratio':>10}"]
    lines += [
        f"{count:<12}{one['ours']:>10}{one['peer']:>18}{one['ratio']:>10}" for count, one in found["replicas"].items()
    ]
    return "\n".join(lines)

"""Redis Clusters under test: ours, made by `redkeep up` through REST, and plain ones, made by `redis-cli`."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError
from redis.retry import Retry

from benchmarks.product import Redkeep
from benchmarks.record import KEY
from benchmarks.writing import Failed, until
from redkeep.model.slots import SLOTS, parse_nodes, slot_of
from redkeep.model.topology import Address
from redkeep.testing.clusters import ClusterProcesses
from redkeep.testing.servers import RedisProcess, free_port

WHOLE_LIMIT = 120.0
VALUE = b"x" * 100
TAG = "bench"
"""What the writer's keys have in braces, so that all are of one shard."""


class Nodes:
    """The members of a cluster as a client reaches them."""

    def __init__(self, addresses: Sequence[Address], password: str | None = None) -> None:
        self.addresses = tuple(addresses)
        self.password = password
        self._clients = {one: Redis(one.host, one.port, password=password, socket_timeout=5) for one in addresses}

    def client(self, address: Address) -> Redis:
        return self._clients[address]

    def nodes(self, address: Address) -> str:
        """CLUSTER NODES, past redis-py's parsing."""
        client = self._clients[address]
        connection = client.connection_pool.get_connection()
        try:
            connection.send_command("CLUSTER", "NODES")  # type: ignore[no-untyped-call]
            return str(connection.read_response().decode())
        finally:
            client.connection_pool.release(connection)

    def agree(self) -> bool:
        """Every member says ok, all views are the same, all slots are owned, and all replicas hear their primary."""
        shapes, covered = set(), 0
        try:
            for address, client in self._clients.items():
                view = parse_nodes(self.nodes(address), address)
                info = str(client.execute_command("CLUSTER INFO"))  # type: ignore[no-untyped-call]
                if "ok" not in info.split("slots_assigned", maxsplit=1)[0] or len(view.members) != len(self.addresses):
                    return False
                said = client.info("replication")
                if said["role"] == "slave" and said["master_link_status"] != "up":
                    return False
                shapes.add(view.shape)
                covered = view.covered
        except (RedisError, ValueError, OSError):
            return False
        return len(shapes) == 1 and covered == SLOTS

    def owner(self, slot: int) -> Address:
        """The primary that has it, by the view of the first that answers."""
        for address in self.addresses:
            with contextlib.suppress(RedisError, OSError, ValueError):
                for one in parse_nodes(self.nodes(address), address).primaries:
                    if any(first <= slot <= last for first, last in one.ranges):
                        return one.address
        raise Failed(f"nobody owns slot {slot}")

    def replica_of(self, primary: Address) -> Address:
        view = parse_nodes(self.nodes(primary), primary)
        own = next(one.id for one in view.members if one.address == primary)
        return next(one.address for one in view.members if one.primary_id == own)

    def cluster(self) -> RedisCluster:
        """A client as its users have it, but for the pauses between attempts."""
        nodes = [ClusterNode(one.host, one.port) for one in self.addresses]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, password=self.password, socket_timeout=1, retry=Retry(NoBackoff(), 1))

    def fill(self, count: int) -> None:
        """So many keys, spread over all slots that are owned."""
        pipes: dict[Address, Any] = {}
        ranges = [
            (first, last, one.address)
            for one in parse_nodes(self.nodes(self.addresses[0]), self.addresses[0]).primaries
            for first, last in one.ranges
        ]
        for number in range(count):
            slot = slot_of(key := b"key:%d" % number)
            address = next(where for first, last, where in ranges if first <= slot <= last)
            pipes.setdefault(address, self._clients[address].pipeline(transaction=False)).set(key, VALUE)
            if number % 10_000 == 0:
                for pipe in pipes.values():
                    pipe.execute()
        for pipe in pipes.values():
            pipe.execute()

    def keys(self) -> int:
        """Of all primaries."""
        owners = {one.address for one in parse_nodes(self.nodes(self.addresses[0]), self.addresses[0]).primaries}
        return sum(int(self._clients[one].dbsize()) for one in owners)


class RedkeepCluster(Redkeep):
    """`redkeep up`, and a cluster that was ordered from it."""

    def __init__(self, version: str, primaries: int, replicas: int) -> None:
        self._shape = (primaries, replicas)
        self.ids: dict[Address, str] = {}
        super().__init__(version, 0, replicas=replicas)

    def _order(self, version: str, replicas: int) -> tuple[str, dict[Address, str]]:
        body = {
            "name": "bench",
            "datastore": {"type": "redis", "version": version},
            "instances": [{"flavorRef": "3", "volume": {"size": 2}}] * self._shape[0],
            "replicas_per_shard": replicas,
        }
        made = self._api.post("/v1.0/admin/clusters", json={"cluster": body})
        if not made.is_success:
            raise Failed(f"POST /clusters: {made.status_code} {made.text}")
        self.id, password = made.json()["cluster"]["id"], made.json()["cluster"]["password"]
        self.until_free()
        shown = self._shown()["instances"]
        self.ids = {Address(one["ip"][0], one["port"]): one["id"] for one in shown}
        return password, self.ids

    def _serve(self) -> None:
        self.nodes = Nodes(list(self.ids), self._password)
        until(self.nodes.agree, WHOLE_LIMIT, "a cluster of redkeep that agrees")

    def fill(self, megabytes: int) -> None:
        """By whoever needs it."""

    def _shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get(f"/v1.0/admin/clusters/{self.id}").json()["cluster"]
        return found

    def until_free(self) -> None:
        """Nothing is being done with it. Raises Failed when that ended badly."""

        def free() -> bool:
            shown = self._shown()
            if shown.get("fault"):
                raise Failed(str(shown["fault"]))
            return bool(shown["task"]["name"] == "NONE")

        until(free, WHOLE_LIMIT, "a cluster that is free")

    def act(self, action: Mapping[str, Any]) -> None:
        """One action, to its end."""
        reply = self._api.post(f"/v1.0/admin/clusters/{self.id}", json=dict(action))
        if not reply.is_success:
            raise Failed(f"{action}: {reply.status_code} {reply.text}")
        self.until_free()

    def process(self, address: Address) -> psutil.Process:
        return next(one for one in self._servers() if one.cwd().endswith(self.ids[address]))

    def kill(self, address: Address) -> None:
        self.process(address).kill()

    def bring_back(self) -> None:
        """The product's own business."""

    def promote_replica(self, replica: Address) -> None:
        self.act({"promote": {"id": self.ids[replica]}})


class PlainCluster:
    """Members that nobody manages, with what an operator has: redis-cli, and an init system."""

    def __init__(self, version: str, primaries: int, replicas: int, *, timeout_ms: int = 15000, name: str = "") -> None:
        self.name = name or f"cluster-{timeout_ms}ms"
        directives = ("appendonly yes", "cluster-allow-replica-migration no", "repl-diskless-sync yes")
        self.processes = ClusterProcesses(
            *directives, version=version, primaries=primaries, replicas=replicas, timeout_ms=timeout_ms
        )
        self.nodes = Nodes(self.processes.addresses)
        self._killed: int | None = None

    def kill(self, address: Address) -> None:
        self._killed = self.processes.place(address)
        self.processes.kill(self._killed)

    def bring_back(self) -> None:
        """After the members have elected."""
        if self._killed is not None:
            self.processes.restart(self._killed)
            self._killed = None

    def promote_replica(self, replica: Address) -> None:
        """CLUSTER FAILOVER, and ROLE until it says so: the command answers before anything has happened."""
        client = self.nodes.client(replica)
        client.execute_command("CLUSTER", "FAILOVER")  # type: ignore[no-untyped-call]
        until(lambda: client.info("replication")["role"] == "master", 30, "CLUSTER FAILOVER")

    def cli(self, *command: str) -> None:
        run_cli(*command)

    def close(self) -> None:
        self.processes.close()


def run_cli(*command: str) -> None:
    """`redis-cli --cluster ...`. Raises Failed with the end of what it said."""
    said = subprocess.run(
        ["redis-cli", "--cluster", *command], capture_output=True, text=True, timeout=300, check=False
    )
    if said.returncode:
        raise Failed(f"redis-cli --cluster {command[0]}: {said.stdout[-300:]} {said.stderr[-300:]}")


def loose_servers(count: int, version: str) -> list[RedisProcess]:
    """Running members that know nobody."""
    directives = ("cluster-enabled yes", "appendonly no", "cluster-node-timeout 15000")
    return [RedisProcess(*directives, version=version, port=free_port()).start() for _ in range(count)]


class LightLoad:
    """A client that reads and writes keys all over the cluster, a few hundred a second; how long each took."""

    PAUSE = 0.003

    def __init__(self, nodes: Nodes, keys: int) -> None:
        self._nodes, self._keys = nodes, keys
        self._stop = threading.Event()
        self.times: list[tuple[float, float]] = []
        """When each began, and how many seconds it took."""
        self.failed = 0

    def _run(self) -> None:
        client = self._nodes.cluster()
        for number in range(10**9):
            if self._stop.is_set():
                break
            began = time.monotonic()
            key = f"key:{(number * 7919) % self._keys}"
            try:
                client.set(key, VALUE) if number % 2 else client.get(key)
            except (RedisError, OSError, AttributeError):  # redis-py's own, of ASK targets that it does not know
                self.failed += 1
            else:
                self.times.append((began, time.monotonic() - began))
            self._stop.wait(self.PAUSE)
        client.close()

    def between(self, first: float, last: float) -> list[float]:
        """Milliseconds of those that began then."""
        return [took * 1000 for began, took in self.times if first <= began <= last]

    @contextlib.contextmanager
    def running(self) -> Iterator[LightLoad]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()


def cluster_spec(nodes: Nodes) -> dict[str, Any]:
    """How `benchmarks.writer` reaches it."""
    return {
        "way": "cluster",
        "addresses": [str(one) for one in nodes.addresses],
        "password": nodes.password,
        "tag": TAG,
    }


def lost(nodes: Nodes, numbers: Sequence[int]) -> int:
    """How many of the writer's acknowledged writes are not there; all of them are taken away."""
    client = nodes.client(nodes.owner(slot_of(TAG.encode())))
    missing = 0
    for start in range(0, len(numbers), 500):
        few = numbers[start : start + 500]
        with client.pipeline(transaction=False) as pipe:
            for number in few:
                pipe.delete(f"{{{TAG}}}{KEY % number}")
            missing += sum(not found for found in pipe.execute())
    return missing

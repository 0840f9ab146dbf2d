"""A real Redis Cluster for tests and benchmarks: on free ports, gone with the block."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from redkeep.model.slots import SLOTS, ClusterView, parse_nodes
from redkeep.model.topology import Address
from redkeep.testing.netns import Net
from redkeep.testing.servers import RedisProcess, free_port

PATIENCE = 30.0


def wait_until(claim: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Ask until it is so; while servers change, asking may fail. Raises TimeoutError."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(RedisError, ValueError, StopIteration):
            if claim():
                return
        time.sleep(0.01)
    raise TimeoutError(f"not within {patience} s: {what}")


class ClusterProcesses:
    """`primaries` primaries with so many replicas each. Nodes are named by their place in `servers`."""

    def __init__(
        self,
        *directives: str,
        version: str | None = None,
        primaries: int = 3,
        replicas: int = 3,
        timeout_ms: int = 1000,
        net: Net | None = None,
    ) -> None:
        """With a `net` each node lives on a host of its own there, the first on host 1."""
        self._version = version
        self._net = net
        self._directives = (
            "cluster-enabled yes",
            f"cluster-node-timeout {timeout_ms}",
            "cluster-replica-validity-factor 0",
            "repl-diskless-sync no",
            "appendonly no",
            *(["protected-mode no"] if net else []),
            *directives,
        )
        self.servers: list[RedisProcess] = []
        self._clients: dict[int, Redis] = {}
        try:
            for _ in range(primaries + replicas):
                self.add()
            self._form(primaries)
        except BaseException:
            self.close()
            raise

    # --- building ----------------------------------------------------------------------------------------------------

    def add(self) -> int:
        """Start one more node that knows nobody; its place."""
        place = len(self.servers) + 1
        host, within = (self._net.address(place), self._net.command(place)) if self._net else ("127.0.0.1", [])
        server = RedisProcess(*self._directives, version=self._version, port=free_port(), host=host, within=within)
        self.servers.append(server)
        server.start()
        return len(self.servers) - 1

    def _form(self, primaries: int) -> None:
        share = SLOTS / primaries
        for n in range(len(self.servers)):
            self.order(n, "CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            if n < primaries:
                self.order(n, "CLUSTER", "ADDSLOTS", *range(round(n * share), round((n + 1) * share)))
        self.meet(*range(len(self.servers)))
        for n in range(primaries, len(self.servers)):
            self.replicate(n, n % primaries)
        wait_until(self.whole, "a whole cluster")

    def meet(self, *places: int) -> None:
        """Introduce all to each other, and wait until all know all."""
        for n in places:
            for other in places:
                if n < other:
                    self.order(n, "CLUSTER", "MEET", self.servers[other].address.host, self.servers[other].port)
        wait_until(lambda: all(len(self.view(n).members) >= len(places) for n in places), "nodes that know each other")

    def replicate(self, n: int, primary: int) -> None:
        self.order(n, "CLUSTER", "REPLICATE", self.id(primary))

    def move_slot(self, slot: int, source: int, target: int) -> None:
        """One slot and its keys, as redis-cli does."""
        self.begin_move(slot, source, target)
        while keys := self.order(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            where = self.servers[target].address
            self.order(source, "MIGRATE", where.host, where.port, "", 0, 5000, "KEYS", *keys)
        self.end_move(slot, source, target)

    def begin_move(self, slot: int, source: int, target: int) -> None:
        """From here on the source answers ASK for keys that it does not have."""
        self.order(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        self.order(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))

    def end_move(self, slot: int, source: int, target: int) -> None:
        self.order(target, "CLUSTER", "SETSLOT", slot, "NODE", self.id(target))
        with contextlib.suppress(ResponseError):  # without its last slot it has become a replica already
            self.order(source, "CLUSTER", "SETSLOT", slot, "NODE", self.id(target))

    # --- looking -----------------------------------------------------------------------------------------------------

    def client(self, n: int) -> Redis:
        if n not in self._clients:
            self._clients[n] = self.servers[n].client()
        return self._clients[n]

    def order(self, n: int, *command: str | bytes | int) -> Any:
        return self.client(n).execute_command(*command, target_nodes=None)  # type: ignore[no-untyped-call]

    def view(self, n: int) -> ClusterView:
        """As node `n` sees it."""
        connection = self.client(n).connection_pool.get_connection()
        try:
            connection.send_command("CLUSTER", "NODES")  # type: ignore[no-untyped-call]  # past redis-py's parsing
            return parse_nodes(connection.read_response().decode(), self.servers[n].address)
        finally:
            self.client(n).connection_pool.release(connection)

    def id(self, n: int) -> str:
        return str(self.order(n, "CLUSTER", "MYID").decode())

    @property
    def alive(self) -> list[int]:
        return [n for n, server in enumerate(self.servers) if server.running]

    def whole(self) -> bool:
        """All that run agree on owners of all slots, and all replicas are in sync."""
        shapes = set()
        for n in self.alive:
            info = self.order(n, "CLUSTER", "INFO")
            text = info if isinstance(info, bytes) else str(info).encode()
            if b"ok" not in text.split(b"cluster_slots_assigned")[0]:
                return False
            view = self.view(n)
            failed = {one.id for one in view.members if one.failed}
            shapes.add(frozenset((one.id, one.ranges) for one in view.members if one.id not in failed))
            said = self.client(n).info("replication")
            if said["role"] == "slave" and said["master_link_status"] != "up":
                return False
        return len(shapes) == 1 and self._all_followed()

    def _all_followed(self) -> bool:
        """Every replica is known to its primary as online: until then it may not be elected."""
        view = self.view(self.alive[0])
        for member in view.members:
            if member.primary_id is None or member.failed:
                continue
            primary = self.place(next(one for one in view.members if one.id == member.primary_id).address)
            said = self.client(primary).info("replication")
            online = [v["port"] for k, v in said.items() if k.startswith("slave") and isinstance(v, dict)]
            if member.address.port not in online:
                return False
        return True

    def place(self, address: Address) -> int:
        return next(n for n, server in enumerate(self.servers) if server.port == address.port)

    def owner(self, slot: int, *, asked: int | None = None) -> int:
        """The place of the slot's owner, as somebody alive sees it."""
        view = self.view(self.alive[0] if asked is None else asked)
        holds = (one for one in view.primaries if any(first <= slot <= last for first, last in one.ranges))
        return self.place(next(holds).address)

    def replica_of(self, n: int) -> int:
        """A replica of that primary; waits until it has one."""
        own, found = self.id(n), list[int]()

        def look() -> bool:
            members = [one for one in self.view(n).members if one.primary_id == own and not one.failed]
            found.extend(self.place(one.address) for one in members)
            return bool(found)

        wait_until(look, f"a replica of {n}")
        return found[0]

    @property
    def addresses(self) -> list[Address]:
        return [server.address for server in self.servers]

    # --- faults ------------------------------------------------------------------------------------------------------

    def fail_over(self, primary: int) -> int:
        """`CLUSTER FAILOVER`, without a lost connection; the place of the new primary."""
        successor = self.replica_of(primary)
        self.order(successor, "CLUSTER", "FAILOVER")
        wait_until(lambda: self.client(successor).info("replication")["role"] == "master", "the failover")
        return successor

    def kill(self, n: int) -> None:
        self._forget(n)
        self.servers[n].kill()

    def restart(self, n: int) -> None:
        self._forget(n)
        self.servers[n].start()

    def remove(self, n: int) -> None:
        """Without its slots and replicas it leaves; its place stays empty."""
        own = self.id(n)
        for other in self.alive:
            if other != n:
                self.order(other, "CLUSTER", "FORGET", own)
        self.kill(n)

    def _forget(self, n: int) -> None:
        client = self._clients.pop(n, None)
        if client is not None:
            client.close()

    def flush(self) -> None:
        for member in self.view(self.alive[0]).primaries:
            self.client(self.place(member.address)).flushall()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                server.kill(signal.SIGCONT)
            server.close()


@contextlib.contextmanager
def cluster_processes(*directives: str, **options: Any) -> Iterator[ClusterProcesses]:
    """A running cluster for the length of the block."""
    cluster = ClusterProcesses(*directives, **options)
    try:
        yield cluster
    finally:
        cluster.close()

"""What people use instead: plain replication, and Redis Sentinel, as well tuned as they get."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.groups import WHOLE_LIMIT, Servers
from benchmarks.writing import until
from redkeep.model.topology import Address
from redkeep.redis.versions import find_servers
from redkeep.testing.servers import RedisProcess, free_port

DIRECTIVES = (
    "appendonly no",
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
    "repl-backlog-size 64mb",
)
"""As in the measured baseline; `save ''` comes with every test server. Ours keeps an append only file as well."""
SERVICE = "bench"


class Plain:
    """A primary and two replicas that nobody manages: an operator's commands, and a client that knows all addresses."""

    name = "failover-command"

    def __init__(self, version: str, megabytes: int) -> None:
        self._version = version
        self._processes: dict[Address, RedisProcess] = {}
        self._crashed: Address | None = None
        self._hung: Address | None = None
        with closed_on_error(self):
            first = self._start()
            for _ in range(2):
                self._start(f"replicaof {first.host} {first.port}")
            self.servers = Servers(list(self._processes))
            until(self.servers.whole, WHOLE_LIMIT, "plain replication")
            self.servers.fill(megabytes)

    def _start(self, *more: str, port: int | None = None) -> Address:
        process = RedisProcess(*DIRECTIVES, *more, version=self._version, port=port)
        self._processes[process.address] = process
        return process.start().address

    @property
    def client(self) -> Mapping[str, Any]:
        first = self.servers.primary()
        ordered = (first, *(one for one in self.servers.addresses if one != first))
        return {"way": "addresses", "addresses": [str(one) for one in ordered]}

    def crash(self) -> None:
        self._crashed = self.servers.primary()
        self._processes[self._crashed].kill()

    def hang(self) -> None:
        self._hung = self.servers.primary()
        self._processes[self._hung].kill(signal.SIGSTOP)

    def resume(self) -> None:
        """It is led back by those who manage it, if anybody does."""
        if self._hung is not None:
            self._processes[self._hung].kill(signal.SIGCONT)
            self._hung = None

    def bring_back(self) -> None:
        """As a careful operator would: a replica of its successor, or it would take everybody's data away."""
        if self._crashed is not None:
            crashed, self._crashed = self._crashed, None
            successor = self.servers.primary()
            self._processes[crashed].close()
            self._start(f"replicaof {successor.host} {successor.port}", port=crashed.port)

    def promote(self) -> None:
        """The FAILOVER command, and the other replica led after it by hand."""
        old = self.servers.client(self.servers.primary())
        successor, other = self.servers.replicas()
        old.execute_command("FAILOVER", "TO", successor.host, successor.port)  # type: ignore[no-untyped-call]
        until(lambda: self.servers.primary() == successor, 10, "FAILOVER")
        self.servers.client(other).replicaof(successor.host, successor.port)

    def settled(self) -> bool:
        return True

    def close(self) -> None:
        for process in self._processes.values():
            process.close()


class Sentinels(Plain):
    """The same, watched by three sentinels with a quorum of two."""

    def __init__(self, version: str, megabytes: int, *, down_after_ms: int) -> None:
        self.name = f"sentinel-{down_after_ms}ms"
        self._sentinels: list[SentinelProcess] = []
        super().__init__(version, megabytes)
        with closed_on_error(self):
            primary = self.servers.primary()
            for _ in range(3):
                self._sentinels.append(SentinelProcess(version, primary, down_after_ms))
            until(self.settled, 60, "three sentinels that know each other")

    @property
    def client(self) -> Mapping[str, Any]:
        places = [("127.0.0.1", one.port) for one in self._sentinels]
        return {"way": "sentinel", "service": SERVICE, "sentinels": places}

    def bring_back(self) -> None:
        """Not before all sentinels agree on the successor, so that the restart does not add to their work.

        Even so, with 200 ms they tend to fail over again at once, seen as lost writes and more full resyncs: they
        connect to a new primary once a second at the most, and call it down after a fifth of that.
        """
        until(lambda: self._agree(self.servers.primary()), WHOLE_LIMIT, "sentinels that agree")
        super().bring_back()

    def _agree(self, primary: Address) -> bool:
        return all(one.primary() == primary for one in self._sentinels)

    def promote(self) -> None:
        self._sentinels[0].ask("FAILOVER")

    def settled(self) -> bool:
        """All of them know the same healthy primary, both replicas as healthy ones, and each other."""
        primary = self.servers.primary()
        return all(one.is_content(primary) for one in self._sentinels)

    def close(self) -> None:
        for process in self._sentinels:
            process.close()
        super().close()


class SentinelProcess:
    """One sentinel, with Redis' defaults but for the time after which a silent primary is down."""

    def __init__(self, version: str, primary: Address, down_after_ms: int) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="redkeep-bench-sentinel-"))
        conf = self._directory / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._directory}\nlogfile {self._directory / 'log'}\n"
            f"sentinel monitor {SERVICE} {primary.host} {primary.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\n"
            f"sentinel failover-timeout {SERVICE} 180000\n"
            f"sentinel parallel-syncs {SERVICE} 1\n"
        )
        self._process = subprocess.Popen(
            [find_servers()[version], conf, "--sentinel"], start_new_session=True, stdout=subprocess.DEVNULL
        )
        self._redis = Redis("127.0.0.1", self.port, socket_timeout=5, decode_responses=True)

    def ask(self, *command: str) -> Any:
        """A SENTINEL subcommand about our group."""
        return self._redis.execute_command("SENTINEL", command[0], SERVICE, *command[1:])  # type: ignore[no-untyped-call]

    def primary(self) -> Address | None:
        """Whom it takes for a healthy primary."""
        try:
            said = _as_dict(self.ask("MASTER"))
        except RedisError:
            return None
        return Address(said["ip"], int(said["port"])) if said["flags"] == "master" else None

    def is_content(self, primary: Address) -> bool:
        """It knows this healthy primary, two healthy replicas and two other sentinels."""
        try:
            mine, replicas = _as_dict(self.ask("MASTER")), [_as_dict(one) for one in self.ask("REPLICAS")]
        except RedisError:
            return False
        return (
            self.primary() == primary
            and mine["num-other-sentinels"] == "2"
            and [one["flags"] for one in replicas] == ["slave", "slave"]
        )

    def close(self) -> None:
        self._redis.close()
        self._process.kill()
        self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)


def _as_dict(said: Any) -> dict[str, str]:
    """Names and values in turn (RESP2), or what redis-py has made of them already."""
    return said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))


@contextlib.contextmanager
def closed_on_error(owner: Plain) -> Any:
    """What was started is ended when the rest cannot be."""
    try:
        yield
    except BaseException:
        owner.close()
        raise

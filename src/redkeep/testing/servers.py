"""Real redis-server processes for tests: on a free port, gone with the block."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from redis import Redis
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError  # noqa: A004 (redis-py's names)

from redkeep.model.topology import Address
from redkeep.redis.versions import find_servers

BUS = 10000
"""What Redis Cluster adds to a node's port for its bus."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at this moment, nor the one of its cluster bus.

    Below those that the kernel gives to outgoing connections: one of these would take it between now and its use.
    """
    while not all(map(_is_free, (port := random.randrange(10000, 22000), port + BUS))):  # noqa: S311
        pass
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class RedisProcess:
    """One redis-server with an empty configuration but for what is asked. It survives `kill` and may start again."""

    def __init__(
        self,
        *directives: str,
        version: str | None = None,
        port: int | None = None,
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        """`within` is put before the command, as `ip netns exec ...` is."""
        servers = find_servers()
        self.program = servers[version] if version else next(iter(servers.values()))
        self.port = port or free_port()
        self.address = Address(host, self.port)
        self.directory = Path(tempfile.mkdtemp(prefix="redkeep-test-redis-"))
        self._directives = directives
        self._within = within
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"  # noqa: S101
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> RedisProcess:
        """Start and wait until it answers. Raises RuntimeError with the end of its log when it does not."""
        base = (
            f"port {self.port}\nbind {self.address.host}\ndir {self.directory}\nlogfile {self.directory}/log\nsave ''\n"
        )
        conf = self.directory / "redis.conf"
        conf.write_text(base + "\n".join(self._directives) + "\n")
        self._process = subprocess.Popen(
            [*self._within, self.program, conf], start_new_session=True, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(ConnectionError, TimeoutError, BusyLoadingError), self.client() as client:
                if client.execute_command("PING"):
                    return self
            time.sleep(0.01)
        log = self.directory / "log"
        raise RuntimeError(
            f"redis-server on {self.port} did not start: {log.read_text()[-500:] if log.exists() else ''}"
        )

    def client(self, **options: object) -> Redis:
        """A blocking redis-py client of this server."""
        password = next((d.split()[1] for d in self._directives if d.startswith("requirepass ")), None)
        where = {"host": self.address.host, "port": self.port}
        return Redis(**where, password=password, socket_timeout=5, **options)  # type: ignore[arg-type]

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; wait for the end unless it merely stops or continues the process."""
        os.kill(self.pid, how)
        if how not in (signal.SIGSTOP, signal.SIGCONT) and self._process is not None:
            self._process.wait(10)

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def redis_process(*directives: str, version: str | None = None) -> Iterator[RedisProcess]:
    """A running redis-server for the length of the block."""
    server = RedisProcess(*directives, version=version)
    try:
        yield server.start()
    finally:
        server.close()

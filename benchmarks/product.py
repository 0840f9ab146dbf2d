"""Our contestant: the whole product as it is shipped, `redkeep up` in a directory of its own, and its REST API."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.groups import WHOLE_LIMIT, Servers
from benchmarks.writing import Failed, until
from redkeep.model.topology import Address
from redkeep.testing.servers import free_port

START_LIMIT = 40.0
SHAPE: dict[str, Any] = {"flavorRef": "3", "volume": {"size": 2}}
"""1 GiB: room for every data set here, and a backlog of 64 MB, which the peers have as well."""


class Redkeep:
    """Ordered through REST, written to through `redkeep.northbound`, killed from outside."""

    name = "redkeep"

    def __init__(self, version: str, megabytes: int, *, replicas: int = 2) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="redkeep-bench-"))
        self._up: subprocess.Popen[bytes] | None = None
        self._hung: psutil.Process | None = None
        try:
            self._api = self._start()
            self._password, self._members = self._order(version, replicas)
            self._serve()
            self.fill(megabytes)
        except BaseException:
            self.close()
            raise

    def _serve(self) -> None:
        self.servers = Servers(list(self._members), self._password)
        until(self.servers.whole, WHOLE_LIMIT, "a group made by redkeep")

    def fill(self, megabytes: int) -> None:
        self.servers.fill(megabytes)

    # --- the installation -----------------------------------------------------------------------------------------

    def _start(self) -> httpx.Client:
        port, low = free_port(), _free_range(8)
        (self.directory / "redkeep.conf").write_text(f"[agent]\nports = {low}-{low + 7}\n[api]\nmax_replicas = 4\n")
        with (self.directory / "up.log").open("wb") as log:
            self._up = subprocess.Popen(
                (
                    *(sys.executable, "-m", "redkeep", "up", "--auth", "noauth", "--state-dir", str(self.directory)),
                    *("--port", str(port), "--northbound-port", str(free_port())),
                ),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        until(lambda: self._serves(client), START_LIMIT, "redkeep up")
        until(lambda: _has_a_host(client), START_LIMIT, "an agent that is known to redkeep")
        return client

    def _serves(self, client: httpx.Client) -> bool:
        if self._up is not None and self._up.poll() is not None:
            raise Failed(f"redkeep up has ended:\n{self.log()}")
        with contextlib.suppress(httpx.HTTPError):
            return client.get("/healthz").is_success
        return False

    def log(self) -> str:
        """The end of what it said."""
        return (self.directory / "up.log").read_text(errors="replace")[-2000:]

    def _order(self, version: str, replicas: int) -> tuple[str, dict[Address, str]]:
        """A primary and its replicas; the password, and the ids by address."""
        primary = self._post(
            "/instances", {"name": "bench", "datastore": {"type": "redis", "version": version}} | SHAPE
        )
        self._until_active(primary["id"])
        if replicas:
            self.order_replicas(primary["id"], replicas)
        shown = [self._until_active(one["id"]) for one in self._list()]
        return primary["password"], {Address(one["ip"][0], one["port"]): one["id"] for one in shown}

    def order_replicas(self, source: str, count: int) -> None:
        """Ask for them; they come when they come."""
        self._post("/instances", {"name": "replica", "replica_of": source, "replica_count": count} | SHAPE)

    def _post(self, path: str, instance: dict[str, Any]) -> dict[str, Any]:
        reply = self._api.post(f"/v1.0/admin{path}", json={"instance": instance})
        if not reply.is_success:
            raise Failed(f"POST {path}: {reply.status_code} {reply.text}")
        made: dict[str, Any] = reply.json()["instance"]
        return made

    def _list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.get("/v1.0/admin/instances").json()["instances"]
        return found

    def _until_active(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = {}

        def active() -> bool:
            shown.update(self._api.get(f"/v1.0/admin/instances/{name}").json()["instance"])
            if shown["status"] == "ERROR":
                raise Failed(f"{shown['name']} is in ERROR: {shown.get('fault')}")
            return bool(shown["status"] == "ACTIVE")

        until(active, WHOLE_LIMIT, "an active instance")
        return shown

    # --- as a contestant ------------------------------------------------------------------------------------------

    @property
    def client(self) -> Mapping[str, Any]:
        addresses = [str(one) for one in self.servers.addresses]
        return {"way": "redkeep", "addresses": addresses, "password": self._password}

    def crash(self) -> None:
        self._primary_process().kill()

    def hang(self) -> None:
        self._hung = self._primary_process()
        self._hung.suspend()

    def resume(self) -> None:
        """It has been killed by now: there is nothing to resume. If not, that is what the benchmark is to find."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._hung is not None:
                self._hung.resume()

    def _primary_process(self) -> psutil.Process:
        name = self._members[self.servers.primary()]
        found = [process for process in self._servers() if process.cwd().endswith(name)]
        if len(found) != 1:
            raise Failed(f"{len(found)} processes serve instance {name}")
        return found[0]

    def bring_back(self) -> None:
        """The product's own business."""

    def promote(self) -> None:
        name = self._members[self.servers.replicas()[0]]
        body: dict[str, Any] = {"promote_to_replica_source": {}}
        reply = self._api.post(f"/v1.0/admin/instances/{name}/action", json=body)
        if not reply.is_success:
            raise Failed(f"promote: {reply.status_code} {reply.text}")

    def settled(self) -> bool:
        """All instances are active, and the rows name the primary that the servers name."""
        shown, primary = self._list(), self._members[self.servers.primary()]
        follows = {one["id"]: one.get("replica_of", {}).get("id") for one in shown}
        return all(one["status"] == "ACTIVE" for one in shown) and all(
            source == (None if name == primary else primary) for name, source in follows.items()
        )

    def close(self) -> None:
        """End Redkeep, and then its Redis servers, which would outlive it."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._up.wait(20)
        for process in (*self._servers(), *self._services()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _servers(self) -> list[psutil.Process]:
        """The redis-servers whose files are in our directory, whoever is their parent."""
        running = psutil.process_iter(["name", "cwd"])
        return [
            one
            for one in running
            if one.info["name"] == "redis-server" and (one.info["cwd"] or "").startswith(str(self.directory))
        ]

    def _services(self) -> list[psutil.Process]:
        """What is left of the process tree."""
        running = psutil.process_iter(["cmdline"])
        return [one for one in running if str(self.directory) in (one.info["cmdline"] or ()) and one.pid != os.getpid()]


def _has_a_host(client: httpx.Client) -> bool:
    """A version of Redis is on offer as soon as a host has reported that it has one."""
    reply = client.get("/v1.0/admin/datastores/redis/versions")
    return reply.is_success and bool(reply.json()["versions"])


def _free_range(size: int) -> int:
    """The first of so many free ports in a row, below those that the kernel gives to clients."""
    for _ in range(100):
        low = random.randrange(10_000, 32_000)
        if all(_is_free(port) for port in range(low, low + size)):
            return low
    raise Failed(f"no {size} free ports in a row between 10000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False

"""Two sites on one machine: each with its agent, its API and its managers as processes of their own, which can be lost.

The database and the northbound are at neither: they are what both sites reach, as a third place would have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from redkeep.northbound import connect
from redkeep.testing.servers import RedisProcess, free_port
from redkeep.testing.writer import Writer
from redkeep.vault import Vault

NORTH, SOUTH = "north", "south"
MANAGERS = {NORTH: ("north-1", "north-2"), SOUTH: ("south-1",)}
VERSION = {"OpenStack-API-Version": "volume 3.26"}
PROGRESS = "redkeep:failover"
START_LIMIT = 60.0
READY_LIMIT = 300.0
WRITE_PAUSE = 0.02
"""Seconds between two writes to one instance."""
AT_ONCE = 6
"""Orders under way at a time."""


class Stuck(Exception):
    """Something did not come about in time, or was refused."""


@dataclass
class Ordered:
    """An instance with a replica at the other site."""

    id: str
    name: str
    password: str
    addresses: tuple[str, ...] = ()


@dataclass
class TwoSites:
    """Use `two_sites()`; it makes the directory and ends every process."""

    directory: Path
    control: RedisProcess
    site_lease: float = 5.0
    ports: Mapping[str, int] = field(default_factory=lambda: {NORTH: free_port(), SOUTH: free_port()})
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # --- processes ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Write the settings; start everything at both sites; wait until both have reported."""
        Vault.open(self.directory / "secret.key")
        (self.directory / "redkeep.conf").write_text(
            f"[northbound]\nurl = redis://:secret@{self.control.address}\n"
            f"[api]\nauth = noauth\nport = {self.ports[SOUTH]}\nmax_instances = 5000\nmax_volume_gb = 100000\n"
            f"[backend]\ndriver = redis_sites\nsite = {NORTH}\nreplication_device = backend_id:{SOUTH}\n"
            f"site_lease = {self.site_lease}\n"
            "[manager]\nreport_interval = 0.5\nservice_down_time = 5\ncanary_interval = 1\n"
        )
        for site in (NORTH, SOUTH):
            self.start(site)
        await self.until(self._both_are_there, START_LIMIT, "a word from both sites")

    def start(self, site: str) -> None:
        """Whatever of a site does not run."""
        low = {NORTH: 23000, SOUTH: 25000}[site] + (self.ports[site] % 8) * 250
        self._run(f"api-{site}", "api", f"api.port={self.ports[site]}")
        self._run(
            f"agent-{site}",
            "agent",
            f"agent.host_id={site}-host",
            f"agent.site={site}",
            f"agent.ports={low}-{low + 249}",
        )
        for name in MANAGERS[site]:
            self._run(f"manager-{name}", "manager", f"manager.name={name}")

    def _run(self, name: str, service: str, *overrides: str) -> None:
        running = self.processes.get(name)
        if running is not None and running.poll() is None:
            return
        words = [word for text in overrides for word in ("--override", text)]
        command = (sys.executable, "-m", "redkeep", service, "--state-dir", str(self.directory), *words)
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def lose(self, site: str) -> None:
        """The power of a whole site goes: its services and its Redis servers, all at once."""
        ours = [self.processes[f"{kind}-{site}"] for kind in ("api", "agent")]
        ours += [self.processes[f"manager-{name}"] for name in MANAGERS[site]]
        for pid in (*(one.pid for one in self.servers(site)), *(one.pid for one in ours)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for one in ours:
            one.wait(10)

    def servers(self, site: str) -> list[psutil.Process]:
        """The Redis servers of a site."""
        place = f"{self.directory}/servers/{site}-host/"
        running = (one for one in psutil.process_iter(["name", "cwd"]) if one.info["name"] == "redis-server")
        return [one for one in running if (one.info["cwd"] or "").startswith(place)]

    def log_end(self) -> str:
        """The last lines of every log."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-800:]}" for log in logs)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(10)
        for server in (*self.servers(NORTH), *self.servers(SOUTH)):
            with contextlib.suppress(psutil.NoSuchProcess):
                server.kill()
        self.control.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- as a user ------------------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None, *, site: str = SOUTH, **more: Any) -> httpx.Response:
        """One request to the API of a site."""
        base = f"http://127.0.0.1:{self.ports[site]}"
        async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
            return await client.request(method, path, json=body, **more)

    async def get(self, path: str, **more: Any) -> Any:
        reply = await self.call("GET", path, **more)
        if not reply.is_success:
            raise Stuck(f"GET {path}: {reply.status_code} {reply.text[:300]}")
        return reply.json()

    async def order(self, count: int) -> list[Ordered]:
        """So many small instances, each with a replica at the other site; ready, all of them."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> Ordered:
            async with room:
                order = {"name": f"shop-{number}", "flavorRef": 1, "volume": {"size": 1}}
                wanted = {"instance": order | {"replication": {"sites": "all"}}}
                reply = await self.call("POST", "/v1.0/admin/instances", wanted)
                if not reply.is_success:
                    raise Stuck(f"an order was refused: {reply.text[:300]}")
                made = reply.json()["instance"]
                await self.until(lambda: self._has_standby(made["id"]), READY_LIMIT, f"{made['name']} at both sites")
                return Ordered(made["id"], made["name"], made["password"])

        found = await asyncio.gather(*(one(number) for number in range(1, count + 1)))
        await self.until(self.healthy, READY_LIMIT, "health of all")
        where: dict[str, list[str]] = {}
        for member in await self.members():
            where.setdefault(member["name"].removesuffix(f"-{SOUTH}"), []).append(member["address"])
        for ordered in found:
            ordered.addresses = tuple(where[ordered.name])
        return found

    async def _has_standby(self, instance_id: str) -> bool:
        shown = (await self.get(f"/v1.0/admin/instances/{instance_id}"))["instance"]
        if shown["status"] == "ERROR":
            raise Stuck(f"{shown['name']}: {shown.get('fault')}")
        standby = shown["replication"]["sites"][0]["replica"]["id"]
        replica = (await self.get(f"/v1.0/admin/instances/{standby}"))["instance"]
        return bool(shown["status"] == replica["status"] == "ACTIVE")

    async def members(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get("/v1.0/admin/status"))["members"]
        return found

    async def healthy(self) -> bool:
        return all(one["health"] == "ok" and one["status"] == "ACTIVE" for one in await self.members())

    async def cluster(self) -> dict[str, Any]:
        """The service cluster, with how the failover goes."""
        found: dict[str, Any] = (await self.get("/v3/admin/clusters/detail", headers=VERSION))["clusters"][0]
        return found

    async def ask(self, target: str, *, forced: bool) -> None:
        """Ask for a failover. Raises Stuck when it is refused at once."""
        body = {"cluster": (await self.cluster())["name"], "backend_id": target, "forced": forced}
        reply = await self.call("PUT", "/v3/admin/os-services/failover", body, headers=VERSION)
        if reply.status_code != httpx.codes.ACCEPTED:
            raise Stuck(f"the failover was refused: {reply.text[:300]}")

    async def fail_over(self, target: str, *, forced: bool, limit: float = READY_LIMIT) -> tuple[float, dict[str, Any]]:
        """Seconds until the storage had moved, and the cluster once every manager that is up had followed."""
        await self.ask(target, forced=forced)
        await self.until(self.has_ended, limit, f"the end of a failover to {target}")
        await self.until(self._all_followed, limit, "managers that follow")
        shown = await self.cluster()
        asked, ended = (datetime.fromisoformat(shown[PROGRESS][name]) for name in ("requested_at", "finished_at"))
        return (ended - asked).total_seconds(), shown

    async def has_ended(self) -> bool:
        """The failover is over, one way or another."""
        return bool((await self.cluster())["replication_status"] != "failing-over")

    async def all_are_up(self) -> bool:
        """Every manager lives, and is where the backend is."""
        shown = await self.cluster()
        return bool(not shown["num_down_hosts"] and shown[PROGRESS]["followed"] == shown["num_hosts"])

    async def _all_followed(self) -> bool:
        shown = await self.cluster()
        return bool(shown[PROGRESS]["followed"] >= shown["num_hosts"] - shown["num_down_hosts"])

    async def views(self) -> list[dict[str, Any]]:
        """What each manager's row says."""
        found: list[dict[str, Any]] = (await self.get("/v3/admin/os-services", headers=VERSION))["services"]
        return sorted(found, key=lambda one: str(one["host"]))

    async def primaries_at(self) -> dict[str, int]:
        """How many primaries each site has."""
        sites = (await self.get("/v1.0/admin/sites"))["sites"]
        return {one["label"]: one["primaries"] for one in sites}

    async def _both_are_there(self) -> bool:
        with contextlib.suppress(httpx.HTTPError, Stuck):
            sites = (await self.get("/v1.0/admin/sites"))["sites"]
            rows = await self.views()
            return len(rows) == 3 and all(one["hosts"] for one in sites) and all(one["state"] == "up" for one in rows)
        return False

    async def until(self, holds: Any, limit: float, what: str) -> None:
        """Wait. Raises Stuck, with the ends of the logs."""
        deadline = time.monotonic() + limit
        while True:
            with contextlib.suppress(httpx.TransportError):
                if await holds():
                    return
            if time.monotonic() > deadline:
                raise Stuck(f"{what} did not come about in {limit:g} s\n{self.log_end()}")
            await asyncio.sleep(0.1)


@dataclass
class Fleet:
    """A client for each instance, which writes without pause and remembers what was acknowledged."""

    writers: Sequence[Writer]

    @property
    def acknowledged(self) -> int:
        return sum(len(one.acknowledged) for one in self.writers)

    async def all_write(self, limit: float = 60.0) -> None:
        """Each of them has five more writes acknowledged."""
        await asyncio.gather(*(one.further(5, limit) for one in self.writers))

    def longest_gap(self, since: float) -> float:
        """Seconds without an acknowledged write, for the instance that was without for longest."""
        return max(one.longest_gap(since).seconds for one in self.writers)

    async def lost(self) -> dict[str, list[int]]:
        """Acknowledged writes that are not there, by instance."""
        found = await asyncio.gather(*(one.lost() for one in self.writers))
        return {one.prefix: missing for one, missing in zip(self.writers, found, strict=True) if missing}

    def forget(self, lost: Mapping[str, Iterable[int]]) -> None:
        """What was lost once is not counted again."""
        for one in self.writers:
            gone = set(lost.get(one.prefix, ()))
            kept = [at for at, number in enumerate(one.acknowledged) if number not in gone]
            numbers, times = [one.acknowledged[at] for at in kept], [one.times[at] for at in kept]
            del one.acknowledged[:], one.times[:]
            one.acknowledged.extend(numbers)
            one.times.extend(times)


@asynccontextmanager
async def fleet(instances: Sequence[Ordered], *, pause: float = WRITE_PAUSE) -> AsyncIterator[Fleet]:
    """Writers for the length of the block."""
    async with AsyncExitStack() as stack:
        writers = []
        for one in instances:
            client = await stack.enter_async_context(await connect(one.addresses, password=one.password, timeout=30))
            writers.append(await stack.enter_async_context(Writer(client, prefix=one.name, pause=pause)))
        yield Fleet(writers)


@asynccontextmanager
async def two_sites(*, site_lease: float = 5.0) -> AsyncIterator[TwoSites]:
    """Both sites, running."""
    directory = Path(tempfile.mkdtemp(prefix="redkeep-sites-"))
    control = RedisProcess("requirepass secret", "appendonly yes").start()
    found = TwoSites(directory, control, site_lease)
    try:
        await found.open()
        yield found
    finally:
        found.close()

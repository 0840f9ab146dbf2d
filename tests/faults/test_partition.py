"""FAULTS 6, 11, 12: hosts with cables of their own, and what happens when they are cut."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from redkeep.testing.netns import Net, Unsupported, net
from redkeep.testing.servers import RedisProcess, free_port
from redkeep.vault import Vault

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.timeout(300)]

WORD = 1.0

ISOLATED_WRITER = """
import json, sys, time
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
host, port, password, path, prefix = sys.argv[1:]
redis = Redis(host=host, port=int(port), password=password, socket_timeout=0.3, socket_connect_timeout=0.3,
              retry=Retry(NoBackoff(), 0))
number = 0
with open(path, "w", buffering=1) as log:
    while True:
        number += 1
        began = time.monotonic()
        try:
            redis.set(f"{prefix}:{number}", number)
            said = "ok"
        except RedisError as error:
            said = str(error).split()[0]
        log.write(json.dumps([number, began, time.monotonic(), said]) + "\\n")
        time.sleep(0.005)
"""
"""Knows one server only, as a client that is cut off with it. The clock is the same in all namespaces."""


@dataclass
class Attempt:
    number: int
    began: float
    ended: float
    said: str


@dataclass
class Land:
    """Redkeep's own processes on the hub, an agent on each host."""

    hosts: Net
    directory: Path
    port: int
    control: RedisProcess
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    environments: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """What processes of a host find in their environment besides."""

    def run(self, *command: str | Path, host: int | None = None) -> None:
        log = (self.directory / "log").open("ab")
        words = self.hosts.command(host, *command) if host else [str(word) for word in command]
        environment = {**os.environ, **self.environments.get(host or 0, {})}
        made = subprocess.Popen(words, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.processes.append(made)
        log.close()

    def service(self, name: str, *overrides: str, host: int | None = None) -> None:
        words = [word for text in overrides for word in ("--override", text)]
        self.run(sys.executable, "-m", "redkeep", name, "-v", "--state-dir", self.directory, *words, host=host)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}/v1.0/admin", timeout=10) as client:
            reply = await client.request(method, path, json=body)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else None

    async def until(self, holds: Any, limit: float = 30.0, what: str = "") -> Any:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            try:
                if found := await holds():
                    return found
            except (httpx.HTTPError, AssertionError):
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(f"{what} did not come about; {(self.directory / 'log').read_text()[-3000:]}")

    async def members(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("GET", "/status"))["members"]
        return found

    async def replicated(self) -> tuple[list[dict[str, Any]], str]:
        order = {"name": "db", "flavorRef": 1, "volume": {"size": 1}}
        made = await self.until(lambda: self.call("POST", "/instances", {"instance": order}), 150, "an order")
        source = made["instance"]

        async def ready(count: int) -> list[dict[str, Any]] | None:
            found = await self.members()
            fine = all(one["health"] == "ok" and one["status"] == "ACTIVE" for one in found)
            return found if fine and len(found) == count else None

        await self.until(lambda: ready(1), what="a primary")
        order = {"name": "r", "replica_of": source["id"], "replica_count": 2}
        await self.call("POST", "/instances", {"instance": order})
        return await self.until(lambda: ready(3), what="two replicas"), source["password"]

    def agent(self, host: int) -> int:
        """Process id of the agent on a host."""
        (pid,) = (one.pid for one in psutil.process_iter(["cmdline"]) if self._is_agent(one, host))
        return int(pid)

    def _is_agent(self, process: psutil.Process, host: int) -> bool:
        words = process.info["cmdline"] or []
        return f"agent.host_id=host-{host}" in words and str(self.directory) in words and words[0] != "ip"

    def writer(self, address: str, password: str, prefix: str, host: int | None = None) -> Path:
        """A client of one server, on that host or on the hub; where it keeps its record."""
        record = self.directory / f"writer-{prefix}"
        server, port = address.rsplit(":", 1)
        self.run(sys.executable, "-c", ISOLATED_WRITER, server, port, password, record, prefix, host=host)
        return record


def attempts(record: Path) -> list[Attempt]:
    lines = record.read_text().splitlines() if record.exists() else []
    return [Attempt(*json.loads(line)) for line in lines if line.endswith("]")]


def accepted(record: Path) -> list[Attempt]:
    return [one for one in attempts(record) if one.said == "ok"]


QUICK = f"[manager]\nword = {WORD}\nsilence = 1.0\norphan = 4.0\nlook_interval = 0.2\n[agent]\nheartbeat = 0.2\n"


@asynccontextmanager
async def land(
    directory: Path, settings: str = QUICK, environments: Mapping[int, Mapping[str, str]] | None = None
) -> AsyncIterator[Land]:
    try:
        with net(3) as hosts:
            Vault.open(directory / "secret.key")
            control = RedisProcess("requirepass secret", "appendonly yes", host=hosts.address()).start()
            port = free_port()
            (directory / "redkeep.conf").write_text(
                f"[northbound]\nurl = redis://:secret@{control.address}\n"
                f"[api]\nauth = noauth\nport = {port}\n"
                f"{settings}"
            )
            found = Land(hosts, directory, port, control, environments=environments or {})
            try:
                found.service("api")
                found.service("manager")
                for host in (1, 2, 3):
                    address = hosts.address(host)
                    found.service("agent", f"agent.host_id=host-{host}", f"agent.address={address}", host=host)
                yield found
            finally:
                for process in found.processes:
                    process.kill()
                    process.wait()
                control.close()
    except Unsupported as why:
        pytest.skip(str(why))


def host_of(member: dict[str, Any]) -> int:
    return int(str(member["host"])[-1])


async def test_an_isolated_primary_refuses_writes_before_its_successor_accepts_them(tmp_path: Path) -> None:
    """FAULTS 11: primary and client on one side, replicas and managers on the other."""
    async with land(tmp_path) as found:
        (primary, *replicas), password = await found.replicated()
        old_side = found.writer(primary["address"], password, "old", host=host_of(primary))
        new_side = [found.writer(one["address"], password, f"new{number}") for number, one in enumerate(replicas)]
        await found.until(lambda: asyncio.sleep(0, len(accepted(old_side)) > 20), what="writes before the cut")

        cut_at = time.monotonic()
        found.hosts.cut(host_of(primary))
        await found.until(lambda: asyncio.sleep(0, any(accepted(one) for one in new_side)), what="a new primary")
        await asyncio.sleep(0.5)  # let both sides write on for a while: what must not happen tells nobody

        last_old = max(one.ended for one in accepted(old_side))
        first_new = min(one.began for record in new_side for one in accepted(record))
        lost = [one for one in accepted(old_side) if one.began > cut_at]
        print(
            f"old side accepted until {last_old - cut_at:.2f} s, new from {first_new - cut_at:.2f} s, {len(lost)} lost"
        )
        assert last_old < first_new
        assert lost, "the client that was cut off wrote nothing: this test shows nothing"

        found.hosts.heal(host_of(primary))

        async def one_group() -> bool:
            members = await found.members()
            return [one["role"] for one in members] == ["primary", "replica", "replica"] and all(
                one["health"] == "ok" for one in members
            )

        await found.until(one_group, what="the old primary's return as a replica")
        assert (await found.members())[0]["address"] != primary["address"]
        assert max(one.ended for one in accepted(old_side)) == last_old


async def test_6_a_lost_host_is_replaced_at_the_default_settings(tmp_path: Path) -> None:
    """How long that takes is printed, and stands in the operator's guide."""
    async with land(tmp_path, settings="") as found:
        (primary, *replicas), password = await found.replicated()
        new_side = [found.writer(one["address"], password, f"new{number}") for number, one in enumerate(replicas)]
        await asyncio.sleep(1)

        cut_at = time.monotonic()
        found.hosts.cut(host_of(primary))
        await found.until(lambda: asyncio.sleep(0, any(accepted(one) for one in new_side)), what="a new primary")

        writable = min(one.began for record in new_side for one in accepted(record)) - cut_at
        print(f"writable again {writable:.2f} s after the cut")
        assert writable > 1.25, "nobody can have waited for the word of the old primary to end"


async def test_3_a_stopped_agent_costs_its_server_the_right_to_write_and_another_one_takes_over(tmp_path: Path) -> None:
    """SIGSTOP of the agent's process: its server lives, and clients beside it are refused before others are served."""
    async with land(tmp_path) as found:
        (primary, *replicas), password = await found.replicated()
        old_side = found.writer(primary["address"], password, "old", host=host_of(primary))
        new_side = [found.writer(one["address"], password, f"new{number}") for number, one in enumerate(replicas)]
        await found.until(lambda: asyncio.sleep(0, len(accepted(old_side)) > 20), what="writes before the fault")
        agent, stopped_at = found.agent(host_of(primary)), time.monotonic()

        os.kill(agent, signal.SIGSTOP)
        try:
            await found.until(lambda: asyncio.sleep(0, any(accepted(one) for one in new_side)), what="a new primary")
            await asyncio.sleep(1)  # let both sides write on for a while: what must not happen tells nobody
        finally:
            os.kill(agent, signal.SIGCONT)

        async def one_group() -> bool:
            members = await found.members()
            return [one["role"] for one in members] == ["primary", "replica", "replica"] and all(
                one["health"] == "ok" for one in members
            )

        await found.until(one_group, what="the old primary as a replica")
        last_old = max(one.ended for one in accepted(old_side))
        first_new = min(one.began for record in new_side for one in accepted(record))
        print(f"old accepted until {last_old - stopped_at:.2f} s, new from {first_new - stopped_at:.2f} s")
        assert last_old < first_new
        assert (await found.members())[0]["address"] != primary["address"]


async def test_3_a_host_that_loses_its_agent_and_then_its_network_fences_itself(tmp_path: Path) -> None:
    """kill -9 of the agent, then the cable: nobody there can fence, and nobody elsewhere can reach the server."""
    async with land(tmp_path) as found:
        (primary, *replicas), password = await found.replicated()
        old_side = found.writer(primary["address"], password, "old", host=host_of(primary))
        new_side = [found.writer(one["address"], password, f"new{number}") for number, one in enumerate(replicas)]
        await found.until(lambda: asyncio.sleep(0, len(accepted(old_side)) > 20), what="writes before the fault")
        await asyncio.sleep(3)  # its guard is raised when its replicas have followed for a while

        os.kill(found.agent(host_of(primary)), signal.SIGKILL)
        await asyncio.sleep(2.5)  # longer than a silence, and not so long that it is taken over
        cut_at = time.monotonic()
        found.hosts.cut(host_of(primary))
        await found.until(lambda: asyncio.sleep(0, any(accepted(one) for one in new_side)), what="a new primary")
        await asyncio.sleep(1)  # let both sides write on for a while: what must not happen tells nobody

        last_old = max(one.ended for one in accepted(old_side))
        first_new = min(one.began for record in new_side for one in accepted(record))
        print(f"old accepted until {last_old - cut_at:.2f} s after the cut, new from {first_new - cut_at:.2f} s")
        assert last_old < first_new
        assert last_old > cut_at, "the client that was cut off wrote nothing: this test shows nothing"


async def test_a_primary_with_its_replicas_goes_on_without_managers(tmp_path: Path) -> None:
    """FAULTS 12 and 14: nobody may be promoted while a majority follows, and nothing stops the primary."""
    async with land(tmp_path) as found:
        (primary, *_), password = await found.replicated()
        record = found.writer(primary["address"], password, "on", host=host_of(primary))
        await found.until(lambda: asyncio.sleep(0, len(accepted(record)) > 20), what="writes before the cut")

        before = time.monotonic()
        for process in found.processes[:2]:
            process.kill()  # the API and the manager
        found.control.kill()
        await asyncio.sleep(4 * WORD)

        refused = [one for one in attempts(record) if one.said != "ok" and one.began > before]
        assert not refused
        assert max(one.ended for one in accepted(record)) > before + 3 * WORD

"""`redkeep demo`: the main job on real servers, through the REST API and the driver, with figures.

It says what it does, measures what a writing client sees, and fails when anything was lost or interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from rich.console import Console

from redkeep.errors import Refused, Unavailable
from redkeep.northbound import connect
from redkeep.testing.servers import free_port
from redkeep.testing.writer import Writer

START_LIMIT = 40.0
READY_LIMIT = 60.0
NOTICEABLE = 1.0
"""Seconds without an acknowledged write that the restart of Redkeep itself must not cost."""

console = Console(highlight=False)


class Failed(Exception):
    """Something that the demo promises did not hold."""


@dataclass
class Installation:
    """A `redkeep up` in a directory of its own, and its API."""

    directory: Path
    port: int = field(default_factory=free_port)
    northbound_port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Run `redkeep up` and wait until it says that it serves."""
        log = (self.directory / "up.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "redkeep", "up", "--verbose", "--state-dir", str(self.directory)),
            *("--port", str(self.port), "--northbound-port", str(self.northbound_port)),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and self.process.returncode is None:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient(trust_env=False) as client:
                    if (await client.get(f"http://127.0.0.1:{self.port}/healthz")).is_success:
                        return
            await asyncio.sleep(0.05)
        raise Refused(f"redkeep up did not start; the end of its log:\n{self._log_end()}")

    async def stop(self) -> None:
        """End Redkeep's own processes; the Redis servers go on."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    def api(self) -> httpx.AsyncClient:
        """A client of the API, as the administrator of `clouds.yaml`."""
        auth = yaml.safe_load((self.directory / "clouds.yaml").read_text())["clouds"]["redkeep"]["auth"]
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/v1.0/{auth['project_name']}",
            auth=(auth["username"], auth["password"]),
            timeout=30,
            trust_env=False,
        )

    def redis_servers(self) -> dict[int, psutil.Process]:
        """The users' Redis servers by process id, whoever is their parent now."""
        ours = str(self.directory / "servers")
        running = (one for one in psutil.process_iter(["name", "cwd"]) if one.info["name"] == "redis-server")
        return {one.pid: one for one in running if (one.info["cwd"] or "").startswith(ours)}

    def _log_end(self) -> str:
        return (self.directory / "up.log").read_text(errors="replace")[-2000:]


async def run(*, keep: bool = False) -> int:
    """The demo; the exit status: 0 only if all of it held."""
    directory = Path(tempfile.mkdtemp(prefix="redkeep-demo-"))
    began = time.monotonic()
    try:
        await _play(Installation(directory))
    except (Failed, Refused, Unavailable, TimeoutError, httpx.HTTPError) as error:
        console.print(f"\n[bold red]It did not hold:[/] {error!s}")
        console.print(f"The logs are in {directory}")
        return 1
    finally:
        if keep:
            console.print(f"The state is in {directory}")
    if not keep:
        shutil.rmtree(directory, ignore_errors=True)
    console.print(f"\n[bold green]All of it held[/], in {time.monotonic() - began:.0f} s. Try next:")
    console.print("  ./run up                 run it for real; it says how to use the stock clients")
    console.print("  ./run redkeep status     all instances: roles, lag, health")
    console.print("  ./run redkeep doctor     what this machine has, and what is missing")
    return 0


async def _play(redkeep: Installation) -> None:
    _title("1. Redkeep starts, all in one")
    await redkeep.start()
    try:
        async with redkeep.api() as api:
            members = await _create(api)
            async with _writing(members, await _password(api, members[0]["id"])) as writer:
                await _promote(api, members, writer)
                await _crash(api, redkeep, members, writer)
                await _restart(redkeep, writer)
        async with redkeep.api() as api:
            cluster = await _cluster(api)
        _title("6. Everything is torn down")
        async with redkeep.api() as api:
            await _delete_cluster(api, cluster)
            await _delete(api, members)
    finally:
        await redkeep.stop()
        for process in redkeep.redis_servers().values():
            process.kill()


async def _create(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    began = time.monotonic()
    order = {"name": "shop", "flavorRef": 1, "volume": {"size": 1}, "datastore": {"type": "redis"}}
    primary = await _post(api, "/instances", {"instance": order})
    await _until_active(api, primary["id"])
    _say(f"a primary, ready to be written to after {_ms(time.monotonic() - began)}")
    began = time.monotonic()
    order = {"name": "shop-replica", "replica_of": primary["id"], "replica_count": 2}
    await _post(api, "/instances", {"instance": order})
    shown = await _get(api, f"/instances/{primary['id']}")
    members = [await _until_active(api, name) for name in (primary["id"], *(one["id"] for one in shown["replicas"]))]
    _say(f"two replicas, synchronised after {_ms(time.monotonic() - began)}")
    for one in members:
        _say(f"  {one['name']:<16} {one['ip'][0]}:{one['port']}  Redis {one['datastore']['version']}")
    return members


async def _password(api: httpx.AsyncClient, instance_id: str) -> str:
    reply = await api.post(f"/instances/{instance_id}/root")
    reply.raise_for_status()
    return str(reply.json()["user"]["password"])


@asynccontextmanager
async def _writing(members: list[dict[str, Any]], password: str) -> AsyncIterator[Writer]:
    seeds = [f"{one['ip'][0]}:{one['port']}" for one in members]
    async with await connect(seeds, password=password) as client, Writer(client) as writer:
        _say("a client writes to it without pause from now on")
        await writer.further(2000)
        yield writer


async def _promote(api: httpx.AsyncClient, members: list[dict[str, Any]], writer: Writer) -> None:
    _title("2. A replica is promoted, as planned")
    began = time.monotonic()
    successor = members[1]
    reply = await api.post(f"/instances/{successor['id']}/action", json={"promote_to_replica_source": {}})
    reply.raise_for_status()
    await _until_active(api, successor["id"])
    await writer.further(1000)
    _say(f"{successor['name']} is primary; writes paused for {_ms(writer.longest_gap(began).seconds)}")
    await _nothing_lost(writer)


async def _crash(api: httpx.AsyncClient, redkeep: Installation, members: list[dict[str, Any]], writer: Writer) -> None:
    _title("3. The primary is killed with kill -9")
    primary = await _primary(api, members)
    victim = next(one for one in redkeep.redis_servers().values() if one.cwd().endswith(primary["id"]))
    _say(f"kill -9 {victim.pid}, which is {primary['name']}")
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    await writer.further(1000)
    _say(f"writes worked again after {_ms(writer.longest_gap(began).seconds)}, on a promoted replica")
    await _nothing_lost(writer)
    await _until(lambda: _all_healthy(api), "the old primary's return as a replica")
    _say(f"{primary['name']} has come back, as a replica")


async def _restart(redkeep: Installation, writer: Writer) -> None:
    _title("4. Redkeep's own processes end, and start anew")
    before = set(redkeep.redis_servers())
    began = time.monotonic()
    await redkeep.stop()
    _say("Redkeep is down; the client goes on writing")
    await writer.further(1000)
    await redkeep.start()
    async with redkeep.api() as api:
        await _until(lambda: _all_healthy(api), "the adoption of all servers")
    if set(redkeep.redis_servers()) != before:
        raise Failed("a Redis server was started anew")
    gap = writer.longest_gap(began).seconds
    if gap > NOTICEABLE:
        raise Failed(f"writes paused for {_ms(gap)} while Redkeep was away")
    _say(f"all {len(before)} servers were adopted, the same processes; the longest pause of writes was {_ms(gap)}")
    await _nothing_lost(writer)


async def _cluster(api: httpx.AsyncClient) -> str:
    """Three shards; a fourth joins while a client writes. The id of the cluster."""
    _title("5. A cluster is made, and grows")
    member, began = {"flavorRef": 1, "volume": {"size": 1}}, time.monotonic()
    reply = await api.post("/clusters", json={"cluster": {"name": "wide", "instances": [member] * 3}})
    if not reply.is_success:
        raise Failed(f"POST /clusters: {reply.text}")
    made = reply.json()["cluster"]
    shown = await _until_free(api, made["id"])
    _say(f"three shards, of one mind after {_ms(time.monotonic() - began)}")
    async with _writing(shown["instances"], made["password"]) as writer:
        began = time.monotonic()
        (await api.post(f"/clusters/{made['id']}", json={"grow": [member]})).raise_for_status()
        await _until_free(api, made["id"])
        await writer.further(1000)
        _say(f"a fourth has joined; the longest pause of writes was {_ms(writer.longest_gap(began).seconds)}")
        await writer.stop()
        await _nothing_lost(writer)
    return str(made["id"])


async def _until_free(api: httpx.AsyncClient, cluster_id: str) -> dict[str, Any]:
    async with asyncio.timeout(READY_LIMIT):
        while True:
            reply = await api.get(f"/clusters/{cluster_id}")
            reply.raise_for_status()
            shown: dict[str, Any] = reply.json()["cluster"]
            if "fault" in shown:
                raise Failed(f"{shown['name']}: {shown['fault']['message']}")
            if shown["task"]["name"] == "NONE":
                return shown
            await asyncio.sleep(0.02)


async def _delete_cluster(api: httpx.AsyncClient, cluster_id: str) -> None:
    (await api.delete(f"/clusters/{cluster_id}")).raise_for_status()

    async def is_gone() -> bool:
        return (await api.get(f"/clusters/{cluster_id}")).status_code == httpx.codes.NOT_FOUND

    await _until(is_gone, "the end of the cluster")


async def _delete(api: httpx.AsyncClient, members: list[dict[str, Any]]) -> None:
    primary = await _primary(api, members)
    for one in (*(one for one in members if one["id"] != primary["id"]), primary):
        (await api.delete(f"/instances/{one['id']}")).raise_for_status()
        await _until(lambda one=one: _is_gone(api, one["id"]), f"the end of {one['name']}")
    _say("all instances and their files are gone")


async def _nothing_lost(writer: Writer) -> None:
    lost = await writer.lost()
    _say(f"{len(writer.acknowledged)} acknowledged writes so far, {len(lost)} lost")
    if lost:
        raise Failed(f"{len(lost)} acknowledged writes are not there, the first is {lost[0]}")


# --- the API ---------------------------------------------------------------------------------------------------------


async def _post(api: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = await api.post(path, json=body)
    if not reply.is_success:
        raise Failed(f"POST {path}: {reply.text}")
    found: dict[str, Any] = reply.json()["instance"]
    return found


async def _get(api: httpx.AsyncClient, path: str) -> dict[str, Any]:
    reply = await api.get(path)
    reply.raise_for_status()
    found: dict[str, Any] = reply.json()["instance"]
    return found


async def _until_active(api: httpx.AsyncClient, instance_id: str) -> dict[str, Any]:
    async with asyncio.timeout(READY_LIMIT):
        while True:
            shown = await _get(api, f"/instances/{instance_id}")
            if shown["status"] == "ACTIVE":
                return shown
            if shown["status"] == "ERROR":
                raise Failed(f"{shown['name']}: {shown.get('fault', {}).get('message')}")
            await asyncio.sleep(0.02)


async def _primary(api: httpx.AsyncClient, members: list[dict[str, Any]]) -> dict[str, Any]:
    shown = [await _get(api, f"/instances/{one['id']}") for one in members]
    return next(one for one in shown if "replica_of" not in one)


async def _all_healthy(api: httpx.AsyncClient) -> bool:
    reply = await api.get("/status")
    reply.raise_for_status()
    return all(one["health"] == "ok" for one in reply.json()["members"])


async def _is_gone(api: httpx.AsyncClient, instance_id: str) -> bool:
    return (await api.get(f"/instances/{instance_id}")).status_code == httpx.codes.NOT_FOUND


async def _until(holds: Any, what: str) -> None:
    try:
        async with asyncio.timeout(READY_LIMIT):
            while not await holds():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Failed(f"{what} did not come about in {READY_LIMIT:g} s") from None


def _title(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _say(text: str) -> None:
    console.print(f"   {text}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"

"""FAULTS 40: the line between two sites is cut while both live. Hosts with addresses, and cables, of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from redkeep.testing.netns import Unsupported, net
from redkeep.testing.servers import RedisProcess, free_port
from redkeep.vault import Vault

from .test_partition import Land, accepted

pytestmark = [pytest.mark.real, pytest.mark.faults]

LEASE = 3.0
NORTH, SOUTH = 1, 2
VERSION = {"OpenStack-API-Version": "volume 3.26"}


@asynccontextmanager
async def two_sites(directory: Path) -> AsyncIterator[Land]:
    """An agent on each of two hosts; API, manager, database and northbound in a third place, the hub."""
    try:
        with net(2) as hosts:
            Vault.open(directory / "secret.key")
            control = RedisProcess("requirepass secret", "appendonly yes", host=hosts.address()).start()
            port = free_port()
            (directory / "redkeep.conf").write_text(
                f"[northbound]\nurl = redis://:secret@{control.address}\n"
                f"[api]\nauth = noauth\nport = {port}\n"
                f"[backend]\ndriver = redis_sites\nsite = north\nreplication_device = backend_id:south\n"
                f"site_lease = {LEASE}\n"
                "[manager]\nsilence = 1.0\nlook_interval = 0.2\nreport_interval = 0.3\n"
                "[agent]\nheartbeat = 0.2\n"
            )
            found = Land(hosts, directory, port, control)
            try:
                found.service("api")
                found.service("manager")
                for host, site in ((NORTH, "north"), (SOUTH, "south")):
                    address = hosts.address(host)
                    overrides = (f"agent.host_id=host-{host}", f"agent.address={address}", f"agent.site={site}")
                    found.service("agent", *overrides, host=host)
                yield found
            finally:
                for process in found.processes:
                    process.kill()
                    process.wait()
                control.close()
    except Unsupported as why:
        pytest.skip(str(why))


async def ordered(found: Land) -> tuple[dict[str, dict[str, Any]], str]:
    """An instance with a stand-by, ready: its members by site, and its password."""

    async def both_sites() -> bool:
        sites = (await found.call("GET", "/sites"))["sites"]
        return all(one["hosts"] for one in sites)

    await found.until(both_sites, 90, "a word from both sites")
    order = {"name": "db", "flavorRef": 1, "volume": {"size": 1}, "replication": {"sites": "all"}}
    made = (await found.call("POST", "/instances", {"instance": order}))["instance"]

    async def ready() -> list[dict[str, Any]] | None:
        members = await found.members()
        fine = all(one["health"] == "ok" and one["status"] == "ACTIVE" for one in members)
        return members if fine and len(members) == 2 else None

    members = await found.until(ready, 60, "both members")
    return {("south" if one["name"].endswith("south") else "north"): one for one in members}, made["password"]


async def fail_over(found: Land, target: str) -> None:
    url = f"http://127.0.0.1:{found.port}/v3/admin/os-services/failover"
    body = {"cluster": "managers", "backend_id": target, "forced": True}
    async with httpx.AsyncClient(timeout=10) as client:
        reply = await client.put(url, json=body, headers=VERSION)
    assert reply.status_code == 202, reply.text


async def test_40_the_old_site_stops_before_the_other_one_begins(tmp_path: Path) -> None:
    async with two_sites(tmp_path) as found:
        members, password = await ordered(found)
        old = found.writer(members["north"]["address"], password, "old", host=NORTH)
        new = found.writer(members["south"]["address"], password, "new")
        await found.until(lambda: asyncio.sleep(0, len(accepted(old)) > 20), what="writes before the cut")

        cut_at = time.monotonic()
        found.hosts.cut(NORTH)
        await fail_over(found, "south")
        await found.until(lambda: asyncio.sleep(0, any(accepted(new))), 60, "a primary at the other site")
        await asyncio.sleep(0.5)  # let both go on for a while: what must not happen tells nobody

        last_old = max(one.ended for one in accepted(old))
        first_new = min(one.began for one in accepted(new))
        print(f"old site accepted until {last_old - cut_at:.2f} s, new from {first_new - cut_at:.2f} s")
        assert last_old < first_new
        assert any(one.began > cut_at for one in accepted(old)), "it wrote nothing after the cut: this shows nothing"

        found.hosts.heal(NORTH)

        async def one_group() -> bool:
            roles = {one["name"]: (one["role"], one["health"]) for one in await found.members()}
            return roles == {"db-south": ("primary", "ok"), "db": ("replica", "ok")}

        await found.until(one_group, 60, "the old primary's return as a replica")
        assert max(one.ended for one in accepted(old)) == last_old
        kept = list((tmp_path / "servers").glob("*.diverged/*/*.resp"))
        assert len(kept) == 1, "what only the old site had is in a file"
        last = max(one.number for one in accepted(old))
        assert f"old:{last}\r\n".encode() in kept[0].read_bytes()


async def test_40_without_a_failover_it_stops_when_its_lease_is_over_and_goes_on_when_the_line_is_back(
    tmp_path: Path,
) -> None:
    """Nobody can know from inside of a site that is cut off whether the other one has been taken over to."""
    async with two_sites(tmp_path) as found:
        members, password = await ordered(found)
        old = found.writer(members["north"]["address"], password, "old", host=NORTH)
        await found.until(lambda: asyncio.sleep(0, len(accepted(old)) > 20), what="writes before the cut")

        cut_at = time.monotonic()
        found.hosts.cut(NORTH)
        await asyncio.sleep(LEASE + 2.0)
        stopped_at = max(one.ended for one in accepted(old))
        assert cut_at < stopped_at <= cut_at + LEASE + 1.5
        found.hosts.heal(NORTH)

        async def goes_on() -> bool:
            return max(one.ended for one in accepted(old)) > stopped_at

        await found.until(goes_on, 60, "writes at the same site as before")
        roles = {one["name"]: one["role"] for one in await found.members()}
        assert roles == {"db": "primary", "db-south": "replica"}

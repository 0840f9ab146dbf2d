"""`redkeep failover` and its rehearsal, on two sites of separate processes."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from redkeep.testing.sites import NORTH, SOUTH, TwoSites, two_sites

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


async def redkeep(found: TwoSites, *words: str) -> tuple[int, str, str]:
    command = (sys.executable, "-m", "redkeep", *words, "--state-dir", str(found.directory))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, told = await asyncio.wait_for(process.communicate(), 200)
    return process.returncode or 0, said.decode(), told.decode()


async def test_it_is_rehearsed_done_and_undone() -> None:
    async with two_sites(site_lease=10.0) as found:
        await found.order(1)

        status, said, _ = await redkeep(found, "failover", "--dry-run", "--json")
        rehearsal = json.loads(said)
        assert (status, rehearsal["target"], rehearsal["survives"]) == (0, SOUTH, True)
        assert [one["in_order"] for one in rehearsal["instances"]] == [True]
        assert await found.primaries_at() == {NORTH: 1, SOUTH: 0}, "nobody has moved"

        status, said, watched = await redkeep(found, "failover", "--in-order")
        assert status == 0, watched
        assert f"active at {SOUTH}" in said
        assert "3 of 3 managers have followed" in watched
        assert await found.primaries_at() == {NORTH: 0, SOUTH: 1}
        await found.until(found.healthy, 60, "health of all")

        status, said, _ = await redkeep(found, "failover", "--to", "default", "--in-order", "--json")
        assert (status, json.loads(said)["replication_status"]) == (0, "enabled")
        assert await found.primaries_at() == {NORTH: 1, SOUTH: 0}

        status, _, told = await redkeep(found, "failover", "--to", "nowhere")
        assert status == 1
        assert "Invalid replication target" in told

        status, said, _ = await redkeep(found, "status")
        assert status == 0
        assert "SITE" in said.splitlines()[0]

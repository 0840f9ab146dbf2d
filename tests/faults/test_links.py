"""Links that are half broken (FAULTS 13): either nobody is replaced or one is, once, and nothing flaps."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.faults.test_partition import Land, accepted, host_of, land

pytestmark = [pytest.mark.real, pytest.mark.faults]

STRETCH = 12.0
"""Seconds of trouble: several times what it takes to fail over, and the pause after that."""


@asynccontextmanager
async def watching(found: Land) -> AsyncIterator[list[str]]:
    """Every change of the primary's address while the block runs; the first entry is the one it began with."""
    seen: list[str] = [str((await found.members())[0]["address"])]
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                if (address := str((await found.members())[0]["address"])) != seen[-1]:
                    seen.append(address)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        over.set()
        await task


async def whole(found: Land) -> bool:
    members = await found.members()
    return [one["role"] for one in members] == ["primary", "replica", "replica"] and all(
        one["health"] == "ok" for one in members
    )


async def writing(found: Land, address: str, password: str, prefix: str, host: int | None = None) -> Path:
    record = found.writer(address, password, prefix, host=host)
    await found.until(lambda: asyncio.sleep(0, len(accepted(record)) > 5), what="writes before the trouble")
    return record


async def test_13_a_primary_that_hears_and_is_not_heard_is_replaced_once_and_stops_before_that(tmp_path: Path) -> None:
    async with land(tmp_path) as found:
        (primary, *replicas), password = await found.replicated()
        old = await writing(found, primary["address"], password, "old", host=host_of(primary))
        others = [found.writer(one["address"], password, f"new{number}") for number, one in enumerate(replicas)]

        async with watching(found) as primaries:
            found.hosts.mute(host_of(primary))
            await asyncio.sleep(STRETCH)
            found.hosts.unmute(host_of(primary))
            await found.until(lambda: whole(found), 60, "a whole group")

        assert len(primaries) == 2
        assert primaries[0] == primary["address"]
        last_old = max(one.ended for one in accepted(old))
        first_new = min(one.began for record in others for one in accepted(record))
        assert last_old < first_new


async def test_13_over_a_slow_and_lossy_link_there_is_one_failover_or_none_and_writes_go_on(tmp_path: Path) -> None:
    """A queue that is always full: half a second of delay, and the rest dropped."""
    async with land(tmp_path) as found:
        (primary, *replicas), password = await found.replicated()
        for number, one in enumerate((primary, *replicas)):
            found.writer(one["address"], password, f"all{number}")

        async with watching(found) as primaries:
            began = time.monotonic()
            found.hosts.slow(host_of(primary), rate="128kbit", latency="500ms")
            await asyncio.sleep(STRETCH)
            found.hosts.quicken(host_of(primary))
            await found.until(lambda: whole(found), 60, "a whole group")

        assert len(primaries) <= 2
        writes = [one.ended for number in range(3) for one in accepted(tmp_path / f"writer-all{number}")]
        assert [moment for moment in writes if moment > began + STRETCH / 2]

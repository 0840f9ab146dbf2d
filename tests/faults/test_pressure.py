"""Memory that is full, a machine that is slow, a clock that jumps (FAULTS 34, 35): nobody is replaced for that."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError
from tests.faults.scene import Scene, scene, writing

import redkeep
from redkeep.model.instance import Event

pytestmark = [pytest.mark.real, pytest.mark.faults]

STRETCH = 6.0
"""Seconds under pressure: longer than the longest patience with a server that does not answer."""
ROOM = Path(redkeep.__file__).parent


async def failovers(playing: Scene) -> list[Event]:
    return [event for event in await playing.events() if event.kind == "fail_over"]


async def test_34_a_full_primary_says_oom_and_keeps_its_place() -> None:
    async with scene() as playing:
        primary = await playing.primary()

        said = await until_oom(playing)
        await asyncio.sleep(STRETCH)  # what is promised is that nothing happens in this time

        assert said.startswith("OOM") or "command not allowed when used memory" in said
        assert (await playing.primary()).id == primary.id
        assert not await failovers(playing)
        assert (await shown(playing))["operating_status"] == "BLOCKED"
        assert "OOM" in (await shown(playing))["fault"]["message"]
        async with playing.redis(primary) as redis:
            assert await redis.get("filler:0") is not None
            await redis.flushall()
        await playing.settled(servers=3)

        async def well() -> bool:
            return bool((await shown(playing))["operating_status"] == "HEALTHY")

        await playing.found.eventually(well, what="the end of the alert")


async def shown(playing: Scene) -> dict[str, Any]:
    primary = await playing.primary()
    instance: dict[str, Any] = (await playing.found.call("GET", f"/instances/{primary.id}"))["instance"]
    return instance


async def until_oom(playing: Scene) -> str:
    """Fill the primary; what it says when it is full."""
    async with playing.redis(await playing.primary()) as redis:
        for number in range(2000):
            try:
                await redis.set(f"filler:{number}", "x" * 1_000_000)
            except RedisError as error:
                return str(error)
    return "never full"


@contextlib.contextmanager
def busy_machine(processes: int) -> Iterator[None]:
    """So many processes that do nothing but compute: on two cores, a tenth of one is left for each server."""
    made = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in made:
            one.kill()
            one.wait()


async def test_35_on_a_starved_machine_nobody_is_replaced_and_writes_go_on() -> None:
    async with scene(hosts=3) as playing, writing(playing) as writer, playing.never_two_primaries():
        primary, processes = await playing.primary(), {one.pid for one in playing.found.redis_processes()}

        with busy_machine(8 * (os.cpu_count() or 1)):
            await asyncio.sleep(STRETCH)
            await writer.further(20, 60)

        assert (await playing.primary()).id == primary.id
        assert not await failovers(playing)
        assert {one.pid for one in playing.found.redis_processes()} == processes
        await playing.settled(servers=3)
        await writer.stop()
        assert await writer.lost() == []
    assert playing.overlaps == []


FOR_PEOPLE = {"diverged.py"}
"""Modules that write the time of day into a file's name, and decide nothing by it."""
WALL_CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}


def wall_clocks_read_in(file: Path) -> list[str]:
    """Where a module asks for the time of day."""
    calls = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    asked = (one for one in calls if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name))
    return [f"{file.name}:{one.lineno}" for one in asked if (ast.unparse(one.value), one.attr) in WALL_CLOCKS]


@pytest.mark.parametrize("room", ["manager", "agent", "operations", "decide", "redis"])
def test_35_nothing_that_fences_leases_or_fails_over_reads_the_time_of_day(room: str) -> None:
    """Words are counted on the monotonic clock, leases on the store's: a clock that jumps moves neither."""
    files = (file for file in (ROOM / room).rglob("*.py") if file.name not in FOR_PEOPLE)
    read = [place for file in files for place in wall_clocks_read_in(file)]

    assert not read


def test_35_the_search_for_wall_clocks_finds_them(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import time\nfrom datetime import datetime\nat = time.monotonic()\nnow = time.time()\ndatetime.now()\n"
    )

    assert wall_clocks_read_in(file) == ["module.py:4", "module.py:5"]

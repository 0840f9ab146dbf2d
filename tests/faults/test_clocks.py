"""The time of day jumps on one host (FAULTS 35): for its agent and its servers, as processes of their own."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
from redis import Redis
from tests.faults.test_partition import accepted, attempts, host_of, land

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.timeout(300)]

HOUR = 3600

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *offset(void) {
  static volatile long *seen = 0;
  if (!seen) {
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    seen = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  }
  return seen;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *) = 0;
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int said = real(clock, at);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) at->tv_sec += *offset();
  return said;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""
"""The C library's clocks, with the time of day moved by what stands in a file. Monotonic clocks stay as they are."""


class Clock:
    """The time of day of one host."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(file)}
        self.set(0)

    def set(self, seconds: int) -> None:
        """In place, since it is mapped by whoever reads it."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))


def shim(directory: Path) -> Path:
    source, library = directory / "clock.c", directory / "clock.so"
    source.write_text(SHIM)
    try:
        words: list[str | Path] = ["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no C compiler to move clocks with: {error}")
    return library


def now_of(address: str, password: str) -> int:
    host, port = address.rsplit(":", 1)
    with Redis(host=host, port=int(port), password=password, socket_timeout=5) as redis:
        seconds, _ = redis.time()
    return int(seconds)


async def test_35_a_clock_that_jumps_replaces_nobody_and_stops_no_writes(tmp_path: Path) -> None:
    library = shim(tmp_path)
    clocks = {host: Clock(tmp_path / f"offset-{host}", library) for host in (1, 2, 3)}
    async with land(tmp_path, environments={host: clock.environment for host, clock in clocks.items()}) as found:
        (primary, *_), password = await found.replicated()
        clock = clocks[host_of(primary)]
        record = found.writer(primary["address"], password, "on")
        await found.until(lambda: asyncio.sleep(0, len(accepted(record)) > 20), what="writes before the jumps")
        await asyncio.sleep(3)  # its guard, which goes by the server's clock, is raised by then

        for jump in (HOUR, -HOUR, 0):
            clock.set(jump)
            before = time.monotonic()
            await asyncio.sleep(4)  # what is promised is that nothing happens in this time
            assert abs(now_of(primary["address"], password) - time.time() - jump) < 60, "the clock did not jump"
            written = [one for one in accepted(record) if one.began > before]
            gap = max(later.ended - earlier.ended for earlier, later in pairwise(written))
            refused = [one for one in attempts(record) if one.said != "ok" and one.began > before]
            print(f"{jump:+d} s: {len(written)} writes, {len(refused)} refused, longest gap {gap:.2f} s")
            assert gap < 2

        members = await found.members()
        assert [one["role"] for one in members] == ["primary", "replica", "replica"]
        assert members[0]["address"] == primary["address"]
        assert all(one["health"] == "ok" for one in members)
        events = (await found.call("GET", f"/instances/{primary['id']}/events"))["events"]
        assert not [one for one in events if one["kind"].startswith(("fail_over", "repair"))]

"""Redis' own check of an RDB file: every redis-server is a redis-check-rdb too, by the name it is called with.

It parses the whole file as that version would, and verifies the checksum: what it passes, that server loads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from redkeep.errors import Refused, Unavailable

_NICE = 10
"""Servers on the same machine go first."""


async def check_rdb(program: Path, file: Path) -> None:
    """Raises Refused when that redis-server could not load the file, Unavailable when it cannot be asked."""
    try:
        process = await asyncio.create_subprocess_exec(
            "redis-check-rdb",
            file,
            executable=program,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise Unavailable(f"{program} cannot be run: {error.strerror}") from error
    try:
        with contextlib.suppress(ProcessLookupError):  # a small file is checked before we get here
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Refused(f"the file is not one that {program} can load: {reason_of(said.decode(errors='replace'))}")


def reason_of(said: str) -> str:
    """The line that says what is wrong, without its decoration."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower() or "can't" in line.lower()]
    return (wrong or lines or ["it said nothing"])[0].strip("- ")

"""Where a server works: its port and its directory."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from pathlib import Path

from redkeep.agent.process import end_servers_in
from redkeep.errors import Refused
from redkeep.model.facts import ServerSpec


def require_free_port(spec: ServerSpec) -> None:
    """Raises Refused (`conflict`) when somebody else listens there: redis-server would exit, or worse, they answer."""
    family = socket.AF_INET6 if ":" in spec.address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.address.host, spec.address.port))
        except OSError as error:
            raise Refused(f"{spec.address} cannot be listened on: {error.strerror}", kind="conflict") from None


async def clear(directory: Path) -> None:
    """Nobody works in the directory any more, a child that saves neither, and it is gone."""
    await end_servers_in(directory)
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def directory_bytes(path: Path) -> int:
    """What the files of a directory take on disk; those that vanish meanwhile count nothing."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_blocks * 512
    return total

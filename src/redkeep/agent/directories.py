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
from redkeep.model.topology import Address

BUS = 10000
"""What Redis adds to a member's port for the bus of its cluster."""


def require_free_port(spec: ServerSpec) -> None:
    """Raises Refused (`conflict`) when somebody else listens there: redis-server would exit, or worse, they answer.

    A member of a cluster needs the port of its bus as well.
    """
    family = socket.AF_INET6 if ":" in spec.address.host else socket.AF_INET
    for port in (spec.address.port, spec.address.port + BUS) if spec.cluster else (spec.address.port,):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((spec.address.host, port))
            except (OSError, OverflowError) as error:
                where = Address(spec.address.host, port)
                raise Refused(f"{where} cannot be listened on: {error}", kind="conflict") from None


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

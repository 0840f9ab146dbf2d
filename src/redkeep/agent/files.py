"""Figures about files that are too large for the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path

from redkeep.errors import Refused
from redkeep.redis.rdb import HEAD_BYTES, TAIL_BYTES, RdbHeader, check_ends


async def size_of(path: Path) -> int:
    """In bytes."""
    return (await asyncio.to_thread(path.stat)).st_size


async def sha256_of(path: Path) -> str:
    """As hex digits."""

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return await asyncio.to_thread(digest)


async def rdb_ends(path: Path) -> RdbHeader:
    """See `redis.rdb.check_ends`. Raises Refused."""

    def ends() -> tuple[bytes, bytes]:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return head, file.read()

    return check_ends(*await asyncio.to_thread(ends))


def require_room(directory: Path, wanted_bytes: int, what: str) -> None:
    """Raises Refused (`too_large`), with both figures, when the disk has less room than that."""
    free = shutil.disk_usage(directory).free
    if wanted_bytes > free:
        raise Refused(
            f"{what} may take {wanted_bytes >> 20} MB, and the disk of {directory} has {free >> 20} MB free",
            kind="too_large",
        )


def put_in_place(draft: Path, target: Path) -> None:
    """Rename, so that after a power cut there is all of it or nothing."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

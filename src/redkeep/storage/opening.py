"""From settings to a storage."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from redkeep.errors import Refused
from redkeep.ports import BackupStorage
from redkeep.storage.local import LocalStorage


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """What the operator decides about backups. Read once."""

    url: str
    """`file:///directory` or `s3://bucket/prefix`."""
    host_id: str
    """This host, on which a directory is."""
    endpoint_url: str | None = None
    """Of an S3-compatible service that is not Amazon's."""
    shared: bool = False
    """The directory is one that every host has at the same path."""


def open_storage(settings: StorageSettings) -> BackupStorage:
    """Raises Refused when the URL, or this installation, cannot be used for it."""
    parts = urlsplit(settings.url)
    path = unquote(parts.path)
    match parts.scheme:
        case "file" if not parts.netloc and path.startswith("/"):
            return LocalStorage(Path(path), holder=None if settings.shared else settings.host_id)
        case "s3" if parts.netloc:
            if find_spec("boto3") is None:
                raise Refused(f"{settings.url} needs the extra s3: pip install 'redkeep[s3]'", kind="unsupported")
            from redkeep.storage.s3 import S3Storage  # noqa: PLC0415 (the library is optional)

            return S3Storage(parts.netloc, path.strip("/"), endpoint_url=settings.endpoint_url)
        case _:
            raise Refused(f"backup.storage = {settings.url!r} is neither file:///directory nor s3://bucket/prefix")

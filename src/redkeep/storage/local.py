"""Backups in a directory. A file appears under its name when it is whole and on the disk, not before."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from redkeep.errors import Refused, Unavailable
from redkeep.ports import Report
from redkeep.storage.threads import in_thread, silent

CHUNK_BYTES = 1024 * 1024


class LocalStorage:
    """Implements `ports.BackupStorage`. `holder`: the only host that has the directory; None when all have it."""

    def __init__(self, directory: Path, *, holder: str | None = None) -> None:
        self._directory = directory
        self._holder = holder

    def locate(self, name: str) -> str:
        return f"file://{self._holder or ''}{quote(str(self._directory / name))}"

    async def put(self, name: str, source: Path, report: Report = silent) -> None:
        target = self._directory / name

        def work(tell: Report) -> None:
            with _border(target):
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _copy(source, target, tell)

        await in_thread(work, report)

    async def get(self, name: str, target: Path, report: Report = silent) -> None:
        source = self._directory / name

        def work(tell: Report) -> None:
            with _border(source):
                _copy(source, target, tell)

        await in_thread(work, report)

    async def size(self, name: str) -> int:
        path = self._directory / name

        def work(_: Report) -> int:
            with _border(path):
                return path.stat().st_size

        return await in_thread(work, silent)

    async def remove(self, folder: str) -> None:
        path = self._directory / folder

        def work(_: Report) -> None:
            with _border(path):
                if path.exists():
                    shutil.rmtree(path)

        await in_thread(work, silent)


def _copy(source: Path, target: Path, tell: Report) -> None:
    """A reader of `target` sees all of it or nothing, even after a power cut."""
    draft = target.with_name(f".{target.name}.part")
    try:
        with source.open("rb") as reader, _private(draft) as writer:
            _pump(reader, writer, tell)
            writer.flush()
            os.fsync(writer.fileno())
        draft.replace(target)
        _sync_directory(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def _pump(reader: BinaryIO, writer: BinaryIO, tell: Report) -> None:
    done = 0
    while chunk := reader.read(CHUNK_BYTES):
        writer.write(chunk)
        done += len(chunk)
        tell(done)


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _border(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Refused(f"{error.filename or path} is not there", kind="missing") from error
    except OSError as error:
        full = "; free space there, or choose another place for backups" if error.errno == errno.ENOSPC else ""
        raise Unavailable(f"{error.filename or path}: {error.strerror or error}{full}") from error

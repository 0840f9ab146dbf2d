"""What an RDB file says of itself, read from its two ends. Pure.

Its middle is for Redis' own checker (`redis.checker`): the CRC-64 over gigabytes is no work for Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from redkeep.errors import Refused

HEAD_BYTES = 1024
"""As much of the beginning as holds the magic, the version and the auxiliary fields."""
TAIL_BYTES = 9
"""The marker of the end and the checksum."""

_MAGIC = b"REDIS"
_AUX = 0xFA
_EOF = 0xFF
_OLDEST_WITH_CHECKSUM = 5


@dataclass(frozen=True, slots=True)
class RdbHeader:
    """The beginning of an RDB file."""

    version: int
    """Of the format, not of Redis: 9 from Redis 5 on, 10 from 7.0 on."""
    aux: Mapping[str, str] = field(default_factory=dict)

    @property
    def replication_id(self) -> str:
        """The history of which this is a moment; "" when a server without replicas wrote it."""
        return self.aux.get("repl-id", "")

    @property
    def offset(self) -> int:
        """The moment; -1 when it is not there."""
        text = self.aux.get("repl-offset", "")
        return int(text) if text.isdigit() else -1


def parse_header(head: bytes) -> RdbHeader:
    """Read the first `HEAD_BYTES` of a file. Raises Refused when that is no RDB."""
    version = head[5:9]
    if head[:5] != _MAGIC or len(version) < 4 or not version.isdigit():
        raise Refused("this is not an RDB file: it does not begin with REDIS and a version")
    return RdbHeader(int(version), dict(_aux_fields(head)))


def check_ends(head: bytes, tail: bytes) -> RdbHeader:
    """The beginning, provided that the last `TAIL_BYTES` are an end. Raises Refused when the file is cut off."""
    header = parse_header(head)
    if header.version < _OLDEST_WITH_CHECKSUM:
        raise Refused(f"RDB version {header.version} has no checksum; the oldest that is taken is 5")
    if len(tail) < TAIL_BYTES or tail[-TAIL_BYTES] != _EOF:
        raise Refused("the RDB file is cut off: it has no marker of its end")
    return header


def _aux_fields(head: bytes) -> list[tuple[str, str]]:
    """Those that are whole: the head may be cut anywhere."""
    found = []
    at = 9
    try:
        while head[at] == _AUX:
            name, at = _string(head, at + 1)
            value, at = _string(head, at)
            found.append((name, value))
    except (IndexError, ValueError):
        pass
    return found


def _string(data: bytes, at: int) -> tuple[str, int]:
    """One string of RDB's encoding and the place after it. Raises IndexError at the end, ValueError when compressed."""
    first = data[at]
    match first >> 6:
        case 0:
            start, length = at + 1, first & 0x3F
        case 1:
            start, length = at + 2, (first & 0x3F) << 8 | data[at + 1]
        case 3 if width := {0: 1, 1: 2, 2: 4}.get(first & 0x3F):
            _require(data, at + 1 + width)
            return str(int.from_bytes(data[at + 1 : at + 1 + width], "little", signed=True)), at + 1 + width
        case _:
            raise ValueError("no auxiliary field is that long")
    _require(data, start + length)
    return data[start : start + length].decode(errors="replace"), start + length


def _require(data: bytes, end: int) -> None:
    if end > len(data):
        raise IndexError

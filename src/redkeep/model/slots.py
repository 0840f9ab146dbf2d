"""A Redis Cluster as its members describe it: who they are, and who owns which of the 16384 slots."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from redkeep.model.topology import Address

SLOTS = 16384

Ranges = tuple[tuple[int, int], ...]
"""Slots as first and last of each run, both included."""


class Pace(StrEnum):
    """How much slots that move may take from the clients: the one knob."""

    GENTLE = "gentle"
    """One source at a time, few slots at once: clients hardly notice."""
    FAST = "fast"
    """All sources at once, many slots in one go: over soon, and clients wait for tens of milliseconds meanwhile."""


def slots_in(ranges: Iterable[tuple[int, int]]) -> list[int]:
    """One by one, in the order of the ranges."""
    return [slot for first, last in ranges for slot in range(first, last + 1)]


def as_ranges(slots: Iterable[int]) -> Ranges:
    """The fewest ranges that hold exactly these."""
    found: list[tuple[int, int]] = []
    for slot in sorted(set(slots)):
        if found and found[-1][1] == slot - 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return tuple(found)


def slot_of(key: bytes) -> int:
    """The slot of a key: of what stands between its first braces, if anything does."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a cluster."""

    id: str
    address: Address
    primary_id: str | None = None
    """Whom it replicates; None for a primary."""
    epoch: int = 0
    failed: bool = False
    """A majority of the primaries calls it failed."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Slots that it owns, both ends included."""


@dataclass(frozen=True)
class ClusterView:
    """All members, as one of them sees it, or as was announced. Of two, that of the higher epoch is true."""

    members: tuple[Member, ...] = ()

    @cached_property
    def epoch(self) -> int:
        """The highest configuration epoch of a member: it rises with every failover and every moved slot."""
        return max((member.epoch for member in self.members), default=0)

    @cached_property
    def covered(self) -> int:
        """How many slots have an owner."""
        return sum(last - first + 1 for member in self.members for first, last in member.ranges)

    @cached_property
    def primaries(self) -> tuple[Member, ...]:
        """The owners of slots, by address."""
        owners = (member for member in self.members if member.primary_id is None and member.ranges)
        return tuple(sorted(owners, key=lambda member: member.address))

    @cached_property
    def healthy(self) -> tuple[Address, ...]:
        """Members that nobody calls failed."""
        return tuple(sorted(member.address for member in self.members if not member.failed))

    @cached_property
    def shape(self) -> frozenset[tuple[str, Address, str | None, bool, tuple[tuple[int, int], ...]]]:
        """What makes two views differ for a client: not epochs, and not who pinged whom when."""
        return frozenset((one.id, one.address, one.primary_id, one.failed, one.ranges) for one in self.members)

    def to_news(self) -> list[list[Any]]:
        """As JSON types."""
        return [
            [one.id, str(one.address), one.primary_id, one.epoch, one.failed, [list(pair) for pair in one.ranges]]
            for one in self.members
        ]

    @classmethod
    def from_news(cls, news: Any) -> Self:
        """The inverse of `to_news`. Raises ValueError on anything else."""
        try:
            return cls(
                tuple(
                    Member(
                        str(id_),
                        Address.parse(address),
                        None if primary_id is None else str(primary_id),
                        int(epoch),
                        bool(failed),
                        tuple((int(first), int(last)) for first, last in ranges),
                    )
                    for id_, address, primary_id, epoch, failed, ranges in news
                )
            )
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a cluster: {news!r}") from error


def parse_nodes(text: str, asked: Address) -> ClusterView:
    """The reply to CLUSTER NODES of the server at `asked`. Raises ValueError on anything else.

    Members whose address nobody knows, and those that are still shaking hands, are left out: one cannot talk to them.
    """
    try:
        members = [_parse_node(line.split(), asked) for line in text.splitlines() if line]
    except IndexError as error:
        raise ValueError(f"{asked}: not the reply to CLUSTER NODES: {text[:200]!r}") from error
    return ClusterView(tuple(member for member in members if member is not None))


def _parse_node(fields: list[str], asked: Address) -> Member | None:
    flags = fields[2].split(",")
    if "handshake" in flags or "noaddr" in flags:
        return None
    place = fields[1].partition(",")[0].partition("@")[0]
    host, _, port = place.rpartition(":")  # without brackets even for IPv6
    return Member(
        id=fields[0],
        address=Address(host or asked.host, int(port)),
        primary_id=None if fields[3] == "-" else fields[3],
        epoch=int(fields[6]),
        failed="fail" in flags,
        ranges=tuple(_parse_range(field) for field in fields[8:] if not field.startswith("[")),
    )


def _parse_range(field: str) -> tuple[int, int]:
    first, _, last = field.partition("-")
    return int(first), int(last or first)


@dataclass(frozen=True, slots=True)
class Redirect:
    """A server named another one for a slot: for good (MOVED), or for this command alone (ASK)."""

    slot: int
    address: Address
    for_good: bool


def parse_redirect(code: str, message: str, asked: Address) -> Redirect | None:
    """What an error reply says, None when it is no redirection."""
    if code not in ("MOVED", "ASK"):
        return None
    slot, _, place = message.partition(" ")
    host, _, port = place.partition(" ")[0].rpartition(":")
    if not slot.isdigit() or not port.isdigit():
        return None
    return Redirect(int(slot), Address(asked.host if host in ("", "?") else host, int(port)), code == "MOVED")


_KEY_AT: Mapping[str, int] = {
    "EVAL": 3, "EVALSHA": 3, "FCALL": 3, "FCALL_RO": 3, "EVAL_RO": 3, "EVALSHA_RO": 3,
    "XINFO": 2, "XGROUP": 2, "OBJECT": 2, "MEMORY": 2, "DEBUG": 2, "BITOP": 2,
}  # fmt: skip
_STREAMS = frozenset({"XREAD", "XREADGROUP"})
_KEYLESS = frozenset(
    {"PING", "INFO", "TIME", "ROLE", "CLUSTER", "CONFIG", "CLIENT", "COMMAND", "SCRIPT", "FUNCTION", "DBSIZE", "WAIT"}
    | {"PUBLISH", "PUBSUB", "SCAN", "KEYS", "FLUSHALL", "FLUSHDB", "LASTSAVE", "ACL", "LATENCY", "SLOWLOG", "ECHO"}
)


def key_of(args: tuple[str | bytes | int | float, ...]) -> bytes | None:
    """The first key of a command, None when it has none: then any node may run it."""
    name = _text(args[0]).upper()
    if name in _KEYLESS or len(args) == 1:
        return None
    if name in _STREAMS:
        at = next((n for n, word in enumerate(args) if _text(word).upper() == "STREAMS"), len(args)) + 1
    else:
        at = _KEY_AT.get(name, 1)
        if at == 3 and len(args) > 2 and _text(args[2]) == "0":
            return None
    return _text_bytes(args[at]) if at < len(args) else None


def _text(word: str | bytes | int | float) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)


def _text_bytes(word: str | bytes | int | float) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()

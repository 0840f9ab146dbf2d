"""What has to travel so that both sides have the same: by digests, then by the entries of the leaves that differ.

Every object has an owner, who alone decides whether it exists, and a version, of which the higher wins. A leaf's digest
is the sum of the marks of its entries, so each write changes it in one step, and nobody ever adds it all up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from zlib import crc32

LEAVES = 4096
ROOT = -1
"""The leaf under which the sum of all is kept."""
FULL_PUSH = 0.5
"""Share of leaves that differ from which on everything is pushed without asking what differs."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What decides about an entry."""

    version: int
    owner: str
    mark: int
    """40 bits that stand for key, version, owner and value: Redis can add up 8 million of them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a table."""

    value: bytes
    meta: Meta


def make_entry(key: str, value: bytes, version: int, owner: str) -> Entry:
    raw = key.encode("utf-8", "surrogateescape")
    hashed = blake2b(b"%d %d " % (version, len(raw)) + raw + owner.encode() + b"\0" + value, digest_size=5)
    return Entry(value, Meta(version, owner, int.from_bytes(hashed.digest(), "big")))


def leaf_of(key: str) -> int:
    return crc32(key.encode("utf-8", "surrogateescape")) % LEAVES


def wins(one: Meta, other: Meta | None) -> bool:
    """Whether `one` replaces `other`: by version, and among equals by something that both sides see the same way."""
    return other is None or (one.version, one.owner, one.mark) > (other.version, other.owner, other.mark)


def differing(mine: Mapping[int, int], theirs: Mapping[int, int]) -> list[int]:
    """The leaves whose digests differ; a digest of 0 is that of an empty leaf."""
    leaves = (mine.keys() | theirs.keys()) - {ROOT}
    return sorted(leaf for leaf in leaves if mine.get(leaf, 0) != theirs.get(leaf, 0))


@dataclass(frozen=True, slots=True)
class Push:
    """What the owner changes on the other side."""

    put: tuple[str, ...]
    drop: tuple[tuple[str, int], ...]
    """Keys, and the versions up to which they are gone."""


def plan_push(owner: str, mine: Mapping[str, Meta], theirs: Mapping[str, Meta]) -> Push:
    """Of some leaves: what the owner has newer, and what it has no more."""
    put = (key for key, meta in mine.items() if meta.owner == owner and wins(meta, theirs.get(key)))
    drop = ((key, meta.version) for key, meta in theirs.items() if meta.owner == owner and key not in mine)
    return Push(tuple(put), tuple(drop))


@dataclass(frozen=True, slots=True)
class Pull:
    """What one takes over from the other side."""

    take: tuple[str, ...]
    drop: tuple[str, ...]


def plan_pull(owner: str, mine: Mapping[str, Meta], theirs: Mapping[str, Meta]) -> Pull:
    """Of some leaves: what others have newer, and which objects of others are gone.

    Only to be believed when those others have pushed: before that, missing may mean lost.
    """
    take = (key for key, meta in theirs.items() if wins(meta, mine.get(key)))
    drop = (key for key, meta in mine.items() if meta.owner != owner and key not in theirs)
    return Pull(tuple(take), tuple(drop))


def digest(entries: Iterable[tuple[str, Meta]]) -> dict[int, int]:
    """All digests anew: for tests, and for whoever starts with many."""
    sums: dict[int, int] = {}
    for key, meta in entries:
        for leaf in (leaf_of(key), ROOT):
            sums[leaf] = sums.get(leaf, 0) + meta.mark
    return sums


@dataclass(frozen=True, slots=True)
class Health:
    """Whether what is here can be trusted: dirty from the news of an HA until a resync of it is through."""

    generation: int = 0
    """The newest that was heard of."""
    clean: int = 0
    """The newest for which a resync was completed."""

    @property
    def dirty(self) -> bool:
        return self.clean < self.generation

    def heard(self, generation: int) -> Health:
        return Health(max(self.generation, generation), self.clean)

    def resynchronised(self, generation: int) -> Health:
        """A resync that began when that generation was the newest is complete."""
        return Health(self.generation, max(self.clean, generation))

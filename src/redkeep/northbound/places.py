"""Where things live in Redis. Every name is encoded injectively, so that no two of them meet whatever they contain.

All that belongs to a topic shares one slot: its tables' entries, its log and its channel. So does all that belongs to a
table outside of any topic. That is what makes a write, its log entry and its notification one atomic call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote_from_bytes

from redkeep.model.slots import slot_of

SPACE = "nb:"
TABLE_CHANNEL = "table:"
"""What the channel of a table's changes begins with, if the table is in no topic."""
_PLAIN = "_-"


def encode(name: str | bytes) -> str:
    """ASCII letters, digits, `_` and `-` as they are, all else as %XX: no braces, no dots, no colons, no globs."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return quote_from_bytes(raw, _PLAIN).replace(".", "%2E").replace("~", "%7E")


@dataclass(frozen=True, slots=True)
class Place:
    """The entries of one table within one topic."""

    table: str
    topic: str
    slot: int
    entries: bytes
    """A hash: key -> value."""
    feed: Feed

    def beside(self, what: str) -> bytes:
        """Another key of this table in the same slot."""
        return self.entries + b":" + what.encode()


@dataclass(frozen=True, slots=True)
class Feed:
    """A channel of messages, and the bounded log of them."""

    channel: str
    """As people call it."""
    slot: int
    log: bytes
    live: bytes
    """The channel's name in Redis."""
    last: bytes
    """Holds the id of the last message: quicker to read than the log's end, and each message names the one before."""

    @property
    def keys(self) -> tuple[bytes, bytes, bytes]:
        """What the scripts that tell are given."""
        return self.log, self.live, self.last


@dataclass(frozen=True, slots=True)
class Registry:
    """Which topics a table may have entries in, and whether it was created. In the slot of the topicless place."""

    slot: int
    topics: bytes
    """A hash: topic -> when it was last registered, in seconds since 1970. A superset: emptied topics stay a while."""
    made: bytes


@lru_cache(maxsize=16384)
def feed_of(channel: str) -> Feed:
    """`table:<name>` is where the changes of a table without a topic are told; all others are topics."""
    table = channel.removeprefix(TABLE_CHANNEL)
    tag = f"b.{encode(table)}" if table != channel else f"t.{encode(channel)}"
    base = f"{SPACE}{{{tag}}}".encode()
    return Feed(channel, slot_of(base), base + b":log", base + b":live", base + b":last")


@lru_cache(maxsize=16384)
def place_of(table: str, topic: str | None) -> Place:
    """None and the empty topic are the same: no topic."""
    feed = feed_of(topic or TABLE_CHANNEL + table)
    base = feed.log.removesuffix(b":log")
    return Place(table, topic or "", feed.slot, base + b":h:" + encode(table).encode(), feed)


@lru_cache(maxsize=16384)
def registry_of(table: str) -> Registry:
    base = f"{SPACE}{{b.{encode(table)}}}".encode()
    return Registry(slot_of(base), base + b":topics", base + b":made")

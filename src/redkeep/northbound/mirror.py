"""Tables that are kept the same here and in Redis, through every loss: what I own I push, what others own I take.

The local side lives in memory. Digests are kept on both sides with each write, so that a resync costs what differs.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redkeep.decide.consistency import (
    FULL_PUSH,
    LEAVES,
    ROOT,
    Entry,
    Meta,
    differing,
    leaf_of,
    make_entry,
    plan_pull,
    plan_push,
    wins,
)
from redkeep.errors import Refused
from redkeep.northbound.messages import Message, as_json, body, from_json
from redkeep.northbound.places import TABLE_CHANNEL, Place, place_of
from redkeep.northbound.scripts import MIRROR, Door
from redkeep.northbound.tables import KEPT, TIMEOUT
from redkeep.northbound.wire import Argument, Reply

T = TypeVar("T")

PAGE = 200
"""Entries, or leaves, of one call."""

OnChange = Callable[[str, str, bytes | None], Any]
"""Table, key and value (None: it is gone) of somebody else's change."""


@dataclass(slots=True)
class Report:
    """What a resync did."""

    tables: int = 0
    """That differed."""
    pushed: int = 0
    dropped: int = 0
    """On the other side."""
    taken: int = 0
    gone: int = 0
    """Here."""

    @property
    def changes(self) -> int:
        return self.pushed + self.dropped + self.taken + self.gone


class _Local:
    """One table as it is here, with its digests."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.sums: dict[int, int] = defaultdict(int)
        self.leaves: dict[int, set[str]] = defaultdict(set)

    def put(self, key: str, entry: Entry) -> None:
        self.drop(key)
        leaf = leaf_of(key)
        self.entries[key] = entry
        self.leaves[leaf].add(key)
        self.sums[leaf] += entry.meta.mark
        self.sums[ROOT] += entry.meta.mark

    def drop(self, key: str) -> bool:
        old = self.entries.pop(key, None)
        if old is None:
            return False
        leaf = leaf_of(key)
        self.leaves[leaf].discard(key)
        self.sums[leaf] -= old.meta.mark
        self.sums[ROOT] -= old.meta.mark
        return True

    def metas(self, leaves: Iterable[int]) -> dict[str, Meta]:
        return {key: self.entries[key].meta for leaf in leaves for key in self.leaves.get(leaf, ())}


class Mirror:
    """All tables of one process that are kept the same. `owner` names who decides about what this process puts."""

    def __init__(
        self,
        door: Door,
        *,
        owner: str,
        tables: Iterable[str],
        on_change: OnChange | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.owner = owner
        self._door = door
        self._on_change = on_change
        self._timeout = timeout
        self._version = 0
        self._local = {table: _Local() for table in tables}

    @property
    def channels(self) -> list[str]:
        """What to subscribe `hear` to."""
        return [TABLE_CHANNEL + table for table in self._local]

    def entries(self, table: str) -> dict[str, bytes]:
        """As they are here."""
        return {key: entry.value for key, entry in self._local[table].entries.items()}

    def metas(self, table: str) -> dict[str, Meta]:
        return {key: entry.meta for key, entry in self._local[table].entries.items()}

    async def put(self, table: str, key: str, value: bytes) -> None:
        """Mine from now on, here and, told to all, there.

        Raises Unavailable or OutcomeUnknown: then it is here, and the next resync brings it there. Raises Refused when
        somebody has a newer version: hear that first.
        """
        local = self._local[table]
        old = local.entries.get(key)
        entry = make_entry(key, value, self._next_version(old), self.owner)
        local.put(key, entry)
        told = {"action": "put", "key": as_json(key), "value": as_json(value), "version": entry.meta.version}
        if await self._change(table, [(key, entry)], told=told):
            raise Refused(f"somebody has a newer {key!r} of {table!r}", kind="conflict")

    def _next_version(self, old: Entry | None) -> int:
        """Above all that this process gave out or saw of the entry, and, by the clock, above what it gave out before it
        was restarted: an object that was dropped and comes back must win over what is left of the old one."""
        self._version = max(self._version, old.meta.version if old else 0, int(time.time() * 1000)) + 1
        return self._version

    async def drop(self, table: str, key: str) -> None:
        """Gone, here and there; otherwise as `put`. One that is not here is no error."""
        old = self._local[table].entries.get(key)
        if old is None:
            return
        self._local[table].drop(key)
        told = {"action": "drop", "key": as_json(key), "version": old.meta.version}
        await self._change(table, [(key, old.meta.version)], told=told)

    def hear(self, message: Message) -> None:
        """Somebody's change, as told. Anything out of order is left to the next resync."""
        data = message.data
        table, key = str(data["table"]), from_json(data["key"]).decode("utf-8", "surrogateescape")
        if data["owner"] == self.owner or table not in self._local:
            return
        local = self._local[table]
        old = local.entries.get(key)
        if data["action"] == "put":
            entry = make_entry(key, from_json(data["value"]), int(data["version"]), str(data["owner"]))
            if wins(entry.meta, old.meta if old else None):
                self._put_here(table, key, entry)
        elif old is not None and old.meta.version <= int(data["version"]):
            self._drop_here(table, key)

    # --- resync ------------------------------------------------------------------------------------------------------

    async def load(self) -> Report:
        """Take everything, what is mine included: for a process that has just started."""
        return await self._pull(Report())

    async def push(self) -> Report:
        """The first half: what I own. Raises as `send` does; repeating it is harmless."""
        report = Report()
        for table in self._local:
            leaves = await self._differing(table)
            if not leaves:
                continue
            report.tables += 1
            if len(leaves) > FULL_PUSH * LEAVES:
                await self._push_all(table, report)
                leaves = await self._differing(table)
            for page in _pages(leaves, PAGE):
                await self._push_leaves(table, page, report)
        return report

    async def pull(self, report: Report | None = None) -> Report:
        """The second half: what others own, once they have pushed."""
        return await self._pull(report or Report())

    async def _push_all(self, table: str, report: Report) -> None:
        """Without asking what is there: the other side turns down what is older than what it has."""
        mine = [(key, entry) for key, entry in self._local[table].entries.items() if entry.meta.owner == self.owner]
        for page in _pages(mine, PAGE):
            await self._change(table, page)
            report.pushed += len(page)

    async def _push_leaves(self, table: str, leaves: Sequence[int], report: Report) -> None:
        local = self._local[table]
        plan = plan_push(self.owner, local.metas(leaves), await self._their_metas(table, leaves))
        for page in _pages([(key, local.entries[key]) for key in plan.put if key in local.entries], PAGE):
            await self._change(table, page)
        for gone in _pages(plan.drop, PAGE):
            await self._change(table, gone)
        report.pushed += len(plan.put)
        report.dropped += len(plan.drop)

    async def _pull(self, report: Report) -> Report:
        for table, local in self._local.items():
            for page in _pages(await self._differing(table), PAGE):
                mine = local.metas(page)  # before theirs: what is heard meanwhile is not taken for gone
                theirs = await self._their_metas(table, page)
                plan = plan_pull(self.owner, mine, theirs)
                for keys in _pages(plan.take, PAGE):
                    await self._take(table, keys, theirs, report)
                gone = [key for key in plan.drop if (now := local.entries.get(key)) and now.meta == mine[key]]
                for key in gone:
                    self._drop_here(table, key)
                report.gone += len(gone)
        return report

    async def _take(self, table: str, keys: Sequence[str], theirs: dict[str, Meta], report: Report) -> None:
        place = place_of(table, None)
        values = await self._read(place, "HMGET", place.entries, *(_raw(key) for key in keys))
        for key, value in zip(keys, values, strict=True):
            meta, old = theirs[key], self._local[table].entries.get(key)
            if value is not None and wins(meta, old.meta if old else None):
                self._put_here(table, key, make_entry(key, value, meta.version, meta.owner))
                report.taken += 1

    async def _differing(self, table: str) -> list[int]:
        place, mine = place_of(table, None), self._local[table].sums
        root = await self._read(place, "HGET", _digests(place), ROOT)
        if int(root or 0) == mine.get(ROOT, 0):
            return []
        found = await self._read(place, "HGETALL", _digests(place))
        return differing(mine, {int(leaf): int(total) for leaf, total in found.items()})

    async def _their_metas(self, table: str, leaves: Sequence[int]) -> dict[str, Meta]:
        place = place_of(table, None)
        commands: list[tuple[Argument, ...]] = [("HGETALL", _leaf(place, leaf)) for leaf in leaves]
        replies = await self._door.send_many(place.slot, commands, retry="always", timeout=self._timeout)
        return {key.decode("utf-8", "surrogateescape"): _meta(raw) for reply in replies for key, raw in reply.items()}

    async def _read(self, place: Place, *args: Argument) -> Reply:
        return await self._door.send(place.slot, args, retry="always", timeout=self._timeout)

    async def _change(
        self, table: str, items: Sequence[tuple[str, Entry | int]], *, told: dict[str, Any] | None = None
    ) -> int:
        """Put entries, drop versions, digests and all, in one call; how many were turned down as older."""
        place = place_of(table, None)
        leaves = sorted({leaf_of(key) for key, _ in items})
        keys = (place.entries, *place.feed.keys, _digests(place), *(_leaf(place, n) for n in leaves))
        args: list[Argument] = []
        for key, what in items:
            leaf = leaf_of(key)
            meta = what.meta if isinstance(what, Entry) else Meta(what, "", 0)
            value = what.value if isinstance(what, Entry) else b""
            kind = "put" if isinstance(what, Entry) else "drop"
            args += (kind, 6 + leaves.index(leaf), leaf, _raw(key), value, meta.version, meta.mark, meta.owner)
        said = "" if told is None else body(place.feed.channel, {"table": table, "owner": self.owner, **told})
        publish = "SPUBLISH" if self._door.sharded else "PUBLISH"
        return int(
            await MIRROR.run(
                self._door, place.slot, keys, said, KEPT, publish, *args, retry="always", timeout=self._timeout
            )
        )

    def _put_here(self, table: str, key: str, entry: Entry) -> None:
        self._local[table].put(key, entry)
        if self._on_change is not None:
            self._on_change(table, key, entry.value)

    def _drop_here(self, table: str, key: str) -> None:
        if self._local[table].drop(key) and self._on_change is not None:
            self._on_change(table, key, None)


def _digests(place: Place) -> bytes:
    return place.beside("digests")


def _leaf(place: Place, leaf: int) -> bytes:
    return place.beside(f"leaf:{leaf}")


def _meta(raw: bytes) -> Meta:
    version, mark, owner = raw.decode("utf-8", "surrogateescape").split(" ", 2)
    return Meta(int(version), owner, int(mark))


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _pages(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

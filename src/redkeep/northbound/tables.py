"""Tables: keys and values by table and topic, on hashes, so that a table costs what it holds and nothing more.

A write that may have run is sent again only where running twice is the same as once: `set_key` writes the same value,
`create_key` is recognised by its mark, `delete_key` finds nothing left to delete. Where all trials end in doubt, a
failed add is taken back, and a failed delete is not.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

from redkeep.decide.routing import Retry
from redkeep.errors import OutcomeUnknown, Refused, Unavailable
from redkeep.northbound.failures import KeyExists, KeyNotFound, TableNotFound
from redkeep.northbound.messages import as_json, body, change
from redkeep.northbound.places import Place, place_of, registry_of
from redkeep.northbound.scripts import ALLOCATE, CREATE, DELETE, SET, UNDO, UNLINK, Door, Script
from redkeep.northbound.wire import Argument, Reply

V = TypeVar("V", str, bytes)
Text = str | bytes

TIMEOUT = 5.0
PAGE = 1000
WHOLE = 20_000
"""Entries up to which a place is read by one command; larger ones by pages, so that nobody else waits for them."""
KEPT = 10_000
"""About how many messages the log of a channel keeps."""
REMEMBERED = 600.0
"""Seconds for which a process relies on having registered a topic of a table."""
FORGOTTEN = 3600.0
"""Seconds after which the registration of an emptied topic may be dropped: far more than the above."""
MARK_MS = 60_000
ID_TABLE = "unique_key"
ID_BLOCK = 1000
"""Ids skipped after a failover: more than can have been given out and not have reached the new primary."""
ID_CONFIRM_MS = 200


class BasicTables(Generic[V]):
    """Tables whose values come back as `V`. Use `Tables` or `RawTables`."""

    def __init__(self, door: Door, *, tell: bool = False, attempts: int = 3, timeout: float = TIMEOUT) -> None:
        """With `tell` every change is also logged and published, in one atomic call, on the channel of its topic, or
        `table:<name>` without one. A call ends after `attempts` trials of `timeout` seconds each."""
        self._door = door
        self._tell = tell
        self._attempts = attempts
        self._timeout = timeout
        self._registered: dict[tuple[str, str], float] = {}
        self._highest: dict[str, int] = {}
        """Per table the highest id given out by this process."""

    def _value(self, raw: bytes) -> V:
        raise NotImplementedError

    # --- tables ------------------------------------------------------------------------------------------------------

    async def create_table(self, table: str) -> None:
        """Make a table; one that is there stays as it is."""
        await self._register(place_of(table, None))

    async def delete_table(self, table: str) -> None:
        """Remove a table with all entries of all its topics. One that is not there is no error."""
        registry = registry_of(table)
        known: dict[bytes, bytes] = await self._read(registry.slot, "HGETALL", registry.topics)
        await self._repeat(registry.slot, "DEL", registry.made)
        for topic in {b"", *known}:
            place = place_of(table, _text(topic))
            told = self._message(place, "delete_table", None, None)
            await self._script(UNLINK, place, *told)
            self._registered.pop((table, place.topic), None)
        old = [topic for topic, when in known.items() if float(when) < time.time() - FORGOTTEN]
        if old:
            await self._repeat(registry.slot, "HDEL", registry.topics, *old)

    async def allocate_unique_key(self, table: str) -> int:
        """The next id of that table: from any number of processes, and across failovers, never the same twice.

        Confirmed by a replica where there is one; raises Unavailable when none does, and that id is never used.
        """
        place = place_of(ID_TABLE, None)
        keys = (place.entries, place.beside("histories"))
        number, replicas = await self._trial(
            lambda: ALLOCATE.run(
                self._door,
                place.slot,
                keys,
                table,
                self._highest.get(table, 0),
                ID_BLOCK,
                retry="always",
                timeout=self._timeout,
            )
        )
        self._highest[table] = max(number, self._highest.get(table, 0))
        if replicas and not await self._door.send(place.slot, ("WAIT", 1, ID_CONFIRM_MS), timeout=self._timeout):
            raise Unavailable(f"no replica confirmed id {number} of {table!r}; it was given to nobody")
        return int(number)

    # --- one key -----------------------------------------------------------------------------------------------------

    async def get_key(self, table: str, key: Text, topic: str | None = None) -> V:
        """One value. Without a topic, from wherever the table has that key. Raises KeyNotFound or TableNotFound."""
        place = place_of(table, topic)
        raw = await self._door.send(
            place.slot, ("HGET", place.entries, _raw(key)), retry="always", timeout=self._timeout
        )
        if raw is None:
            raw = await self._get_elsewhere(table, key, topic)
        return self._value(raw)

    async def set_key(self, table: str, key: Text, value: Text, topic: str | None = None) -> None:
        """Write a value, whether the key is there or not. Without a topic, where the table has that key."""
        place = place_of(table, topic)
        if self._registered.get((place.table, place.topic), 0.0) < time.monotonic():
            await self._register(place)
        if self._tell:
            new = await self._script(SET, place, *self._message(place, "set", key, value), _raw(key), _raw(value))
        else:  # the same with fewer steps: this is the hot path
            args = ("HSET", place.entries, _raw(key), _raw(value))
            try:
                new = await self._door.send(place.slot, args, timeout=self._timeout)
            except OutcomeUnknown:
                new = await self._repeat(place.slot, *args)
        if new and not topic:
            elsewhere = await self._holders(table, key)
            if len(elsewhere) == 1:
                await self._write(elsewhere[0], {key: value})
                await self._repeat(place.slot, "HDEL", place.entries, _raw(key))

    async def create_key(self, table: str, key: Text, value: Text, topic: str | None = None) -> None:
        """Add a key. Raises KeyExists when it is there.

        When the outcome stays unknown it is taken back, and Unavailable raised; OutcomeUnknown if that fails too: then
        taking it back is tried in the background for a minute.
        """
        place: Place = place_of(table, topic)
        await self._registered_place(place)
        told = self._message(place, "create", key, value)
        mark = place.beside(f"mark:{uuid.uuid4().hex}")
        args: tuple[Argument, ...] = (_raw(key), _raw(value), MARK_MS)
        try:
            made = await self._script(CREATE, place, *told, *args, mark=mark)
        except OutcomeUnknown as error:
            await self._take_back(place, mark, (*self._message(place, "delete", key, None), *args))
            raise Unavailable(f"{key!r} was not added to {table!r}: {error}") from error
        if made == 0:
            raise KeyExists(key=key, table=table)
        if made < 0:
            raise Unavailable(f"{key!r} was not added to {table!r}: it was taken back")

    async def delete_key(self, table: str, key: Text, topic: str | None = None) -> None:
        """Remove a key. Raises KeyNotFound or TableNotFound. A delete that failed is not taken back."""
        place = place_of(table, topic)
        if await self._delete(place, key):
            return
        elsewhere = [] if topic else await self._holders(table, key)
        if len(elsewhere) > 1:
            raise _ambiguous(table, key)
        if not elsewhere or not await self._delete(elsewhere[0], key):
            raise await self._missing(table, key)

    # --- many keys ---------------------------------------------------------------------------------------------------

    async def set_keys(self, table: str, values: Mapping[Text, Text], topic: str | None = None) -> None:
        """Write many values into that topic, or outside of any. A page at a time: each page is there as a whole."""
        place = place_of(table, topic)
        await self._registered_place(place)
        items = iter(values.items())
        while page := dict(islice(items, PAGE)):
            await self._write(place, page)

    async def get_keys(self, table: str, keys: Iterable[Text], topic: str | None = None) -> list[V | None]:
        """Many values of that topic, or outside of any, in the order of the keys; None for what is not there."""
        place = place_of(table, topic)
        wanted = iter(keys)
        found: list[V | None] = []
        while page := [_raw(key) for key in islice(wanted, PAGE)]:
            raws = await self._read(place.slot, "HMGET", place.entries, *page)
            found += [None if raw is None else self._value(raw) for raw in raws]
        return found

    async def get_all_keys(self, table: str, topic: str | None = None) -> list[str]:
        """All keys; none of an empty or unknown table. Without a topic, those of all topics."""
        small, large = await self._by_size(table, topic)
        replies = await self._each(small, "HKEYS")
        found = [_text(key) for reply in replies for key in reply]
        for place in large:
            found += {_text(key): None async for key, _ in self._pages(place)}
        return found

    async def get_all_entries(self, table: str, topic: str | None = None) -> list[V]:
        """All values; otherwise as `get_all_keys`."""
        small, large = await self._by_size(table, topic)
        replies = await self._each(small, "HVALS")
        found = [self._value(raw) for reply in replies for raw in reply]
        for place in large:
            found += {key: self._value(raw) async for key, raw in self._pages(place)}.values()
        return found

    async def get_all(self, table: str, topic: str | None = None) -> dict[str, V]:
        """Keys and values of one topic, or of those outside of any."""
        place = place_of(table, topic)
        if await self._read(place.slot, "HLEN", place.entries) <= WHOLE:
            pairs = await self._read(place.slot, "HGETALL", place.entries)
            return {_text(key): self._value(raw) for key, raw in pairs.items()}
        return {_text(key): self._value(raw) async for key, raw in self._pages(place)}

    async def iterate(self, table: str, topic: str | None = None) -> AsyncGenerator[tuple[str, V], None]:
        """Keys and values a page at a time, for tables larger than memory.

        What is there from beginning to end is given at least once; what comes or goes meanwhile, perhaps.
        """
        for place in await self._places(table, topic):
            async for key, raw in self._pages(place):
                yield _text(key), self._value(raw)

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _by_size(self, table: str, topic: str | None) -> tuple[list[Place], list[Place]]:
        """The places that are read by one command, and those that are read by pages."""
        places = await self._places(table, topic)
        sizes = await self._each(places, "HLEN")
        small = [place for place, size in zip(places, sizes, strict=True) if 0 < size <= WHOLE]
        return small, [place for place, size in zip(places, sizes, strict=True) if size > WHOLE]

    async def _each(self, places: list[Place], command: str, *args: Argument) -> list[Reply]:
        """One command for each place, all under way at once."""
        commands = [(place.slot, (command, place.entries, *args)) for place in places]
        return await self._door.send_each(commands, timeout=self._timeout)

    async def _pages(self, place: Place) -> AsyncGenerator[tuple[bytes, bytes], None]:
        cursor: Any = 0
        while True:
            cursor, row = await self._read(place.slot, "HSCAN", place.entries, cursor, "COUNT", PAGE)
            pairs = row.items() if isinstance(row, dict) else zip(row[::2], row[1::2], strict=True)
            for key, raw in pairs:
                yield key, raw
            if int(cursor) == 0:
                return

    async def _places(self, table: str, topic: str | None) -> list[Place]:
        """Where entries of the table may be."""
        if topic:
            return [place_of(table, topic)]
        registry = registry_of(table)
        topics: list[bytes] = await self._read(registry.slot, "HKEYS", registry.topics)
        return [place_of(table, name) for name in sorted({"", *map(_text, topics)})]

    async def _holders(self, table: str, key: Text) -> list[Place]:
        """The topics of the table that have this key."""
        places = [place for place in await self._places(table, None) if place.topic]
        replies = await self._each(places, "HEXISTS", _raw(key))
        return [place for place, there in zip(places, replies, strict=True) if there]

    async def _get_elsewhere(self, table: str, key: Text, topic: str | None) -> bytes:
        holders = [] if topic else await self._holders(table, key)
        if len(holders) > 1:
            raise _ambiguous(table, key)
        for place in holders:
            raw: bytes | None = await self._read(place.slot, "HGET", place.entries, _raw(key))
            if raw is not None:
                return raw
        raise await self._missing(table, key)

    async def _missing(self, table: str, key: Text) -> KeyNotFound:
        """Which of both to say: the table is called missing only when nothing of it is there."""
        registry = registry_of(table)
        if await self._read(registry.slot, "EXISTS", registry.made):
            return KeyNotFound(key=key, table=table)
        if any(await self._each(await self._places(table, None), "EXISTS")):
            return KeyNotFound(key=key, table=table)
        return TableNotFound(table=table, key=key)

    async def _registered_place(self, place: Place) -> None:
        if self._registered.get((place.table, place.topic), 0.0) < time.monotonic():
            await self._register(place)

    async def _register(self, place: Place) -> None:
        """Before the first entry: the registry may name more than there is, never less."""
        registry = registry_of(place.table)
        await self._repeat(registry.slot, "HSET", registry.topics, _raw(place.topic), int(time.time()))
        await self._repeat(registry.slot, "SET", registry.made, 1)
        self._registered[place.table, place.topic] = time.monotonic() + REMEMBERED

    async def _write(self, place: Place, values: Mapping[Any, Text]) -> int:
        """How many of the keys are new."""
        if self._tell:
            key, value = next(iter(values.items()))
            told = (
                self._message(place, "set", key, value)
                if len(values) == 1
                else self._message(place, "set_many", None, None, [as_json(key) for key in values])
            )
            pairs = [part for key, value in values.items() for part in (_raw(key), _raw(value))]
            return int(await self._script(SET, place, *told, *pairs))
        flat: list[Argument] = ["HSET", place.entries]
        for key, value in values.items():
            flat += (_raw(key), _raw(value))
        return int(await self._repeat(place.slot, *flat))

    async def _take_back(self, place: Place, mark: bytes, args: tuple[Argument, ...]) -> None:
        """Raises OutcomeUnknown when it has to be left to the background."""
        keys = (place.entries, *place.feed.keys, mark)
        timeout = self._timeout

        async def undo(door: Door) -> Reply:
            return await UNDO.run(door, place.slot, keys, *args, retry="always", timeout=timeout)

        try:
            await undo(self._door)
        except (OutcomeUnknown, Unavailable) as error:
            self._door.in_background(undo, seconds=MARK_MS / 1000)
            raise OutcomeUnknown(f"it may be there, and is being taken back: {error}") from error

    async def _delete(self, place: Place, key: Text) -> bool:
        """Whether it was there, or may have been before an attempt whose outcome nobody knows."""
        doubts: list[OutcomeUnknown] = []
        told = self._message(place, "delete", key, None)
        deleted = await self._script(DELETE, place, *told, _raw(key), doubts=doubts)
        return bool(deleted) or bool(doubts)

    def _message(
        self, place: Place, action: str, key: Text | None, value: Text | None, keys: list[Any] | None = None
    ) -> tuple[str, int, str]:
        """Body, length of the log and command of the telling; an empty body for none."""
        publish = "SPUBLISH" if self._door.sharded else "PUBLISH"
        if not self._tell:
            return "", KEPT, publish
        about = (place.table, place.topic)
        if keys is None:
            return change(place.feed.channel, about, action, key, value), KEPT, publish
        data = {"table": about[0], "action": action, "topic": about[1] or None, "key": None, "value": None}
        return body(place.feed.channel, {**data, "keys": keys}), KEPT, publish

    async def _read(self, slot: int, *args: Argument) -> Reply:
        return await self._door.send(slot, args, retry="always", timeout=self._timeout)

    async def _repeat(self, slot: int, *args: Argument) -> Reply:
        """A write that is the same twice as once."""
        return await self._trial(lambda: self._door.send(slot, args, timeout=self._timeout))

    async def _script(
        self,
        script: Script,
        place: Place,
        *args: Argument,
        mark: bytes | None = None,
        doubts: list[OutcomeUnknown] | None = None,
    ) -> Reply:
        """One of the scripts that may run twice."""
        keys = (place.entries, *place.feed.keys, *((mark,) if mark else ()))
        once: Retry = "if_not_run"
        return await self._trial(
            lambda: script.run(self._door, place.slot, keys, *args, retry=once, timeout=self._timeout), doubts
        )

    async def _trial(self, call: Callable[[], Awaitable[Reply]], doubts: list[OutcomeUnknown] | None = None) -> Reply:
        """Up to `attempts` times while the outcome is unknown. What certainly did not run has been tried in the client
        for all of its time, unless an earlier trial may have run: then nobody can say that it did not."""
        seen = [] if doubts is None else doubts
        for left in reversed(range(self._attempts)):
            try:
                return await call()
            except OutcomeUnknown as error:
                seen.append(error)
                if not left:
                    raise
            except Unavailable as error:
                if not seen:
                    raise
                raise OutcomeUnknown(f"{seen[0]}; then: {error}") from error
        raise AssertionError("attempts is positive")


class Tables(BasicTables[str]):
    """Values as text. Bytes that are none come back with surrogate escapes, and round-trip."""

    def _value(self, raw: bytes) -> str:
        return raw.decode("utf-8", "surrogateescape")


class RawTables(BasicTables[bytes]):
    """Values as bytes."""

    def _value(self, raw: bytes) -> bytes:
        return raw


def _raw(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _ambiguous(table: str, key: Text) -> Refused:
    return Refused(f"{key!r} is in several topics of {table!r}: name one", kind="conflict")

"""What concurrent clients asked for and were told, and whether what is there afterwards can be true of it.

Every write has a value of its own, so each value that is found can be traced to whoever wrote it. Two checks, neither
of which asks how the servers work:

* `examine`: of values that were appended, which are lost, unexpected, doubled or out of order, and which of those that
  nobody was told of have come about (`recovered`: allowed, and worth counting).
* `linearizable`: whether there is one order of all that happened to a single key, in which each operation takes effect
  at one moment between its beginning and its end (Wing and Gong's search, with Lowe's memory of states seen before).

Both are pure. They refuse to guess: an operation whose outcome is not known may have run at any later time, or never.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Did(StrEnum):
    """What a client knows of an operation."""

    OK = "ok"
    FAIL = "fail"
    """It certainly did not run."""
    INFO = "info"
    """Nobody can know; it may even run later."""


class Verb(StrEnum):
    """What was asked of a key."""

    SET = "set"
    APPEND = "append"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation of one client. Times are monotonic seconds."""

    client: str
    key: str
    verb: Verb
    value: int | None
    """What was written; of a read, what it found (None: nothing)."""
    began: float
    ended: float = math.inf
    did: Did = Did.INFO


@dataclass
class History:
    """All entries, and the source of values that nobody else writes."""

    entries: list[Entry] = field(default_factory=list)
    _values: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def begin(self, client: str, key: str, verb: Verb) -> Entry:
        """An operation that is about to be asked for; a write gets its value here. To be ended by `end`."""
        value = None if verb is Verb.READ else next(self._values)
        return Entry(client, key, verb, value, time.monotonic())

    def end(self, entry: Entry, did: Did, found: int | None = None) -> None:
        """What became of it."""
        value = found if entry.verb is Verb.READ else entry.value
        self.entries.append(replace(entry, ended=time.monotonic(), did=did, value=value))

    def of(self, key: str) -> list[Entry]:
        return [one for one in self.entries if one.key == key]

    def acknowledged(self) -> list[Entry]:
        """Writes that a client was told of."""
        return [one for one in self.entries if one.did is Did.OK and one.verb is not Verb.READ]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with the values that were appended, by class."""

    lost: tuple[Entry, ...] = ()
    """Acknowledged, and not there."""
    unexpected: tuple[tuple[str, int], ...] = ()
    """There, though nobody wrote it or its writer was told that it did not run."""
    doubled: tuple[tuple[str, int], ...] = ()
    """There more than once."""
    disordered: tuple[tuple[Entry, Entry], ...] = ()
    """The first was acknowledged before the second was asked for, and stands behind it."""
    recovered: tuple[Entry, ...] = ()
    """There, though its writer was not told so. Allowed."""

    @property
    def sound(self) -> bool:
        return not (self.lost or self.unexpected or self.doubled or self.disordered)

    def __str__(self) -> str:
        counts = {name: len(getattr(self, name)) for name in ("lost", "unexpected", "doubled", "disordered")}
        return ", ".join(f"{count} {name}" for name, count in counts.items()) + f"; {len(self.recovered)} recovered"


def examine(entries: Iterable[Entry], found: Mapping[str, Sequence[int]]) -> Findings:
    """Compare appends with what the keys hold in the end, oldest first."""
    appends = {(one.key, one.value or 0): one for one in entries if one.verb is Verb.APPEND}
    counted = Counter((key, value) for key, values in found.items() for value in values)
    return Findings(
        lost=tuple(one for place, one in appends.items() if one.did is Did.OK and place not in counted),
        unexpected=tuple(place for place in counted if place not in appends or appends[place].did is Did.FAIL),
        doubled=tuple(place for place, count in counted.items() if count > 1),
        disordered=tuple(pair for key, values in found.items() for pair in _disordered(key, values, appends)),
        recovered=tuple(one for place, one in appends.items() if one.did is Did.INFO and place in counted),
    )


def _disordered(
    key: str, values: Sequence[int], appends: Mapping[tuple[str, int], Entry]
) -> Iterator[tuple[Entry, Entry]]:
    """Whoever stands behind one that was asked for only after it had been acknowledged."""
    latest: Entry | None = None
    for entry in (appends[key, value] for value in values if (key, value) in appends):
        if latest is not None and entry.did is Did.OK and entry.ended < latest.began:
            yield entry, latest
        if latest is None or entry.began > latest.began:
            latest = entry


def linearizable(entries: Iterable[Entry]) -> bool:
    """Whether the sets and reads of one key can have happened one at a time. It begins with nothing in it."""
    operations = _certain(entries)
    beginning = _State(0, 0, None)
    seen, open_states = {beginning}, [beginning]
    while open_states:
        state = open_states.pop()
        if state.first == len(operations):
            return True
        for successor in _successors(operations, state):
            if successor not in seen:
                seen.add(successor)
                open_states.append(successor)
    return False


@dataclass(frozen=True, slots=True)
class _State:
    """All operations before `first` have taken effect, and of those behind it the ones whose bit is set."""

    first: int
    beyond: int
    value: int | None


def _certain(entries: Iterable[Entry]) -> list[Entry]:
    """Those that took effect, by their beginning.

    A set of unknown outcome that nobody has read may be left out, since its absence disturbs nobody. One that was read
    took effect before that read ended.
    """
    told = [one for one in entries if one.did is not Did.FAIL and (one.did is Did.OK or one.verb is not Verb.READ)]
    read_until: dict[int | None, float] = {}
    for one in told:
        if one.verb is Verb.READ:
            read_until[one.value] = min(one.ended, read_until.get(one.value, math.inf))
    settled = (
        one if one.did is Did.OK else replace(one, ended=read_until[one.value])
        for one in told
        if one.did is Did.OK or one.value in read_until
    )
    return sorted(settled, key=lambda one: one.began)


def _successors(operations: Sequence[Entry], state: _State) -> Iterator[_State]:
    """What may happen next: whatever began before the first of those that are left has ended."""
    deadline = math.inf
    for at in range(state.first, len(operations)):
        if state.beyond >> (at - state.first) & 1:
            continue
        one = operations[at]
        if one.began > deadline:
            return
        deadline = min(deadline, one.ended)
        if one.verb is Verb.SET or one.value == state.value:
            yield _after(state, at, one.value)


def _after(state: _State, at: int, value: int | None) -> _State:
    first, beyond = state.first, state.beyond | 1 << (at - state.first)
    while beyond & 1:
        first, beyond = first + 1, beyond >> 1
    return _State(first, beyond, value)

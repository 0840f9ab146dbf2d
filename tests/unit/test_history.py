"""The checker of histories: it accepts what can have happened, and catches each kind of harm when it is planted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from redkeep.testing.history import Did, Entry, Findings, History, Verb, examine, linearizable

KEY = "k"


def append(value: int, began: float, ended: float, did: Did = Did.OK) -> Entry:
    return Entry("c", KEY, Verb.APPEND, value, began, ended, did)


def put(value: int, began: float, ended: float, did: Did = Did.OK) -> Entry:
    return Entry("c", KEY, Verb.SET, value, began, ended, did)


def read(value: int | None, began: float, ended: float, did: Did = Did.OK) -> Entry:
    return Entry("c", KEY, Verb.READ, value, began, ended, did)


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Entry], list[int]]:
    """Appends of concurrent clients to an honest log, and the log: each took effect at its number, if at all."""
    outcomes = draw(st.lists(st.tuples(st.sampled_from(Did), st.booleans()), min_size=1, max_size=12))
    spread = st.floats(0, 3)
    entries, log = [], []
    for at, (did, ran) in enumerate(outcomes):
        entries.append(append(at + 1, at - draw(spread), at + draw(spread), did))
        if did is Did.OK or (did is Did.INFO and ran):
            log.append(at + 1)
    return entries, log


@given(runs())
def test_an_honest_log_is_sound_and_what_came_about_unsaid_is_recovered(run: tuple[list[Entry], list[int]]) -> None:
    entries, log = run

    found = examine(entries, {KEY: log})

    assert found.sound
    assert {one.value for one in found.recovered} == {one.value for one in entries if one.did is Did.INFO} & set(log)


@given(runs(), st.data())
def test_every_loss_of_an_acknowledged_append_is_caught(
    run: tuple[list[Entry], list[int]], data: st.DataObject
) -> None:
    entries, log = run
    told = [one.value for one in entries if one.did is Did.OK]
    gone = data.draw(st.sets(st.sampled_from(told))) if told else set()

    found = examine(entries, {KEY: [value for value in log if value not in gone]})

    assert {one.value for one in found.lost} == gone
    assert found.sound == (not gone)


@given(runs(), st.data())
def test_a_value_that_nobody_wrote_or_that_was_refused_is_caught(
    run: tuple[list[Entry], list[int]], data: st.DataObject
) -> None:
    entries, log = run
    refused = [one.value or 0 for one in entries if one.did is Did.FAIL]
    planted = data.draw(st.sampled_from([*refused, 99]))

    found = examine(entries, {KEY: [*log, planted]})

    assert found.unexpected == ((KEY, planted),)


@given(runs(), st.data())
def test_an_append_that_ran_twice_is_caught(run: tuple[list[Entry], list[int]], data: st.DataObject) -> None:
    entries, log = run
    if log:
        twice = data.draw(st.sampled_from(log))

        assert examine(entries, {KEY: [*log, twice]}).doubled == ((KEY, twice),)


def test_appends_out_of_order_are_caught_unless_they_overlapped() -> None:
    first, second = append(1, 0, 1), append(2, 2, 3)

    assert examine([first, second], {KEY: [2, 1]}).disordered == ((first, second),)
    assert examine([first, replace(second, began=0.5)], {KEY: [2, 1]}).sound


def test_a_lost_log_is_a_loss_of_everything() -> None:
    assert len(examine([append(1, 0, 1), append(2, 1, 2)], {KEY: []}).lost) == 2
    assert len(examine([append(1, 0, 1)], {}).lost) == 1


def test_the_findings_can_be_read() -> None:
    found = Findings(lost=(append(1, 0, 1),), recovered=(append(2, 0, 1, Did.INFO),))

    assert str(found) == "1 lost, 0 unexpected, 0 doubled, 0 disordered; 1 recovered"


# --- one key as a register -------------------------------------------------------------------------------------------


def test_a_lost_set_is_caught() -> None:
    assert not linearizable([put(1, 0, 1), read(None, 2, 3)])
    assert not linearizable([put(1, 0, 1), put(2, 2, 3), read(1, 4, 5)])


def test_a_stale_read_is_caught_and_a_concurrent_one_is_not() -> None:
    assert not linearizable([put(1, 0, 1), put(2, 2, 3), read(2, 4, 5), read(1, 6, 7)])
    assert linearizable([put(1, 0, 1), put(2, 2, 5), read(1, 3, 4)])
    assert linearizable([put(1, 0, 1), put(2, 2, 5), read(2, 3, 4)])


def test_a_value_that_comes_back_is_caught() -> None:
    assert not linearizable([put(1, 0, 1), read(1, 2, 3), put(2, 4, 5), read(2, 6, 7), read(1, 8, 9)])


def test_a_set_that_was_refused_and_is_read_is_caught() -> None:
    assert not linearizable([put(1, 0, 1, Did.FAIL), read(1, 2, 3)])


def test_a_set_of_unknown_outcome_may_run_late_or_never_but_only_once() -> None:
    unknown = put(1, 0, 1, Did.INFO)

    assert linearizable([unknown, read(None, 2, 3)])
    assert linearizable([unknown, read(None, 2, 3), read(1, 4, 5)])
    assert not linearizable([unknown, read(1, 2, 3), read(None, 4, 5)])
    assert not linearizable([unknown, read(1, 2, 3), put(2, 4, 5), read(2, 6, 7), read(1, 8, 9)])


def test_a_read_that_failed_says_nothing() -> None:
    assert linearizable([put(1, 0, 1), read(None, 2, 3, Did.INFO), read(None, 2, 3, Did.FAIL)])


@st.composite
def registers(draw: st.DrawFn) -> list[Entry]:
    """Any few operations, possible or not."""
    count = draw(st.integers(0, 5))
    entries = []
    for value in range(1, count + 1):
        began = draw(st.integers(0, 8))
        ended = began + draw(st.integers(1, 4))
        did = draw(st.sampled_from(Did))
        if draw(st.booleans()):
            entries.append(put(value, began, ended, did))
        else:
            entries.append(read(draw(st.none() | st.integers(1, count)), began, ended, did))
    return entries


@given(registers())
def test_the_search_says_what_trying_every_order_says(entries: list[Entry]) -> None:
    assert linearizable(entries) == _by_force(entries)


def _by_force(entries: list[Entry]) -> bool:
    sure = [one for one in entries if one.did is Did.OK]
    maybe = [replace(one, ended=float("inf")) for one in entries if one.did is Did.INFO and one.verb is Verb.SET]
    chosen = (some for size in range(len(maybe) + 1) for some in itertools.combinations(maybe, size))
    return any(_legal(order) for some in chosen for order in itertools.permutations([*sure, *some]))


def _legal(order: Sequence[Entry]) -> bool:
    value = None
    for at, one in enumerate(order):
        if any(later.ended < one.began for later in order[at + 1 :]):
            return False
        if one.verb is Verb.READ and one.value != value:
            return False
        value = one.value
    return True


def test_a_long_history_is_searched_to_its_end() -> None:
    entries = []
    for at in range(3000):
        one, other = 2 * at + 1, 2 * at + 2
        entries += [put(one, at, at + 0.6), put(other, at + 0.3, at + 0.7), put(-other, at, at + 0.9, Did.INFO)]
        entries.append(read(other, at + 0.91, at + 0.95))

    assert linearizable(entries)
    assert not linearizable([*entries, read(1, 3001, 3002)])


def test_a_history_gives_every_write_a_value_of_its_own() -> None:
    history = History()
    first, second = (history.begin("c", KEY, Verb.SET) for _ in range(2))
    history.end(first, Did.OK)
    history.end(second, Did.INFO)

    assert first.value != second.value
    assert [one.did for one in history.of(KEY)] == [Did.OK, Did.INFO]
    assert [one.value for one in history.acknowledged()] == [first.value]

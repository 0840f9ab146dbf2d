"""Which slots move: each keeps exactly one owner, shares are what the weights say, nothing moves that need not."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redkeep.decide.slots import Shift, drain, even_ranges, pairs, plan, shares, size
from redkeep.model.slots import SLOTS, Ranges, as_ranges, slots_in

NAMES = "abcde"


@st.composite
def ownerships(draw: st.DrawFn, least: int = 1) -> dict[str, Ranges]:
    """Some shards, and all slots between them in a few runs."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=least, max_size=5, unique=True))
    cuts = sorted(draw(st.sets(st.integers(1, SLOTS - 1), max_size=8)))
    edges = [0, *cuts, SLOTS]
    held: dict[str, list[int]] = {name: [] for name in names}
    for first, end in pairwise(edges):
        held[draw(st.sampled_from(names))].extend(range(first, end))
    return {name: as_ranges(slots) for name, slots in held.items()}


weights = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0, 0.5, 1, 1, 2, 7]), max_size=5)


def after(owned: Mapping[str, Ranges], shifts: tuple[Shift, ...]) -> dict[str, set[int]]:
    held = {name: set(slots_in(owned.get(name, ()))) for name in {*owned, *(one.target for one in shifts)}}
    for one in shifts:
        moved = set(slots_in(one.ranges))
        assert moved <= held[one.source], "only an owner gives a slot away, and once"
        held[one.source] -= moved
        held[one.target] |= moved
    return held


heavy = settings(deadline=None, max_examples=40)


@heavy
@given(st.integers(1, SLOTS))
def test_a_new_cluster_gets_even_runs_in_order_the_first_ones_longer(count: int) -> None:
    found = [ranges[0] for ranges in even_ranges(count)]

    assert slots_in(found) == list(range(SLOTS))
    lengths = [last - first + 1 for first, last in found]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1
    assert lengths.count(SLOTS // count + 1) == SLOTS % count


@pytest.mark.parametrize("count", [0, -1, SLOTS + 1])
def test_slots_are_not_divided_between_nobody_or_too_many(count: int) -> None:
    with pytest.raises(ValueError, match="cannot be divided"):
        even_ranges(count)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 100), min_size=1), st.integers(0, SLOTS))
def test_shares_are_whole_and_as_the_weights_say(wished: dict[str, float], total: int) -> None:
    if sum(wished.values()) <= 0:
        with pytest.raises(ValueError, match="positive"):
            shares(wished, total)
        return

    found = shares(wished, total)

    assert sum(found.values()) == total
    for name, weight in wished.items():
        assert abs(found[name] - total * weight / sum(wished.values())) <= 1
        assert weight > 0 or found[name] == 0


@heavy
@given(ownerships(), weights)
def test_after_a_rebalance_every_shard_has_its_share_and_no_slot_moved_twice(
    owned: dict[str, Ranges], wished: dict[str, float]
) -> None:
    if sum(wished.values()) <= 0:
        wished = dict.fromkeys(owned, 1.0)

    shifts = plan(owned, wished)

    held = after(owned, shifts)
    assert sorted(slot for slots in held.values() for slot in slots) == list(range(SLOTS))
    everyone = {name: wished.get(name, 0.0) for name in {*owned, *wished}}
    for name, weight in everyone.items():
        assert abs(len(held.get(name, set())) - SLOTS * weight / sum(everyone.values())) <= 1
    gained = {one.target for one in shifts}
    assert gained.isdisjoint(one.source for one in shifts), "who gives away takes nothing"
    assert plan({name: as_ranges(slots) for name, slots in held.items()}, wished) == ()


@heavy
@given(ownerships(least=2), st.data())
def test_whoever_is_drained_owns_nothing_and_the_others_give_nothing(
    owned: dict[str, Ranges], data: st.DataObject
) -> None:
    leaving = data.draw(st.sets(st.sampled_from(sorted(owned)), min_size=1, max_size=len(owned) - 1))

    shifts = drain(owned, leaving)

    held = after(owned, shifts)
    assert all(not held[name] for name in leaving)
    assert {one.source for one in shifts} <= leaving
    assert size(shifts) == sum(len(slots_in(owned[name])) for name in leaving)


def test_the_last_shard_is_not_drained() -> None:
    with pytest.raises(ValueError, match="no shard left"):
        drain({"a": ((0, SLOTS - 1),)}, {"a"})


@heavy
@given(ownerships(), weights.filter(lambda found: sum(found.values()) > 0))
def test_in_one_round_a_source_gives_to_one_target(owned: dict[str, Ranges], wished: dict[str, float]) -> None:
    shifts = plan(owned, wished)

    rounds = pairs(shifts)

    assert sorted(one.ranges for few in rounds for one in few) == sorted(one.ranges for one in shifts)
    assert all(len({one.source for one in few}) == len(few) for few in rounds)

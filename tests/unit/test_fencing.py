"""One primary: for every group and every partition, whoever is replaced could not have gone on writing."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.fencing import guard, guard_level, majority, may_replace, may_write

LARGEST = 12
LONG_AGO = -math.inf


def test_no_partition_lets_the_old_one_write_and_another_take_its_place() -> None:
    """Every way in which the replicas can be divided: those isolated on one side, the old primary's on the other."""
    for size in range(1, LARGEST):
        for still_following in range(size):
            for acknowledging in range(still_following + 1):
                writes = may_write(now=0, word_until=LONG_AGO, group_size=size, acknowledging=acknowledging)
                replaced = may_replace(group_size=size, may_still_follow=still_following)
                assert not (writes and replaced), (size, still_following, acknowledging)


def test_that_holds_while_a_member_comes_or_goes_and_the_agent_counts_another_size() -> None:
    """Those on their way in or out follow the old primary as well, so managers count them among the followers; and the
    agent learns of a larger group before the managers do, of a smaller one after them (`operations/add_replicas`)."""
    for managers_count in range(1, LARGEST):
        for extra in range(LARGEST - managers_count):
            for members_following in range(managers_count):
                replaced = may_replace(group_size=managers_count, may_still_follow=members_following + extra)
                for agent_counts in range(managers_count, managers_count + extra + 1):
                    acknowledging = members_following + extra
                    writes = may_write(now=0, word_until=LONG_AGO, group_size=agent_counts, acknowledging=acknowledging)
                    assert not (writes and replaced)


@given(st.integers(1, 1000))
def test_more_than_half_is_a_majority_and_two_of_them_meet(size: int) -> None:
    assert majority(size) > size / 2
    assert 2 * majority(size) > size
    assert majority(size) <= size


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(1, 9), st.integers(0, 9))
def test_a_confirmed_primary_writes_and_one_whose_word_is_over_needs_company(
    now: float, word_until: float, size: int, acknowledging: int
) -> None:
    writes = may_write(now=now, word_until=word_until, group_size=size, acknowledging=acknowledging)

    assert writes == (now < word_until or 2 * (1 + acknowledging) > size)


def test_an_only_server_is_never_stopped_and_never_replaced() -> None:
    assert may_write(now=0, word_until=LONG_AGO, group_size=1, acknowledging=0)
    assert not may_replace(group_size=1, may_still_follow=0)


def test_whoever_may_be_replaced_has_too_few_replicas_for_its_guard() -> None:
    """The same count as that of its agent, kept by the server itself."""
    for size in range(1, LARGEST):
        for still_following in range(size):
            open_by_itself = still_following >= guard_level(size)
            assert not (open_by_itself and may_replace(group_size=size, may_still_follow=still_following))


@given(st.integers(1, LARGEST), st.integers(0, 3), st.integers(0, LARGEST), st.integers(0, 3))
def test_a_guard_is_raised_where_it_refuses_nothing_and_somebody_could_take_over(
    size: int, elsewhere: int, acknowledging: int, strangers: int
) -> None:
    level = guard_level(size, elsewhere)

    if guard(level=level, acknowledging=acknowledging, strangers=strangers):
        assert size > 1
        assert acknowledging >= level >= majority(size) - 1
        assert strangers == 0

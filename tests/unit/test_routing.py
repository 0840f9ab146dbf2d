"""What the driver does after a failure, and whom it takes for the primary: properties of pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.following import Following, Look, hear, see
from redkeep.decide.routing import (
    LONGEST_PAUSE,
    NOT_RUN,
    Failure,
    GiveUp,
    PassOn,
    Retry,
    RetryAt,
    What,
    after_failure,
    pause,
)
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address, Topology

retries = st.sampled_from(get_args(Retry))
codes = st.sampled_from([*sorted(NOT_RUN), "ERR", "WRONGTYPE", "OOM", "NOPERM", "MISCONF", "MOVED"])
failures = st.builds(
    Failure,
    what=st.sampled_from(What),
    code=codes,
    moved=st.booleans(),
    may_have_run=st.booleans(),
).map(lambda failure: failure if failure.what is What.ANSWERED else replace(failure, code=""))
moments = st.floats(0, 1e6)
chances = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 10_000)


@given(failures, retries, attempts, moments, moments, chances)
def test_a_retry_is_always_before_the_deadline_and_never_in_the_past(
    failure: Failure, retry: Retry, attempt: int, now: float, deadline: float, chance: float
) -> None:
    verdict = after_failure(failure, retry=retry, attempt=attempt, now=now, deadline=deadline, chance=chance)

    if isinstance(verdict, RetryAt):
        assert now <= verdict.moment < deadline
        assert verdict.moment <= now + LONGEST_PAUSE


@given(failures, retries, attempts, moments, moments)
def test_what_may_have_run_is_only_repeated_when_the_caller_said_that_twice_is_fine(
    failure: Failure, retry: Retry, attempt: int, now: float, deadline: float
) -> None:
    verdict = after_failure(failure, retry=retry, attempt=attempt, now=now, deadline=deadline)

    if failure.ran is None and isinstance(verdict, RetryAt):
        assert retry == "always"
    if retry == "never":
        assert not isinstance(verdict, RetryAt)


@given(failures, retries, attempts, moments, moments)
def test_giving_up_claims_no_more_and_no_less_than_is_known(
    failure: Failure, retry: Retry, attempt: int, now: float, deadline: float
) -> None:
    verdict = after_failure(failure, retry=retry, attempt=attempt, now=now, deadline=deadline)

    if isinstance(verdict, GiveUp):
        unknown = failure.ran is None or failure.may_have_run
        assert verdict.error is (OutcomeUnknown if unknown else Unavailable)
    assert isinstance(verdict, PassOn) == (failure.what is What.ANSWERED and failure.code not in NOT_RUN)


@given(failures.filter(lambda failure: failure.ran is False), moments, attempts)
def test_what_did_not_run_is_repeated_while_there_is_time(failure: Failure, now: float, attempt: int) -> None:
    assert isinstance(after_failure(failure, retry="if_not_run", attempt=attempt, now=now, deadline=now + 1), RetryAt)


def test_a_write_refused_by_a_demoted_primary_goes_to_the_new_one_at_once() -> None:
    refused = Failure(What.ANSWERED, "READONLY", moved=True)

    assert after_failure(refused, retry="if_not_run", attempt=1, now=7.0, deadline=9.0) == RetryAt(7.0, False)


def test_a_quarrel_about_the_primary_is_not_followed_without_a_pause() -> None:
    refused = Failure(What.ANSWERED, "READONLY", moved=True)

    verdict = after_failure(refused, retry="if_not_run", attempt=50, now=7.0, deadline=9.0)

    assert isinstance(verdict, RetryAt)
    assert verdict.moment > 7.1


@given(attempts, chances)
def test_pauses_stay_within_their_bounds(attempt: int, chance: float) -> None:
    assert 0.0025 <= pause(attempt, chance) <= LONGEST_PAUSE


# --- whom to believe -------------------------------------------------------------------------------------------------

A, B, C, D = (Address("10.0.0.1", port) for port in (1, 2, 3, 4))
addresses = st.sampled_from([A, B, C, D])


def topology(epoch: int, primary: Address, *replicas: Address, group: str = "g") -> Topology:
    return Topology(group, epoch, primary, replicas)


def following(*news: Topology) -> Following:
    state = Following.begin([A])
    for item in news:
        state = hear(state, item, primary_alive=False)
    return state


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    nodes = draw(st.permutations([A, B, C, D]))[: draw(st.integers(1, 4))]
    return topology(draw(st.integers(1, 9)), nodes[0], *nodes[1:])


@st.composite
def looks(draw: st.DrawFn) -> list[Look]:
    seen = draw(st.lists(addresses, unique=True))
    others = st.none() | addresses
    return [Look(address, draw(others), tuple(draw(st.lists(addresses))), draw(st.integers(-1, 9))) for address in seen]


@given(st.lists(topologies(), min_size=1), st.booleans())
def test_the_highest_epoch_wins_in_whatever_order_news_arrive(news: list[Topology], alive: bool) -> None:
    state = following(news[0])
    for item in news[1:]:
        state = hear(state, item, primary_alive=alive)

    assert state.topology.epoch == max(item.epoch for item in news)
    assert state.topology.primary not in state.strangers | state.replaced


@given(st.lists(topologies(), min_size=1), looks(), st.sets(addresses), st.booleans())
def test_looking_only_ever_leads_to_a_primary_that_belongs_to_the_group(
    news: list[Topology], found: list[Look], refusing: set[Address], last_resort: bool
) -> None:
    state = following(*news)

    after = see(state, found, refusing=refusing, last_resort=last_resort)

    assert after.topology.epoch == state.topology.epoch
    if after.topology.primary != state.topology.primary:
        assert after.topology.primary in {look.address for look in found if look.primary is None}
        assert after.topology.primary not in state.strangers
        assert state.topology.primary in after.replaced


@given(st.lists(topologies(), min_size=1), looks(), st.booleans())
def test_nobody_takes_the_place_of_a_primary_that_answers_as_one(
    news: list[Topology], found: list[Look], last_resort: bool
) -> None:
    state = following(*news)
    primary = state.topology.primary
    assert primary is not None
    seen = [look for look in found if look.address != primary] + [Look(primary)]

    assert see(state, seen, last_resort=last_resort).topology.primary == state.topology.primary


def test_with_seeds_alone_the_primary_that_others_follow_is_it() -> None:
    state = see(Following.begin([A, B, C]), [Look(A, offset=99), Look(B), Look(C, primary=B)])

    assert state.topology.primary == B


def test_an_old_primary_that_returns_does_not_win_though_its_successor_is_silent() -> None:
    state = following(topology(1, A, B, C), topology(2, B, A, C))

    assert see(state, [Look(A, offset=10**9), Look(C, primary=A)]).topology.primary == B
    assert see(state, [Look(A)], last_resort=True).topology.primary == A


def test_an_old_primary_wins_again_when_its_successor_follows_it() -> None:
    state = following(topology(1, A, B, C), topology(2, B, A, C))

    assert see(state, [Look(A), Look(B, primary=A)]).topology.primary == A


def test_a_lost_message_is_made_good_by_looking_and_stays_so() -> None:
    state = see(following(topology(1, A, B, C)), [Look(B), Look(C, primary=B)])
    assert state.topology.primary == B

    assert see(state, [Look(A), Look(B), Look(C, primary=B)]).topology.primary == B


def test_a_primary_that_refuses_writes_gives_way_to_one_that_does_not() -> None:
    state = following(topology(1, A, B, C))

    assert see(state, [Look(A), Look(B)], refusing={A}).topology.primary == B
    assert see(state, [Look(A), Look(C, primary=A)], refusing={A}).topology.primary == A


@pytest.mark.parametrize("last_resort", [False, True])
def test_a_server_that_left_the_group_is_never_written_to(last_resort: bool) -> None:
    left = following(topology(1, A, B, D), topology(2, A, B))
    detached = hear(following(topology(1, A, B, D)), topology(1, D, group="other"), primary_alive=True)

    for state in (left, detached):
        assert D not in state.candidates
        assert see(state, [Look(D, offset=99)], last_resort=last_resort).topology.primary == A


def test_news_that_has_no_place_for_a_living_primary_is_not_ours_until_we_know_our_group() -> None:
    state = see(Following.begin([A]), [Look(A, replicas=(B, D))])

    assert hear(state, topology(9, D, group="other"), primary_alive=True).topology.primary == A
    assert hear(state, topology(1, B, D), primary_alive=False).topology.primary == B


def test_a_server_that_joins_again_is_a_candidate_again() -> None:
    state = following(topology(1, A, B), topology(2, B), topology(3, B, A))

    assert A in state.candidates

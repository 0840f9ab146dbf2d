"""Which replica becomes primary: what no facts whatever may bring about."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.promotion import Chosen, NobodyFit, lag_bytes, most_current, unfitness
from redkeep.model.facts import Process, ServerFacts, Upstream
from redkeep.model.topology import Address, Role

from .strategies import HISTORY, OTHER_HISTORY, facts_of, several_facts

Looked = tuple[ServerFacts, ...]

FIT = ServerFacts(
    "fit",
    Process.RUNNING,
    role=Role.REPLICA,
    replication_id=HISTORY,
    offset=10,
    synced_once=True,
    upstream=Upstream(Address("10.0.0.1", 7000), link_up=False, syncing=False, last_io_seconds=-1),
)
SYNCING = Upstream(Address("10.0.0.1", 7000), link_up=False, syncing=True, last_io_seconds=-1)
histories = st.sampled_from(["", HISTORY])


@given(several_facts, histories)
def test_the_winner_holds_a_whole_data_set_of_the_primarys_history(looked: Looked, history: str) -> None:
    verdict = most_current(looked, history=history)

    if isinstance(verdict, Chosen):
        winner = next(facts for facts in looked if facts.instance_id == verdict.instance_id)
        assert winner.alive
        assert winner.synced_once
        assert winner.role is not Role.PRIMARY
        assert not (winner.upstream and winner.upstream.syncing)
        assert not history or winner.replication_id == history


@given(several_facts, histories)
def test_nobody_who_is_fit_has_applied_more_than_the_winner(looked: Looked, history: str) -> None:
    verdict = most_current(looked, history=history)
    fit = [facts for facts in looked if unfitness(facts, history) is None]

    if isinstance(verdict, Chosen):
        assert verdict.offset == max(facts.offset for facts in fit)
    elif len({facts.replication_id for facts in fit}) < 2:
        assert not fit


@given(st.data(), several_facts, histories)
def test_everyone_who_decides_on_the_same_facts_decides_the_same(
    data: st.DataObject, looked: Looked, history: str
) -> None:
    shuffled = data.draw(st.permutations(looked))

    first, second = most_current(looked, history=history), most_current(shuffled, history=history)

    assert type(first) is type(second)
    if isinstance(first, Chosen) and isinstance(second, Chosen):
        assert (first.instance_id, first.offset) == (second.instance_id, second.offset)


@given(several_facts, histories)
def test_whoever_is_passed_over_is_told_why(looked: Looked, history: str) -> None:
    verdict = most_current(looked, history=history)

    if isinstance(verdict, NobodyFit):
        assert verdict.reason
        assert all(facts.instance_id in verdict.reason for facts in looked)


@pytest.mark.parametrize(
    "unfit",
    [
        replace(FIT, process=Process.EXITED),
        replace(FIT, process=Process.HUNG),
        replace(FIT, process=Process.LOADING),
        replace(FIT, synced_once=False),
        replace(FIT, replication_id=OTHER_HISTORY),
        replace(FIT, upstream=SYNCING),
        replace(FIT, role=Role.PRIMARY, replication_id=OTHER_HISTORY, synced_once=False),
    ],
    ids=["dead", "hung", "loading", "never synchronised", "of another history", "synchronising", "a primary astray"],
)
def test_one_that_is_unfit_never_wins_however_far_it_claims_to_be(unfit: ServerFacts) -> None:
    far = replace(unfit, instance_id="far", offset=10**12)

    assert most_current([far, FIT], history=HISTORY) == most_current([FIT], history=HISTORY)
    assert isinstance(most_current([far], history=HISTORY), NobodyFit)


def test_offsets_of_different_histories_are_not_compared() -> None:
    """A manager that has just started knows no history. Of two it cannot say which one is the primary's."""
    other = replace(FIT, instance_id="other", replication_id=OTHER_HISTORY, offset=10**6)

    assert isinstance(most_current([FIT, other], history=""), NobodyFit)
    assert isinstance(most_current([FIT, replace(other, replication_id=HISTORY)], history=""), Chosen)


def test_the_age_of_the_last_word_breaks_ties_and_the_id_breaks_the_rest() -> None:
    def heard(name: str, seconds: int) -> ServerFacts:
        link = Upstream(Address("10.0.0.1", 7000), link_up=seconds >= 0, syncing=False, last_io_seconds=seconds)
        return replace(FIT, instance_id=name, upstream=link)

    lately = most_current([heard("a", -1), heard("b", 3), heard("c", 1)], history=HISTORY)
    equal = most_current([heard("b", 1), heard("a", 1)], history=HISTORY)

    assert isinstance(lately, Chosen)
    assert lately.instance_id == "c"
    assert isinstance(equal, Chosen)
    assert equal.instance_id == "a"


@given(facts_of("replica"), facts_of("primary"))
def test_a_lag_is_never_negative(replica: ServerFacts, primary: ServerFacts) -> None:
    assert lag_bytes(replica, primary) == max(0, primary.offset - replica.offset)

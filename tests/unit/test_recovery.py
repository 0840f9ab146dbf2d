"""The whole of automatic failover, as properties: whatever was seen, what must never be done is not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.fencing import majority
from redkeep.decide.promotion import unfitness
from redkeep.decide.recovery import (
    Degraded,
    Doubt,
    FailOver,
    GroupView,
    Healthy,
    Limits,
    Realign,
    RestartPrimary,
    TakeOver,
    Verdict,
    judge,
)
from redkeep.model.facts import Process, ServerFacts, Upstream
from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Address, Role

from .strategies import HISTORY, facts_of, group, instance

LIMITS = Limits(doubt=1.0, silence=2.0, orphan=5.0, settle=1.0, cool_down=5.0)
NOW = 100.0
PRIMARY = instance("p", role=Role.PRIMARY)
REPLICAS = (instance("r", replica_of="p"), instance("s", replica_of="p"))

statuses = st.sampled_from(Status)
times = st.floats(90, 100)


@st.composite
def views(draw: st.DrawFn) -> GroupView:
    """Anything that a manager may know of a group of up to four."""
    names = draw(st.lists(st.sampled_from("prst"), unique=True, min_size=1))
    members = tuple(instance(name, status=draw(statuses)) for name in names)
    looked = {name: draw(facts_of(name)) for name in names if draw(st.booleans())}
    return GroupView(
        group=group(draw(st.sampled_from([*names, None])), draw(st.sampled_from([*names, None]))),
        instances=members,
        facts=looked,
        heard={f"host-{name}": draw(times) for name in names if draw(st.booleans())},
        history=draw(st.sampled_from(["", HISTORY])),
        last_failover=draw(times | st.just(-math.inf)),
        changed_at=draw(times | st.just(-math.inf)),
        watching_since=draw(times | st.just(-math.inf)),
        answers={name: draw(st.booleans()) for name in names if draw(st.booleans())},
        outlived=draw(st.booleans()),
        loading_since=draw(times | st.just(math.inf)),
    )


def following(one: Instance, **more: object) -> ServerFacts:
    seen = ServerFacts(
        one.id,
        Process.RUNNING,
        seen_at=NOW,
        role=Role.REPLICA,
        replication_id=HISTORY,
        offset=10,
        synced_once=True,
        upstream=Upstream(PRIMARY.address or Address("", 0), link_up=True, syncing=False, last_io_seconds=0),
    )
    return replace(seen, **more)  # type: ignore[arg-type]


def cut_off(one: Instance) -> ServerFacts:
    lost = Upstream(PRIMARY.address or Address("", 0), link_up=False, syncing=False, last_io_seconds=-1)
    return following(one, upstream=lost)


def leading(**more: object) -> ServerFacts:
    seen = ServerFacts("p", Process.RUNNING, seen_at=NOW, role=Role.PRIMARY, replication_id=HISTORY, offset=10)
    return replace(seen, **more)  # type: ignore[arg-type]


def view(
    *looked: ServerFacts,
    silent: tuple[str, ...] = (),
    members: tuple[Instance, ...] = REPLICAS,
    answers: bool | None = False,
    silence: float = 10,
) -> GroupView:
    """A settled group; the hosts of those named have said nothing for ten seconds, and the others were asked whether
    the primary's server answers."""
    instances = (PRIMARY, *members)
    heard = {f"host-{one.id}": NOW - (silence if one.id in silent else 0) for one in instances}
    asked = {} if answers is None else {one.id: answers for one in members if one.id not in silent}
    facts = {one.instance_id: one for one in looked}
    return GroupView(group(), instances, facts, heard, HISTORY, answers=asked)


@given(views())
def test_a_verdict_is_one_of_seven_and_the_same_for_the_same_facts(seen: GroupView) -> None:
    verdict = judge(seen, NOW, LIMITS)

    assert isinstance(verdict, get_args(Verdict))
    assert judge(seen, NOW, LIMITS) == verdict


@given(views())
def test_nobody_who_is_unfit_is_ever_chosen(seen: GroupView) -> None:
    verdict = judge(seen, NOW, LIMITS)

    if isinstance(verdict, FailOver):
        assert unfitness(seen.facts[verdict.successor_id], seen.history) is None
        assert verdict.successor_id != seen.group.rightful_primary_id
        chosen = next(one for one in seen.instances if one.id == verdict.successor_id)
        assert chosen.status not in (Status.BUILD, Status.SHUTDOWN)


@given(views())
def test_nothing_is_proven_but_what_the_kernel_said(seen: GroupView) -> None:
    verdict = judge(seen, NOW, LIMITS)

    if isinstance(verdict, FailOver) and verdict.proven:
        assert seen.facts[seen.group.rightful_primary_id or ""].process is Process.EXITED


@given(views())
def test_without_proof_the_old_one_and_whoever_may_follow_it_are_no_majority_however_its_agent_counts(
    seen: GroupView,
) -> None:
    """The agent counts those that it was briefed of: all settled members, and any of those on their way in or out."""
    verdict = judge(seen, NOW, LIMITS)
    primary = seen.facts.get(seen.group.rightful_primary_id or "")

    if (
        isinstance(verdict, FailOver)
        and (primary is None or primary.process is not Process.ABSENT)
        and not verdict.proven
    ):
        others = [one for one in seen.instances if one.id != seen.group.rightful_primary_id]
        on_the_way = {one.id for one in others if one.status in (Status.BUILD, Status.SHUTDOWN, Status.DETACH)}
        cut_off = {name for name in seen.facts if _has_lost_its_primary(seen, name) or _is_not_there(seen, name)}
        cut_off -= {name for name in seen.facts if name not in on_the_way and not _has_lost_its_primary(seen, name)}
        certain = [one.id for one in others if one.id not in on_the_way]
        for counted in (certain, [*certain, *on_the_way]):
            acknowledging = len(set(counted) - cut_off)
            assert 1 + acknowledging < majority(1 + len(counted))


def _has_lost_its_primary(seen: GroupView, name: str) -> bool:
    facts, lately = seen.facts[name], NOW - seen.heard.get(f"host-{name}", -math.inf) <= LIMITS.silence
    link = facts.upstream
    down = link is None or not link.link_up or link.last_io_seconds > LIMITS.silence or seen.answers.get(name) is False
    return facts.alive and (lately or NOW - seen.watching_since <= LIMITS.silence) and down


def _is_not_there(seen: GroupView, name: str) -> bool:
    return seen.facts[name].process in (Process.EXITED, Process.ABSENT)


@given(views())
def test_a_primary_that_was_heard_of_and_runs_is_not_replaced(seen: GroupView) -> None:
    rightful = seen.group.rightful_primary_id
    facts = replace(seen.facts.get(rightful or "", leading()), process=Process.RUNNING)
    alive = replace(
        seen, facts={**seen.facts, rightful or "": facts}, heard={**seen.heard, f"host-{rightful}": NOW - 0.5}
    )

    assert not isinstance(judge(alive, NOW, LIMITS), FailOver | RestartPrimary)


@given(views())
def test_while_the_operator_has_paused_it_nothing_is_done(seen: GroupView) -> None:
    assert isinstance(judge(replace(seen, paused=True), NOW, LIMITS), Degraded)
    paused = replace(seen, group=replace(seen.group, paused=True))
    assert isinstance(judge(paused, NOW, LIMITS), Degraded)


def test_a_healthy_group_is_left_alone() -> None:
    assert judge(view(leading(), *map(following, REPLICAS)), NOW, LIMITS) == Healthy()


def test_an_exit_is_answered_at_once_by_the_most_current_replica() -> None:
    behind, current = following(REPLICAS[0], offset=5), following(REPLICAS[1], offset=9)

    verdict = judge(view(leading(process=Process.EXITED), behind, current), NOW, LIMITS)

    assert isinstance(verdict, FailOver)
    assert (verdict.successor_id, verdict.proven) == ("s", True)


@given(views())
def test_a_server_that_somebody_still_reaches_is_fenced_before_it_is_replaced(seen: GroupView) -> None:
    """Unless its agent says that it has ended, or that it does not know it."""
    verdict = judge(seen, NOW, LIMITS)

    if isinstance(verdict, FailOver) and any(seen.answers.values()):
        facts = seen.facts[seen.group.rightful_primary_id or ""]
        assert facts.process in (Process.EXITED, Process.ABSENT)
    if isinstance(verdict, TakeOver):
        assert seen.answers[verdict.successor_id]
        assert unfitness(seen.facts[verdict.successor_id], seen.history) is None
        assert NOW - seen.heard.get(f"host-{seen.group.rightful_primary_id}", -math.inf) > LIMITS.orphan


def test_a_silent_host_is_doubted_by_those_who_were_heard_of() -> None:
    seen = view(leading(), *map(following, REPLICAS), silent=("p", "s"), answers=None)

    assert judge(seen, NOW, LIMITS) == Doubt(("r",), "the host of p has said nothing for 10.0 s")


def test_silence_alone_never_fails_over_while_its_server_answers() -> None:
    seen = view(leading(), *map(following, REPLICAS), silent=("p",), answers=True, silence=4)

    assert isinstance(judge(seen, NOW, LIMITS), Degraded)


def test_one_that_serves_without_its_agent_is_taken_over_after_more_patience() -> None:
    seen = view(leading(), following(REPLICAS[0], offset=9), following(REPLICAS[1]), silent=("p",), answers=True)

    verdict = judge(seen, NOW, LIMITS)

    assert isinstance(verdict, TakeOver)
    assert verdict.successor_id == "s"


def test_a_link_that_is_down_does_not_make_a_server_that_answers_a_lost_one() -> None:
    seen = view(leading(), *map(cut_off, REPLICAS), silent=("p",), answers=True, silence=4)

    assert isinstance(judge(seen, NOW, LIMITS), Degraded)


def test_a_silent_host_that_nobody_reaches_is_replaced_though_the_links_look_up() -> None:
    """When a host vanishes without a word, its connections stay up for a minute."""
    verdict = judge(view(leading(), *map(following, REPLICAS), silent=("p",)), NOW, LIMITS)

    assert isinstance(verdict, FailOver)
    assert not verdict.proven


def test_a_silent_host_is_replaced_when_its_replicas_have_lost_it() -> None:
    verdict = judge(view(leading(), *map(cut_off, REPLICAS), silent=("p",)), NOW, LIMITS)

    assert isinstance(verdict, FailOver)
    assert not verdict.proven


def test_a_minority_that_has_lost_its_primary_proves_nothing() -> None:
    """Partition: the primary with one replica on the other side, one replica and the managers on ours."""
    verdict = judge(view(leading(), following(REPLICAS[0]), cut_off(REPLICAS[1]), silent=("p", "r")), NOW, LIMITS)

    assert isinstance(verdict, Degraded)


@pytest.mark.parametrize("status", [Status.BUILD, Status.SHUTDOWN, Status.DETACH])
def test_one_on_its_way_in_or_out_may_carry_the_old_primary(status: Status) -> None:
    """It sits beside the primary, behind the partition, and the primary's agent may count it."""
    members = (replace(REPLICAS[0], status=status), REPLICAS[1])
    looked = (leading(), following(members[0]), cut_off(members[1]))

    verdict = judge(view(*looked, silent=("p", "r"), members=members), NOW, LIMITS)

    assert isinstance(verdict, Degraded)


def test_an_agent_that_does_not_know_its_primary_is_no_proof_that_it_is_dead() -> None:
    """Its record was lost or damaged; the server may go on."""
    verdict = judge(view(leading(process=Process.ABSENT), *map(following, REPLICAS)), NOW, LIMITS)

    assert isinstance(verdict, FailOver)
    assert not verdict.proven


def test_a_report_from_before_the_server_was_made_says_nothing_of_it() -> None:
    unnamed = ServerFacts("p", Process.ABSENT, seen_at=NOW - 0.4)
    just_made = replace(view(unnamed, members=()), changed_at=NOW - 0.3)

    assert judge(just_made, NOW, LIMITS) == Healthy()


def test_a_dead_primary_without_a_fit_replica_is_started_where_it_was() -> None:
    verdict = judge(
        view(leading(process=Process.EXITED), following(REPLICAS[0], synced_once=False), members=REPLICAS[:1]),
        NOW,
        LIMITS,
    )

    assert isinstance(verdict, RestartPrimary)


def test_after_a_failover_without_proof_the_next_one_waits() -> None:
    seen = replace(view(leading(), *map(cut_off, REPLICAS), silent=("p",)), last_failover=NOW - 3)

    assert isinstance(judge(seen, NOW, LIMITS), Degraded)
    assert isinstance(judge(seen, NOW + 3, Limits(silence=20)), Realign | Healthy | Degraded)


@pytest.mark.parametrize(
    "astray",
    [
        following(REPLICAS[0], role=Role.PRIMARY, upstream=None),
        following(REPLICAS[0], upstream=Upstream(Address("127.0.0.1", 1), False, False, -1)),
        following(REPLICAS[0], process=Process.ABSENT),
    ],
    ids=["calls itself primary", "follows nobody", "its agent does not know it"],
)
def test_one_out_of_its_place_is_brought_back(astray: ServerFacts) -> None:
    verdict = judge(view(leading(), astray, following(REPLICAS[1])), NOW, LIMITS)

    assert isinstance(verdict, Realign)
    assert verdict.instance_ids == ("r",)


@pytest.mark.parametrize(("told_at", "astray"), [(3, True), (7, False)])
def test_one_that_has_exited_is_started_by_its_agent_unless_that_awaits_a_word(told_at: int, astray: bool) -> None:
    """An old primary's agent that was away during the failover: nobody has told it that it may start a replica."""
    exited = following(REPLICAS[0], process=Process.EXITED, epoch=told_at)
    seen = view(leading(), exited, following(REPLICAS[1]))
    changed = replace(seen, group=replace(seen.group, topology_epoch=5))

    assert isinstance(judge(changed, NOW, LIMITS), Realign) is astray


@pytest.mark.parametrize(("loads_for", "fit", "replaced"), [(700, True, True), (700, False, False), (60, True, False)])
def test_one_that_loads_counts_as_down_after_a_limit_of_its_own(loads_for: float, fit: bool, replaced: bool) -> None:
    replicas = [cut_off(one) if fit else replace(cut_off(one), synced_once=False) for one in REPLICAS]
    seen = replace(view(leading(process=Process.LOADING), *replicas), loading_since=NOW - loads_for)

    verdict = judge(seen, NOW, LIMITS)

    assert isinstance(verdict, FailOver) is replaced
    assert not isinstance(verdict, RestartPrimary)
    assert not (isinstance(verdict, FailOver) and verdict.proven)


def test_what_an_operation_is_about_to_change_is_not_judged() -> None:
    busy = (replace(REPLICAS[0], status=Status.PROMOTE), REPLICAS[1])

    seen = view(leading(), following(busy[0], role=Role.PRIMARY), following(busy[1]), members=busy)

    assert judge(seen, NOW, LIMITS) == Healthy()

"""Clusters as their members tell of them: when they agree, who takes over, what is finished, who is introduced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.agreement import disagreement, prevailing
from redkeep.decide.forming import Place, adjustments, introductions, preparations
from redkeep.decide.open_slots import Await, Close, Finish, to_finish
from redkeep.decide.recovery import Degraded, GroupView, Healthy, Limits
from redkeep.decide.shards import Adopt, FailOverShards, Mend, Restart, judge_cluster, marks_to_inherit
from redkeep.decide.slots import even_ranges
from redkeep.model.cluster_orders import ClusterAddSlots, ClusterMeet, ClusterReplicate
from redkeep.model.facts import ClusterFacts, Process, ServerFacts, Upstream
from redkeep.model.instance import Group, Instance, Secrets, Status
from redkeep.model.slots import ClusterView, Member, slots_in
from redkeep.model.topology import Address, Role

HISTORY = "a" * 40
SHARDS = ("1", "2", "3")
RANGES = dict(zip(SHARDS, even_ranges(3), strict=True))
NOW = 100.0


def address(name: str) -> Address:
    return Address("10.0.0.1", 7000 + 10 * ord(name[0]) + int(name[1:]))


def whole(replicas: int = 1) -> dict[str, ServerFacts]:
    """A cluster of three shards in which everybody agrees. Names: `p1` for a primary, `r1` for its replica."""
    nodes = [Member(f"node-p{n}", address(f"p{n}"), None, int(n), False, RANGES[n]) for n in SHARDS]
    nodes += [Member(f"node-r{n}", address(f"r{n}"), f"node-p{n}", int(n)) for n in SHARDS for _ in range(replicas)]
    view = ClusterView(tuple(nodes))
    return {
        one.id.removeprefix("node-"): ServerFacts(
            one.id.removeprefix("node-"),
            Process.RUNNING,
            seen_at=NOW,
            role=Role.PRIMARY if one.primary_id is None else Role.REPLICA,
            replication_id=HISTORY + one.id[-1],
            offset=100,
            synced_once=one.primary_id is not None,
            upstream=None if one.primary_id is None else Upstream(one.address, True, False, 0),
            cluster=ClusterFacts(one.id, True, 9, one.epoch, view),
        )
        for one in nodes
    }


def changed(facts: Mapping[str, ServerFacts], name: str, **changes: object) -> dict[str, ServerFacts]:
    cluster = facts[name].cluster
    assert cluster is not None
    return {**facts, name: replace(facts[name], cluster=replace(cluster, **changes))}  # type: ignore[arg-type]


def dead(facts: Mapping[str, ServerFacts], name: str, how: Process = Process.EXITED) -> dict[str, ServerFacts]:
    return {**facts, name: replace(facts[name], process=how, detail="killed by SIGKILL")}


def instance(name: str) -> Instance:
    role = Role.PRIMARY if name.startswith("p") else Role.REPLICA
    return Instance(
        name, "g", "p", name, role, Status.ACTIVE, "1", 1, "7.0", 0, 0, "host", address(name),
        shard=name[-1], node_id=f"node-{name}",
    )  # fmt: skip


def judged(facts: Mapping[str, ServerFacts], **more: object) -> object:
    members = tuple(instance(name) for name in sorted(facts))
    view = GroupView(Group("g", "p", Secrets("", ""), None), members, facts, {"host": NOW})
    return judge_cluster(replace(view, **more), NOW, Limits())  # type: ignore[arg-type]


# --- Agreement


def test_a_cluster_of_one_mind_is_in_order() -> None:
    assert disagreement(whole(), list(whole())) is None
    assert judged(whole()) == Healthy()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state_ok": False}, "the cluster is down"),
        ({"shaking": 1}, "introduced"),
        ({"migrating": ((1, "node-p2"),)}, "half-way"),
        ({"view": ClusterView()}, "knows 0 of 6"),
    ],
)
def test_one_member_that_lags_behind_keeps_all_from_agreeing(changes: dict[str, object], words: str) -> None:
    assert words in (disagreement(changed(whole(), "p1", **changes), list(whole())) or "")


@given(st.sampled_from(sorted(whole())), st.data())
def test_any_difference_between_two_views_is_a_disagreement(name: str, data: st.DataObject) -> None:
    facts = whole()
    view = facts[name].cluster.view  # type: ignore[union-attr]
    at = data.draw(st.integers(0, 5))
    other = data.draw(
        st.sampled_from(
            [
                replace(view.members[at], primary_id="node-p3" if view.members[at].primary_id != "node-p3" else None),
                replace(view.members[at], ranges=((0, 1),)),
                replace(view.members[at], address=Address("10.9.9.9", 1)),
                replace(view.members[at], failed=True),
            ]
        )
    )
    differing = ClusterView((*view.members[:at], other, *view.members[at + 1 :]))

    assert disagreement(changed(facts, name, view=differing), list(facts)) is not None


def test_a_replica_that_does_not_hear_its_primary_is_not_in_order() -> None:
    facts = whole()
    facts["r2"] = replace(facts["r2"], upstream=Upstream(address("p2"), False, False, -1))

    assert disagreement(facts, list(facts)) == "r2 does not hear its primary"


def test_slots_that_two_claim_are_those_of_the_higher_epoch() -> None:
    facts = whole()
    old = facts["p1"].cluster
    assert old is not None
    nodes = tuple(
        replace(one, primary_id=None, epoch=12, ranges=RANGES["1"]) if one.id == "node-r1" else one
        for one in old.view.members
    )
    facts = changed(facts, "r1", view=ClusterView(nodes), epoch=12)

    truth = {one.id: one.ranges for one in prevailing(facts).members}

    assert truth["node-r1"] == RANGES["1"]
    assert truth["node-p1"] == ()


# --- Forming

PLACES = [
    *(Place(f"p{n}", "g", address(f"p{n}"), at, RANGES[n]) for at, n in enumerate(SHARDS, 1)),
    *(Place(f"r{n}", "g", address(f"r{n}"), at, follows=f"p{n}") for at, n in enumerate(SHARDS, 4)),
]


def strangers() -> dict[str, ServerFacts]:
    """Six servers that know nobody; the primaries own their slots already."""
    alone = {one: Member(f"node-{one.instance_id}", one.address, ranges=one.ranges) for one in PLACES}
    return {
        place.instance_id: replace(whole()[place.instance_id], cluster=ClusterFacts(own.id, view=ClusterView((own,))))
        for place, own in alone.items()
    }


def test_epochs_are_distinct_and_said_before_anybody_meets() -> None:
    told = preparations(PLACES, 7, 500)

    assert len({one.config_epoch for one in told}) == 6  # type: ignore[union-attr]
    assert sorted(slot for one in told for slot in slots_in(one.ranges)) == list(range(16384))  # type: ignore[union-attr]


def test_every_two_strangers_are_introduced_once() -> None:
    told = introductions(PLACES, strangers(), 7)

    pairs = [
        frozenset((place.address, peer))
        for one in told
        for place in PLACES
        if place.instance_id == one.instance_id
        for peer in one.peers  # type: ignore[union-attr]
    ]
    assert len(pairs) == len(set(pairs)) == 15
    assert adjustments(PLACES, strangers(), 7) == (), "nobody can follow one that it does not know"


def test_whoever_agrees_is_told_nothing() -> None:
    assert introductions(PLACES, whole(), 7) == ()
    assert adjustments(PLACES, whole(), 7) == ()


def test_a_member_at_a_new_address_is_introduced_to_all_who_know_the_old_one() -> None:
    places = [replace(one, address=Address("10.0.0.9", 1)) if one.instance_id == "p2" else one for one in PLACES]

    told = introductions(places, whole(), 7)

    assert [one.instance_id for one in told if isinstance(one, ClusterMeet)] == ["p1", "p2"]
    assert sum(len(one.peers) for one in told if isinstance(one, ClusterMeet)) == 5


def test_replicas_follow_once_they_know_whom_and_slots_without_an_owner_are_given_out() -> None:
    facts = whole()
    known = facts["r1"].cluster
    assert known is not None
    lost = tuple(replace(one, ranges=()) if one.id == "node-p2" else one for one in known.view.members)
    alone = tuple(replace(one, primary_id=None) if one.id == "node-r1" else one for one in known.view.members)
    facts = changed(changed(facts, "r1", view=ClusterView(alone)), "p2", view=ClusterView(lost))

    told = adjustments(PLACES, facts, 7)

    assert told == (
        ClusterAddSlots("p2", "g", 7, RANGES["2"]),
        ClusterReplicate("r1", "g", 7, "node-p1"),
    )


# --- The dead


def test_23_a_dead_primary_is_replaced_at_once_by_proof() -> None:
    verdict = judged(dead(whole(), "p2"))

    assert isinstance(verdict, FailOverShards)
    assert verdict.dead == ("p2",)


def test_several_dead_primaries_are_replaced_together() -> None:
    verdict = judged(dead(dead(whole(), "p2"), "p3"))

    assert isinstance(verdict, FailOverShards)
    assert verdict.dead == ("p2", "p3")


@pytest.mark.parametrize("name", ["p1", "r1"])
def test_who_has_no_successor_or_needs_none_is_started_again(name: str) -> None:
    facts = whole()
    if name == "p1":
        facts["r1"] = replace(facts["r1"], synced_once=False)

    verdict = judged(dead(facts, name))

    assert isinstance(verdict, Restart)
    assert verdict.instance_ids == (name,)


def test_a_replica_of_another_history_does_not_take_over() -> None:
    facts = whole()
    facts["r1"] = replace(facts["r1"], replication_id="b" * 40)

    assert isinstance(judged(dead(facts, "p1")), Restart)


def test_what_was_seen_before_the_last_change_is_no_death() -> None:
    assert judged(dead(whole(), "p2"), changed_at=NOW + 1) == Healthy()


def test_silence_is_no_proof_in_a_cluster() -> None:
    facts = {name: replace(one, process=Process.HUNG) if name == "p2" else one for name, one in whole().items()}

    assert judged(facts) == Healthy()


def test_28_a_lost_majority_is_left_to_an_administrator() -> None:
    facts = {name: one for name, one in whole().items() if name not in ("p1", "p2")}
    for name in list(facts):
        facts = changed(facts, name, state_ok=False)

    verdict = judged(facts)

    assert isinstance(verdict, Degraded)
    assert "2 of 3 primaries" in verdict.reason


def test_an_election_of_the_members_is_adopted() -> None:
    facts = whole()
    known = facts["p1"].cluster
    assert known is not None
    swapped = ClusterView(
        tuple(
            replace(one, primary_id="node-r1", ranges=(), epoch=11) if one.id == "node-p1"
            else replace(one, primary_id=None, ranges=RANGES["1"], epoch=11) if one.id == "node-r1" else one
            for one in known.view.members
        )
    )  # fmt: skip
    for name in list(facts):
        facts = changed(facts, name, view=swapped)

    assert judged(facts) == Adopt({"p1": Role.REPLICA, "r1": Role.PRIMARY}, "the members have elected")


@pytest.mark.parametrize(
    "changes",
    [
        {"importing": ((5, "node-p1"),)},
        {"node_id": "node-new"},
        {"nameless": ("node-gone",)},
    ],
)
def test_29_what_redis_does_not_mend_is_mended(changes: dict[str, object]) -> None:
    assert isinstance(judged(changed(whole(), "p2", **changes)), Mend)


def test_nothing_is_decided_while_an_operator_is_at_work() -> None:
    assert isinstance(judged(dead(whole(), "p2"), paused=True), Degraded)


# --- Slots that are half-way

SHARD_OF = {f"node-{name}": name[-1] for name in whole()}


def finished(facts: Mapping[str, ServerFacts]) -> tuple[object, ...]:
    return to_finish(facts, prevailing(facts), SHARD_OF)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({}, {"importing": ((5, "node-p1"),)}),
        ({"migrating": ((5, "node-p2"),)}, {}),
        ({"migrating": ((5, "node-p2"),)}, {"importing": ((5, "node-p1"),)}),
        ({}, {"importing": ((5, "node-gone"),)}),
    ],
)
def test_23_a_slot_that_is_half_way_is_finished_forwards(source: dict[str, object], target: dict[str, object]) -> None:
    """Whichever mark is there; also when the source has been replaced since, by one that has no mark."""
    assert finished(changed(changed(whole(), "p1", **source), "p2", **target)) == (Finish("p1", "p2", (5,)),)


def test_24_the_successor_of_the_target_gets_what_is_left() -> None:
    assert finished(changed(whole(), "p1", migrating=((5, "node-r2"),))) == (Finish("p1", "p2", (5,)),)


def test_marks_of_a_move_that_is_over_are_closed() -> None:
    assert finished(changed(whole(), "p1", importing=((5, "node-p2"),))) == (Close("p1", (5,)),)
    assert finished(changed(whole(), "p2", migrating=((5, "node-p1"),))) == (Close("p2", (5,)),)
    assert finished(changed(whole(), "p1", migrating=((5, "node-stranger"),))) == (Close("p1", (5,)),)


def test_a_slot_waits_for_a_target_that_is_away() -> None:
    facts = changed(dead(whole(replicas=0), "p2"), "p1", migrating=((5, "node-p2"),))

    assert finished(facts) == (Await("p1", (5,)),)


def test_24_the_successor_of_a_dead_primary_inherits_its_open_slots() -> None:
    facts = changed(changed(whole(), "p2", importing=((5, "node-p1"),)), "p3", migrating=((12000, "node-p1"),))

    assert marks_to_inherit(instance("p1"), dead(facts, "p1")) == (((5, "node-p2"),), ((12000, "node-p3"),))

"""The way of a backend between its sites: every rule by itself, and all of them in any order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.lifecycle import Refusal
from redkeep.decide.site import (
    CALLS_ALLOWED,
    MAY_FAIL_OVER,
    Abilities,
    AlreadyThere,
    Change,
    Wish,
    choose_target,
    configured,
    could_not_follow,
    duty,
    failed,
    followed,
    following,
    freeze,
    given_up,
    is_up,
    joined,
    may_start,
    request_failover,
    succeeded,
    unchanged,
)
from redkeep.model.site import FailoverResult, ReplicationStatus, Service, ServiceCluster, SiteFailover, shown_site

S = ReplicationStatus
DOWN = 60.0
TARGETS = ("dr1", "dr2")


def a_cluster(**changes: Any) -> ServiceCluster:
    plain = ServiceCluster("managers@redis", created_at=0.0, replication_status=S.ENABLED, targets=TARGETS)
    return replace(plain, **changes)


def a_service(name: str = "m1", **changes: Any) -> Service:
    plain = Service(f"{name}@redis", "managers@redis", 0.0, heartbeat_at=100.0, replication_status=S.ENABLED)
    return replace(plain, **changes)


def a_wish(target: str | None = "dr1", **changes: Any) -> Wish:
    return replace(Wish("f", target, forced=True, by="admin", limit=600.0), **changes)


def failing_over(target: str = "dr1", members: int = 2, **changes: Any) -> Change:
    begun = request_failover(
        a_cluster(**changes), [a_service(f"m{n}") for n in range(members)], a_wish(target), 100.0, DOWN
    )
    assert isinstance(begun, Change)
    return begun


# --- Asking ---------------------------------------------------------------------------------------------------------


def test_a_failover_takes_the_cluster_and_every_member_at_once() -> None:
    begun = failing_over("dr2")

    assert begun.cluster.replication_status is S.FAILING_OVER
    assert {one.replication_status for one in begun.services} == {S.FAILING_OVER}
    assert begun.cluster.failover is not None
    assert (begun.cluster.failover.target, begun.cluster.failover.deadline) == ("dr2", 700.0)
    assert begun.cluster.active_backend_id is None


@pytest.mark.parametrize("status", list(S))
def test_it_is_accepted_from_every_settled_state_and_from_no_other(status: ReplicationStatus) -> None:
    answer = request_failover(a_cluster(replication_status=status), [a_service()], a_wish(), 100.0, DOWN)

    assert isinstance(answer, Change) == (status in MAY_FAIL_OVER)


def test_a_cluster_whose_members_are_silent_cannot_fail_over_whatever_was_written_to_their_rows() -> None:
    silent = a_service(heartbeat_at=10.0, updated_at=99.0)

    answer = request_failover(a_cluster(), [silent], a_wish(), 100.0, DOWN)

    assert isinstance(answer, Refusal)
    assert "must be up to failover" in answer.message
    assert not is_up(silent, 100.0, DOWN)


@pytest.mark.parametrize(
    ("active", "wanted", "chosen"),
    [
        (None, None, "dr1"),
        ("", "", "dr1"),
        ("dr1", None, "dr2"),
        (None, "dr2", "dr2"),
        ("dr1", "default", "default"),
        ("dr1", "dr1", "dr1"),
    ],
)
def test_which_target_a_request_means(active: str | None, wanted: str | None, chosen: str) -> None:
    assert choose_target(a_cluster(active_backend_id=active), wanted) == chosen


def test_a_target_that_is_not_configured_is_refused_and_the_way_out_is_named() -> None:
    unknown = choose_target(a_cluster(), "typo")
    none = choose_target(a_cluster(targets=()), "dr1")

    assert isinstance(unknown, Refusal)
    assert "dr1, dr2, default" in unknown.message
    assert isinstance(none, Refusal)
    assert "no replication_device" in none.message


@pytest.mark.parametrize(
    ("active", "status", "wanted"),
    [("dr1", S.FAILED_OVER, "dr1"), (None, S.ENABLED, "default"), ("", S.ENABLED, "default")],
)
def test_asking_again_for_where_it_is_does_nothing(active: str | None, status: S, wanted: str) -> None:
    cluster = a_cluster(active_backend_id=active, replication_status=status)

    assert request_failover(cluster, [a_service()], a_wish(wanted), 100.0, DOWN) == AlreadyThere(wanted)


@pytest.mark.parametrize(
    ("forced", "target", "accepted"),
    [(True, "dr1", True), (True, None, True), (True, "dr2", False), (False, "dr1", False), (None, "dr1", False)],
)
def test_what_goes_on_in_order_may_be_forced_and_not_changed_otherwise(
    forced: bool | None, target: str | None, accepted: bool
) -> None:
    begun = failing_over("dr1", members=1)
    assert begun.cluster.failover is not None
    in_order = replace(begun.cluster, failover=replace(begun.cluster.failover, forced=False, attempts=2))

    answer = request_failover(in_order, begun.services, a_wish(target, forced=forced), 150.0, DOWN)
    again = (
        request_failover(answer.cluster, begun.services, a_wish(target), 150.0, DOWN)
        if isinstance(answer, Change)
        else None
    )

    assert isinstance(answer, Change) == accepted
    if isinstance(answer, Change) and answer.cluster.failover is not None:
        assert (answer.cluster.failover.forced, answer.cluster.failover.deadline) == (True, 750.0)
        assert answer.cluster.replication_status is S.FAILING_OVER
        assert isinstance(again, Refusal)


def test_after_an_error_asking_for_the_same_site_is_no_repetition() -> None:
    cluster = a_cluster(active_backend_id="dr1", replication_status=S.FAILOVER_ERROR)

    assert isinstance(request_failover(cluster, [a_service()], a_wish("dr1"), 100.0, DOWN), Change)


# --- Ends -----------------------------------------------------------------------------------------------------------


def test_success_moves_the_cluster_and_leaves_the_members_to_follow() -> None:
    begun = failing_over()

    done = succeeded(begun.cluster, begun.services, FailoverResult("dr1"), 200.0)

    assert (done.cluster.replication_status, done.cluster.active_backend_id) == (S.FAILED_OVER, "dr1")
    assert (done.cluster.disabled, done.cluster.disabled_reason, done.cluster.epoch) == (True, "failed-over", 1)
    assert {(one.replication_status, one.active_backend_id) for one in done.services} == {(S.FAILING_OVER, None)}
    assert following(done.cluster, done.services).followed == 0


@pytest.mark.parametrize(("frozen", "reason"), [(False, ""), (True, "frozen")])
def test_failing_back_enables_it_unless_it_is_frozen(frozen: bool, reason: str) -> None:
    begun = failing_over("default", active_backend_id="dr1", replication_status=S.FAILED_OVER, frozen=frozen)

    done = succeeded(begun.cluster, begun.services, FailoverResult("default"), 200.0)

    assert (done.cluster.replication_status, done.cluster.active_backend_id) == (S.ENABLED, "")
    assert (done.cluster.disabled, done.cluster.disabled_reason) == (frozen, reason)


@pytest.mark.parametrize("status", sorted(MAY_FAIL_OVER))
def test_a_refusal_of_the_driver_leaves_everything_as_it_was(status: S) -> None:
    before = a_cluster(replication_status=status, active_backend_id="dr2", epoch=3)
    members = [a_service("m1", applied_epoch=3), a_service("m2", applied_epoch=3)]
    begun = request_failover(before, members, a_wish(), 100.0, DOWN)
    assert isinstance(begun, Change)

    back = unchanged(begun.cluster, begun.services, "not resynchronised", 150.0)

    assert replace(back.cluster, failover=None, updated_at=None) == before
    assert {one.replication_status for one in back.services} == {status}
    assert back.cluster.failover is not None
    assert back.cluster.failover.error == "not resynchronised"


def test_a_failure_stops_everybody_where_they_are() -> None:
    begun = failing_over()

    broken = failed(begun.cluster, begun.services, "it broke", 200.0)

    assert broken.cluster.replication_status is S.FAILOVER_ERROR
    assert (broken.cluster.active_backend_id, broken.cluster.epoch) == (None, 0)
    assert (broken.cluster.disabled, broken.cluster.disabled_reason) == (True, None)
    assert {(one.replication_status, one.disabled) for one in broken.services} == {(S.FAILOVER_ERROR, True)}
    assert not any(duty(broken.cluster, one, 200.0).follow for one in broken.services)


def test_nobody_tries_for_ever() -> None:
    asked = SiteFailover("f", "dr1", True, S.ENABLED, "admin", 0.0, deadline=50.0)

    assert given_up(a_cluster(failover=asked), 10.0) is None
    assert "in time" in (given_up(a_cluster(failover=asked), 51.0) or "")
    assert "died" in (given_up(a_cluster(failover=replace(asked, attempts=CALLS_ALLOWED)), 10.0) or "")


# --- Members --------------------------------------------------------------------------------------------------------


def test_a_member_that_was_down_joins_where_the_cluster_is() -> None:
    stale = a_service(applied_epoch=2, active_backend_id=None)
    cluster = a_cluster(epoch=5, active_backend_id="dr1", replication_status=S.FAILED_OVER, disabled=True)

    row = joined(stale, cluster, 100.0, is_new=False)

    assert (row.active_backend_id, row.applied_epoch, row.replication_status) == ("dr1", 5, S.FAILED_OVER)
    assert row.disabled


def test_what_an_administrator_said_of_one_member_survives_its_restart() -> None:
    row = joined(a_service(disabled=True, disabled_reason="disk"), a_cluster(), 100.0, is_new=False)

    assert (row.disabled, row.disabled_reason) == (True, "disk")


@given(st.sampled_from(S), st.sampled_from([(), TARGETS]))
def test_a_start_never_changes_what_a_failover_left(status: S, targets: tuple[str, ...]) -> None:
    cluster = a_cluster(replication_status=status, active_backend_id="dr1", epoch=4)

    after = configured(cluster, targets, 9.0)

    kept = {S.FAILING_OVER, S.FAILED_OVER, S.FAILOVER_ERROR, S.ERROR}
    assert (after.active_backend_id, after.epoch, after.frozen) == ("dr1", 4, False)
    assert after.replication_status is status or status not in kept


def test_a_member_whose_driver_refuses_says_so_alone_and_loses_the_reason_when_it_has_followed() -> None:
    begun = failing_over()
    done = succeeded(begun.cluster, begun.services, FailoverResult("dr1"), 200.0)

    bad = could_not_follow(done.services[0], "no route to dr1", 201.0)
    progress = following(done.cluster, [bad, followed(done.services[1], done.cluster, 201.0)])
    good = followed(bad, done.cluster, 202.0)

    assert (bad.replication_status, bad.disabled_reason) == (S.ERROR, "no route to dr1")
    assert (progress.followed, progress.members, progress.failed) == (1, 2, ("m0@redis",))
    assert duty(done.cluster, bad, 201.0).follow
    assert (good.replication_status, good.disabled_reason, good.fault) == (S.FAILED_OVER, "failed-over", None)


def test_a_failover_is_worked_on_by_one_and_taken_over_when_the_lease_is_over() -> None:
    begun = failing_over()
    held = replace(begun.cluster, holder="m0@redis", lease_until=105.0)
    one, other = begun.services

    assert duty(begun.cluster, one, 100.0).work
    assert duty(held, one, 100.0).work
    assert not duty(held, other, 100.0).work
    assert duty(held, other, 105.0).work


# --- Starting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("able", "solitary", "targets", "refusal"),
    [
        (Abilities("D", True, True, False), False, TARGETS, None),
        (Abilities("D", False, True, False), False, (), "Active-Active"),
        (Abilities("D", False, True, False), True, TARGETS, None),
        (Abilities("D", True, False, True), False, TARGETS, "clustered replication"),
        (Abilities("D", True, False, False), False, (), None),
        (Abilities("D", False, False, True), True, TARGETS, None),
        (Abilities("D", False, False, False), True, TARGETS, "doesn't support replication"),
    ],
)
def test_who_may_start_with_which_driver(
    able: Abilities, solitary: bool, targets: tuple[str, ...], refusal: str | None
) -> None:
    reason = may_start(able, solitary=solitary, targets=targets)

    assert (reason is None) if refusal is None else refusal in (reason or "")


# --- Freezing -------------------------------------------------------------------------------------------------------


@given(st.booleans(), st.booleans())
def test_a_thaw_undoes_the_freeze_and_nothing_else(cluster_disabled: bool, member_disabled: bool) -> None:
    cluster = a_cluster(disabled=cluster_disabled, disabled_reason="mine" if cluster_disabled else None)
    members = [a_service(disabled=member_disabled, disabled_reason="mine" if member_disabled else None), a_service("b")]

    frozen = freeze(cluster, members, 10.0, frozen=True)
    assert isinstance(frozen, Change)
    thawed = freeze(frozen.cluster, frozen.services, 20.0, frozen=False)
    assert isinstance(thawed, Change)

    assert frozen.cluster.frozen
    assert all(one.frozen and one.disabled for one in frozen.services)
    assert (thawed.cluster.disabled, thawed.cluster.frozen) == (cluster_disabled, False)
    assert [(one.disabled, one.frozen) for one in thawed.services] == [(member_disabled, False), (False, False)]


def test_a_second_freeze_is_refused_in_words_that_say_freeze() -> None:
    answer = freeze(a_cluster(frozen=True), [], 10.0, frozen=True)

    assert answer == Refusal("invalid", "frozen in managers@redis must be False to freeze.")


def test_frozen_failed_back_and_thawed_it_is_enabled_again() -> None:
    cluster, members = a_cluster(active_backend_id="dr1", replication_status=S.FAILED_OVER), [a_service()]
    frozen = freeze(cluster, members, 10.0, frozen=True)
    assert isinstance(frozen, Change)
    begun = request_failover(frozen.cluster, frozen.services, a_wish("default"), 100.0, DOWN)
    assert isinstance(begun, Change)
    done = succeeded(begun.cluster, begun.services, FailoverResult("default"), 110.0)
    thawed = freeze(done.cluster, [followed(one, done.cluster, 111.0) for one in done.services], 120.0, frozen=False)
    assert isinstance(thawed, Change)

    rows: list[ServiceCluster | Service] = [thawed.cluster, *thawed.services]
    assert {(row.disabled, row.disabled_reason, row.frozen) for row in rows} == {(False, "", False)}


# --- All of it, in any order ----------------------------------------------------------------------------------------


@dataclass
class History:
    """What happens to a cluster of three, some of whom die and come back; every rule is checked after each step."""

    cluster: ServiceCluster = field(default_factory=a_cluster)
    services: list[Service] = field(default_factory=lambda: [a_service(f"m{n}") for n in range(3)])
    moves: int = 0
    now: float = 100.0

    def write(self, change: object) -> None:
        if isinstance(change, Change):
            self.cluster, self.services = change.cluster, list(change.services)

    def act(self, what: str, which: int, target: str) -> None:
        self.now += 1.0
        self.services = [replace(one, heartbeat_at=self.now) for one in self.services]
        before, one = self.cluster, self.services[which]
        is_open = self.cluster.replication_status is S.FAILING_OVER
        if what == "ask":
            self.write(request_failover(self.cluster, self.services, a_wish(target), self.now, DOWN))
            assert not is_open or self.cluster is before  # it is forced already, so nobody can force it
        elif what in ("freeze", "thaw"):
            self.write(freeze(self.cluster, self.services, self.now, frozen=what == "freeze"))
        elif what == "restart":
            self.cluster = configured(self.cluster, TARGETS, self.now)
            assert self.cluster is before
            self.services[which] = joined(one, self.cluster, self.now, is_new=False)
        elif what == "follow" and duty(self.cluster, one, self.now).follow:
            self.services[which] = followed(one, self.cluster, self.now)
        elif what == "stumble" and duty(self.cluster, one, self.now).follow:
            self.services[which] = could_not_follow(one, "no", self.now)
        elif is_open and self.cluster.failover is not None:
            self.end(what, self.cluster.failover.target)

    def end(self, what: str, target: str) -> None:
        if what == "succeed":
            self.moves += 1
            self.write(succeeded(self.cluster, self.services, FailoverResult(target), self.now))
        elif what == "refuse":
            self.write(unchanged(self.cluster, self.services, "no", self.now))
        elif what == "fail":
            self.write(failed(self.cluster, self.services, "broken", self.now))

    def check(self) -> None:
        assert self.cluster.epoch == self.moves, "the epoch counts the moves"
        is_open = self.cluster.replication_status is S.FAILING_OVER
        assert is_open == (self.cluster.failover is not None and self.cluster.failover.finished is None)
        for one in self.services:
            agrees = one.replication_status is self.cluster.replication_status
            there = one.applied_epoch == self.cluster.epoch and not one.fault
            assert agrees == there or is_open, (one, self.cluster)
            if there:
                assert one.active_backend_id == self.cluster.active_backend_id
            assert one.frozen == self.cluster.frozen
        if self.cluster.replication_status is S.ENABLED:
            assert self.cluster.active_backend_id in (None, "")


STEPS = st.tuples(
    st.sampled_from(["ask", "freeze", "thaw", "restart", "follow", "stumble", "succeed", "refuse", "fail"]),
    st.integers(0, 2),
    st.sampled_from(["dr1", "dr2", "default", "typo", ""]),
)


@given(st.lists(STEPS, max_size=40))
def test_the_rows_agree_whatever_happens_in_whatever_order(steps: list[tuple[str, int, str]]) -> None:
    history = History()
    for what, which, target in steps:
        history.act(what, which, target)
        history.check()

    if history.cluster.replication_status is S.FAILING_OVER and history.cluster.failover is not None:
        history.end("succeed", history.cluster.failover.target)
    for which in range(3):
        history.act("follow", which, "")

    rows = {(one.replication_status, one.active_backend_id, one.applied_epoch) for one in history.services}
    cluster = history.cluster
    if not any(one.fault for one in history.services):
        assert rows == {(cluster.replication_status, cluster.active_backend_id, cluster.epoch)}


@given(st.sampled_from(TARGETS))
def test_following_twice_is_following_once(target: str) -> None:
    begun = failing_over(target)
    done = succeeded(begun.cluster, begun.services, FailoverResult(target), 200.0)

    once = followed(done.services[0], done.cluster, 201.0)

    assert followed(once, done.cluster, 201.0) == once
    assert not duty(done.cluster, once, 201.0).follow
    assert once.active_backend_id == shown_site(target)

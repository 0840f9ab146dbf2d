"""What an owner may ask of an instance (contract, sections 4.3 to 5.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide import lifecycle
from redkeep.decide.lifecycle import Allowed, Amount, Refusal, UnderWay
from redkeep.model.instance import Flavor, Host, Instance, Status
from redkeep.model.topology import Address, Role

SMALL, LARGE, HUGE = Flavor("1", "small", 1024), Flavor("2", "large", 2048), Flavor("3", "huge", 8192)
FLAVORS = (SMALL, LARGE, HUGE)
SOURCE = Instance(
    id="source",
    group_id="g",
    project_id="demo",
    name="cache",
    role=Role.PRIMARY,
    status=Status.ACTIVE,
    flavor_id="2",
    volume_gb=2,
    version="7.0",
    created=1.0,
    updated=1.0,
    host_id="h1",
    address=Address("10.0.0.1", 7000),
)
REPLICA = replace(SOURCE, id="replica", role=Role.REPLICA, replica_of="source", address=Address("10.0.0.2", 7000))
OTHER = replace(REPLICA, id="other", address=Address("10.0.0.3", 7000))
SET = (SOURCE, REPLICA, OTHER)

BUSY = sorted(status for status in Status if not status.settled)
busy = pytest.mark.parametrize("status", BUSY)
statuses = st.sampled_from(Status)


def host(*versions: str, free_gb: int = 10) -> Host:
    return Host("h", "10.0.0.1", 7000, 7099, versions, 2**34, 2**36, free_gb * lifecycle.GIGABYTE, 0.0)


def kind(verdict: object) -> str:
    return verdict.kind if isinstance(verdict, Refusal) else type(verdict).__name__


def in_set(status: Status, who: str) -> tuple[Instance, ...]:
    return tuple(replace(one, status=status) if one.id == who else one for one in SET)


# --- Ordering


@pytest.mark.parametrize(
    ("version", "volume_gb", "expected"), [("7.0", 10, "Allowed"), ("6.2", 1, "invalid"), ("7.0", 11, "too_large")]
)
def test_an_order_needs_a_host_with_the_program_and_the_disk(version: str, volume_gb: int, expected: str) -> None:
    assert kind(lifecycle.may_place(version, volume_gb, [host("7.0"), host("5.0", free_gb=99)])) == expected


def test_an_order_that_no_host_can_serve_names_the_way_out() -> None:
    verdict = lifecycle.may_place("7.0", 1, [])

    assert isinstance(verdict, Refusal)
    assert "redkeep doctor" in verdict.message


@given(st.sampled_from(FLAVORS), st.integers(1, 20))
def test_a_volume_holds_all_the_memory_that_redis_may_have_to_save(flavor: Flavor, volume_gb: int) -> None:
    verdict = lifecycle.may_save_itself(flavor, volume_gb)

    assert isinstance(verdict, Allowed) == (flavor.ram_mb <= volume_gb * 1024)
    if isinstance(verdict, Refusal):
        assert str(flavor.ram_mb) in verdict.message
        assert f"{volume_gb} GB" in verdict.message


amounts = st.builds(Amount, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))


@given(amounts, amounts, amounts)
def test_a_quota_refuses_exactly_what_would_exceed_it(used: Amount, more: Amount, quota: Amount) -> None:
    verdict = lifecycle.within_quota(used, more, quota)

    fits = [
        not wants or has + wants <= limit
        for has, wants, limit in (
            (used.instances, more.instances, quota.instances),
            (used.ram_mb, more.ram_mb, quota.ram_mb),
            (used.volume_gb, more.volume_gb, quota.volume_gb),
        )
    ]
    assert isinstance(verdict, Allowed) == all(fits)


def test_a_quota_that_is_exceeded_is_told_in_upstreams_words() -> None:
    verdict = lifecycle.within_quota(Amount(instances=5), Amount(instances=1), Amount(5, 0, 0))

    assert verdict == Refusal("too_large", "Quota exceeded for resources: ['instances'].")


def test_what_shrinks_is_within_any_quota() -> None:
    assert lifecycle.within_quota(Amount(9, 9, 9), Amount(ram_mb=-1), Amount()) == Allowed()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SOURCE, "Allowed"),
        (REPLICA, "forbidden"),
        (replace(SOURCE, status=Status.BUILD), "busy"),
        (replace(SOURCE, status=Status.REBOOT), "busy"),
        (replace(SOURCE, status=Status.ERROR), "busy"),
    ],
)
def test_replicas_are_made_of_a_serving_primary_alone(source: Instance, expected: str) -> None:
    assert kind(lifecycle.may_replicate(source)) == expected


def test_one_replica_is_called_as_asked_and_several_are_numbered() -> None:
    assert lifecycle.names_of("r", 1) == ("r",)
    assert lifecycle.names_of("r", 3) == ("r-1", "r-2", "r-3")


# --- Changing


@busy
def test_what_is_busy_is_left_alone(status: Status) -> None:
    one, members = replace(REPLICA, status=status), in_set(status, "replica")

    assert kind(lifecycle.may_restart(one)) == "busy"
    assert kind(lifecycle.may_detach(one)) == "busy"
    assert kind(lifecycle.may_promote(one, members)) == "busy"
    assert kind(lifecycle.may_resize(one, members, FLAVORS, flavor=HUGE, volume_gb=9)) == "busy"
    assert kind(lifecycle.may_change_users(replace(SOURCE, status=status))) == "busy"
    assert kind(lifecycle.may_delete(one, members)) == ("UnderWay" if status is Status.SHUTDOWN else "busy")


def test_a_refusal_says_what_the_instance_is_doing() -> None:
    building = lifecycle.may_restart(replace(SOURCE, status=Status.BUILD))
    rebooting = lifecycle.may_restart(replace(SOURCE, status=Status.REBOOT))

    assert building == Refusal("busy", "Instance source is not ready. (Status is BUILD).")
    assert isinstance(rebooting, Refusal)
    assert "(task status was REBOOTING)" in rebooting.message


def test_a_source_is_deleted_only_without_replicas() -> None:
    assert lifecycle.may_delete(SOURCE, SET) == Refusal("forbidden", "Detach replicas before deleting replica source.")
    assert lifecycle.may_delete(SOURCE, [SOURCE]) == Allowed(("source",))
    assert lifecycle.may_delete(REPLICA, SET) == Allowed(("replica",))


def test_deleting_twice_is_deleting_once() -> None:
    assert lifecycle.may_delete(replace(SOURCE, status=Status.SHUTDOWN), []) == UnderWay()


def test_an_instance_in_error_can_be_restarted_and_deleted() -> None:
    broken = replace(REPLICA, status=Status.ERROR)

    assert lifecycle.may_restart(broken) == Allowed(("replica",))
    assert lifecycle.may_delete(broken, SET) == Allowed(("replica",))


def test_what_was_never_built_can_only_be_deleted() -> None:
    stillborn = replace(SOURCE, status=Status.ERROR, address=None, host_id=None)

    assert kind(lifecycle.may_restart(stillborn)) == "busy"
    assert kind(lifecycle.may_resize(stillborn, [stillborn], FLAVORS, flavor=SMALL, volume_gb=None)) == "busy"
    assert kind(lifecycle.may_delete(stillborn, [stillborn])) == "Allowed"


@pytest.mark.parametrize(
    ("flavor", "volume_gb", "expected"),
    [
        (SMALL, None, "Allowed"),
        (LARGE, None, "invalid"),  # it has that one
        (HUGE, None, "invalid"),  # 8 GB of memory do not fit on its 2 GB of volume
        (HUGE, 8, "Allowed"),
        (None, 2, "invalid"),
        (None, 1, "invalid"),
        (None, 3, "Allowed"),
    ],
)
def test_resizing_goes_to_another_flavor_or_a_larger_volume(
    flavor: Flavor | None, volume_gb: int | None, expected: str
) -> None:
    assert kind(lifecycle.may_resize(SOURCE, SET, FLAVORS, flavor=flavor, volume_gb=volume_gb)) == expected


def test_a_source_takes_its_replicas_along_when_it_is_resized() -> None:
    verdict = lifecycle.may_resize(SOURCE, SET, FLAVORS, flavor=SMALL, volume_gb=None)

    assert verdict == Allowed(("source", "replica", "other"))


@busy
def test_a_source_is_not_resized_while_a_replica_is_busy(status: Status) -> None:
    members = in_set(status, "other")

    assert kind(lifecycle.may_resize(SOURCE, members, FLAVORS, flavor=SMALL, volume_gb=None)) == "busy"


def test_a_replica_never_gets_less_memory_than_its_source() -> None:
    assert kind(lifecycle.may_resize(REPLICA, SET, FLAVORS, flavor=SMALL, volume_gb=None)) == "invalid"
    assert lifecycle.may_resize(REPLICA, SET, FLAVORS, flavor=HUGE, volume_gb=8) == Allowed(("replica",))


def test_promoting_takes_the_whole_set() -> None:
    assert lifecycle.may_promote(REPLICA, SET) == Allowed(("source", "replica", "other"))


def test_the_source_cannot_be_promoted() -> None:
    assert lifecycle.may_promote(SOURCE, SET) == Refusal("invalid", "Instance source is not a replica.")


@given(statuses, statuses, statuses)
def test_a_promotion_never_steps_over_another_operation(source: Status, replica: Status, other: Status) -> None:
    members = tuple(replace(one, status=status) for one, status in zip(SET, (source, replica, other), strict=True))

    verdict = lifecycle.may_promote(members[1], members)

    if isinstance(verdict, Allowed):
        assert members[1].status is Status.ACTIVE
        assert all(one.status.settled for one in members)
        assert set(verdict.members) == {one.id for one in members if one.status is Status.ACTIVE}


def test_only_a_replica_is_detached() -> None:
    assert lifecycle.may_detach(REPLICA) == Allowed(("replica",))
    assert lifecycle.may_detach(SOURCE) == Refusal("invalid", "Instance source is not a replica.")


@pytest.mark.parametrize(
    ("instance", "age", "expected"),
    [
        (SOURCE, 91.0, "Allowed"),
        (SOURCE, None, "Allowed"),
        (SOURCE, 1.0, "Replica Source source cannot be ejected as it has a current heartbeat"),
        (REPLICA, 91.0, "Instance replica is not a replica source."),
        (replace(SOURCE, status=Status.REBOOT), 91.0, "Allowed"),
    ],
)
def test_only_a_silent_source_is_ejected(instance: Instance, age: float | None, expected: str) -> None:
    verdict = lifecycle.may_eject(instance, SET, heartbeat_age=age, expiry=90.0)

    assert (verdict.message if isinstance(verdict, Refusal) else "Allowed") == expected


def test_users_belong_to_the_source() -> None:
    assert kind(lifecycle.may_change_users(SOURCE)) == "Allowed"
    assert kind(lifecycle.may_change_users(REPLICA)) == "invalid"


@given(
    st.lists(
        st.sampled_from([Allowed(("a",)), Allowed(("b",)), Refusal("busy", "x"), Refusal("invalid", "y")]), min_size=1
    )
)
def test_of_several_verdicts_the_first_refusal_counts(verdicts: list[Allowed | Refusal]) -> None:
    refusals = [one for one in verdicts if isinstance(one, Refusal)]

    assert lifecycle.first_refusal(*verdicts) == (refusals or verdicts[-1:])[0]

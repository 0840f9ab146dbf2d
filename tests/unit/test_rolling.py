"""In which order servers are renewed, and when the next one's turn comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.lifecycle import Allowed, Refusal, may_configure, may_roll
from redkeep.decide.rolling import gets_on, in_order, not_in_step
from redkeep.model.facts import Process, ServerFacts, Upstream
from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Address, Role

SOURCE = Instance(
    id="source",
    group_id="g",
    project_id="p",
    name="db",
    role=Role.PRIMARY,
    status=Status.ACTIVE,
    flavor_id="1",
    volume_gb=1,
    version="6.2",
    created=1.0,
    updated=1.0,
    address=Address("h", 1),
)
REPLICA = replace(SOURCE, id="replica", name="db-1", role=Role.REPLICA, replica_of="source", address=Address("h", 2))

LINK = Upstream(Address("h", 1), link_up=True, syncing=False, last_io_seconds=0)
PRIMARY = ServerFacts("p", Process.RUNNING, role=Role.PRIMARY, replication_id="x", offset=100)
BACK = ServerFacts(
    "r", Process.RUNNING, pid=1, role=Role.REPLICA, replication_id="x", offset=100, synced_once=True, upstream=LINK
)


@given(st.permutations(["a", "b", "c", "d"]), st.sampled_from(["a", "b", "c", "d"]))
def test_the_primary_comes_last_whatever_the_order_of_the_rows(names: list[str], primary: str) -> None:
    rows = [replace(SOURCE, id=name, name=name) for name in names]

    ordered = [one.id for one in in_order(rows, primary)]

    assert ordered == [*sorted(set(names) - {primary}), primary]


def test_a_replica_that_follows_and_has_all_counts() -> None:
    assert not_in_step(BACK, PRIMARY, 100) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": Process.EXITED, "detail": "killed by SIGKILL"}, "exited (killed by SIGKILL)"),
        ({"process": Process.LOADING}, "loading"),
        ({"upstream": None}, "does not follow"),
        ({"upstream": replace(LINK, link_up=False)}, "link to the primary is down"),
        ({"upstream": replace(LINK, link_up=False, syncing=True)}, "full copy"),
        ({"synced_once": False}, "not completed a synchronisation"),
        ({"replication_id": "y"}, "another history"),
        ({"offset": 99}, "lacks 1 bytes"),
    ],
)
def test_one_that_is_not_in_step_is_waited_for_and_said_why(change: dict[str, Any], words: str) -> None:
    assert words in str(not_in_step(replace(BACK, **change), PRIMARY, 100))


def test_nobody_is_in_step_with_a_primary_that_was_not_seen() -> None:
    assert "agent of the primary" in str(not_in_step(BACK, None, 100))
    assert "agent of the primary" in str(not_in_step(BACK, PRIMARY, -1))
    assert "agent does not answer" in str(not_in_step(None, PRIMARY, 100))


def test_one_that_loads_copies_or_applies_gets_on() -> None:
    loading = replace(BACK, process=Process.LOADING)
    copying = replace(BACK, upstream=replace(LINK, link_up=False, syncing=True))

    assert gets_on(loading, loading)
    assert gets_on(BACK, copying)
    assert gets_on(replace(BACK, offset=1), BACK)


def test_one_that_stands_still_or_begins_again_and_again_does_not() -> None:
    loading = replace(BACK, process=Process.LOADING)

    assert not gets_on(BACK, BACK)
    assert not gets_on(loading, replace(loading, pid=2))
    assert not gets_on(None, loading)
    assert not gets_on(BACK, None)


# --- May it begin? ------------------------------------------------------------------------------------------------


def test_a_group_rolls_as_a_whole() -> None:
    assert may_roll(SOURCE, (SOURCE, REPLICA)) == Allowed(("source", "replica"))
    assert may_roll(SOURCE, (SOURCE, REPLICA), to="7.0") == Allowed(("source", "replica"))


@pytest.mark.parametrize(
    ("instance", "to", "words"),
    [
        (REPLICA, None, "roll its source source"),
        (SOURCE, "6.2", "has Redis 6.2 already"),
        (replace(SOURCE, version="7.0"), "6.2", "cannot read"),
        (replace(SOURCE, version="10.0"), "9.4", "cannot read"),
    ],
)
def test_a_roll_that_makes_no_sense_is_refused(instance: Instance, to: str | None, words: str) -> None:
    verdict = may_roll(instance, (instance,), to=to)

    assert isinstance(verdict, Refusal)
    assert words in verdict.message


@given(st.sampled_from(sorted(set(Status) - {Status.ACTIVE})))
def test_no_roll_begins_while_a_member_is_not_in_order(status: Status) -> None:
    assert isinstance(may_roll(SOURCE, (SOURCE, replace(REPLICA, status=status))), Refusal)


def test_a_configuration_belongs_to_the_source_and_skips_members_in_error() -> None:
    broken = replace(REPLICA, status=Status.ERROR)

    assert may_configure(SOURCE, (SOURCE, broken)) == Allowed(("source",))
    assert isinstance(may_configure(REPLICA, (SOURCE, REPLICA)), Refusal)
    assert isinstance(may_configure(SOURCE, (SOURCE, replace(REPLICA, status=Status.REBOOT))), Refusal)

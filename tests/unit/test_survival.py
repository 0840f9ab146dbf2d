"""The rehearsal of a failover between sites, and what the canary says in figures."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redkeep.backends.verifying import differing
from redkeep.decide.promotion import unfitness
from redkeep.decide.survival import prospect
from redkeep.manager.canary import Sight, pairs_of, told
from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Status
from redkeep.model.topology import Role

from .strategies import HISTORY, facts_of, group, instance
from .test_recovery import following

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a machine that is busy with other things."""

PRIMARY = instance("p", role=Role.PRIMARY, site="north")
REPLICA = instance("r", replica_of="p", site="south")
SOURCE = ServerFacts("p", Process.RUNNING, role=Role.PRIMARY, replication_id=HISTORY, offset=100)


def test_one_in_step_survives_and_loses_nothing() -> None:
    mine = replace(following(REPLICA), offset=60, replication_id=HISTORY)
    found = prospect(group("p"), [PRIMARY, REPLICA], "south", {"p": SOURCE, "r": mine})

    assert found is not None
    assert (found.survives, found.in_order, found.lacking_bytes) == (True, True, 40)


def test_without_a_replica_there_it_does_not() -> None:
    found = prospect(group("p"), [PRIMARY], "south", {"p": SOURCE})

    assert found is not None
    assert not found.survives
    assert "no replica" in found.reason


def test_when_the_primary_is_silent_nobody_knows_what_would_be_lost() -> None:
    mine = replace(following(REPLICA), replication_id=HISTORY)
    found = prospect(group("p"), [PRIMARY, REPLICA], "south", {"r": mine})

    assert found is not None
    assert found.survives
    assert not found.in_order
    assert found.lacking_bytes is None


@patient
@given(facts_of("p"), facts_of("r"), st.booleans(), st.booleans())
def test_nobody_survives_by_a_replica_that_could_not_be_promoted(
    source: ServerFacts, mine: ServerFacts, sees_source: bool, sees_mine: bool
) -> None:
    facts = ({"p": source} if sees_source else {}) | ({"r": mine} if sees_mine else {})
    found = prospect(group("p"), [PRIMARY, REPLICA], "south", facts)

    assert found is not None
    history = source.replication_id if sees_source and source.alive else ""
    assert found.survives == (sees_mine and unfitness(mine, history) is None)
    assert not found.in_order or (found.survives and found.lacking_bytes is not None)
    assert found.reason


@given(
    st.lists(st.sampled_from(["north", "south", "west"]), min_size=1, max_size=4), st.sampled_from(["south", "west"])
)
def test_the_canary_flies_from_the_active_site_to_the_other_only(where: list[str], target: str) -> None:
    everyone = [instance("prst"[at], site=site) for at, site in enumerate(where)]
    found = list(pairs_of([group("p")], everyone, "north", target))

    assert bool(found) == (where[0] == "north" and target in where)
    assert all(one.primary.id == "p" and one.replica.site == target for one in found)


def test_one_being_made_is_not_measured() -> None:
    assert not list(pairs_of([group("p")], [PRIMARY, replace(REPLICA, status=Status.BUILD)], "north", "south"))


def test_what_has_not_arrived_is_as_old_as_the_last_that_has() -> None:
    arrived, late = Sight("a", 100.0, 0.02, 99.98), Sight("b", 100.0, None, 90.0)

    assert told({"1": arrived}, 101.0)["rpo_seconds"] == 0.02
    figures = told({"1": arrived, "2": late}, 101.0)
    assert figures["rpo_seconds"] == 11.0
    assert figures["not_arrived"] == ["b"]
    assert told({"1": arrived, "2": replace(late, safe_at=None)}, 101.0)["rpo_seconds"] is None


keys = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2"]))


@given(keys, keys, keys)
def test_a_key_that_changes_while_it_is_compared_says_nothing(
    before: dict[str, str], there: dict[str, str], after: dict[str, str]
) -> None:
    reason = differing("r", before, there, after)
    wrong = {key for key in before if before[key] == after.get(key) != there.get(key)}

    assert bool(reason) == bool(wrong)

"""Several sites: nobody elsewhere takes a primary's place by itself, and of two sites one may write."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redkeep.decide import lifecycle
from redkeep.decide.durability import confirmations, min_replicas, replicas_to_see
from redkeep.decide.hosts import NoPlace, Place, place
from redkeep.decide.recovery import Degraded, FailOver, GroupView, RestartPrimary, judge
from redkeep.decide.sites import (
    MARGIN,
    active_site,
    has_its_site,
    local,
    may_be_primary,
    may_write_at,
    seconds_until_fenced,
    spans_sites,
)
from redkeep.decide.topology import assignment, elsewhere, topology
from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Durability, Flavor, Host, Instance, Status
from redkeep.model.site import Backend, ReplicationStatus, ReplicationTarget, ServiceCluster, SiteFailover
from redkeep.model.topology import Role

from .strategies import group, instance
from .test_recovery import LIMITS, NOW, following, views

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a machine that is busy with other things."""

BACKEND = Backend(site="north", targets=(ReplicationTarget("dr1", "south"), ReplicationTarget("dr2", "west")))
sites = st.sampled_from(["north", "south"])


def at_sites(seen: GroupView, where: list[str]) -> GroupView:
    return replace(
        seen, instances=tuple(replace(one, site=site) for one, site in zip(seen.instances, where, strict=False))
    )


@patient
@given(views(), st.lists(sites, min_size=4, max_size=4))
def test_automatic_failover_never_leaves_the_site(seen: GroupView, where: list[str]) -> None:
    seen = at_sites(seen, where)
    verdict = judge(seen, NOW, LIMITS)

    if isinstance(verdict, FailOver):
        by_id = {one.id: one for one in seen.instances}
        assert by_id[verdict.successor_id].site == by_id[seen.group.rightful_primary_id or ""].site


@patient
@given(views(), st.lists(sites, min_size=4, max_size=4))
def test_at_a_site_that_is_not_active_nobody_is_promoted_or_opened(seen: GroupView, where: list[str]) -> None:
    seen = replace(at_sites(seen, where), sites=frozenset({"west"}))
    primary = next((one for one in seen.instances if one.id == seen.group.rightful_primary_id), None)
    verdict = judge(seen, NOW, LIMITS)

    built = primary is not None and primary.status not in (Status.BUILD, Status.SHUTDOWN) and primary.host_id
    if built and spans_sites(seen.instances):
        assert isinstance(verdict, Degraded)


def test_a_dead_primary_is_not_replaced_by_the_replica_of_another_site() -> None:
    primary = instance("p", role=Role.PRIMARY, site="north")
    remote = instance("r", replica_of="p", site="south")
    view = GroupView(
        group=group("p"),
        instances=(primary, remote),
        facts={"p": ServerFacts("p", Process.EXITED, seen_at=NOW), "r": following(remote)},
        heard={"host-p": NOW, "host-r": NOW},
    )

    assert isinstance(judge(view, NOW, LIMITS), RestartPrimary)
    near = replace(view, instances=(primary, replace(remote, site="north")))
    assert isinstance(judge(near, NOW, LIMITS), FailOver)


# --- what is acknowledged ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", range(4))
@pytest.mark.parametrize("remote", range(3))
def test_whoever_confirms_a_sync_write_a_local_failover_sees_it(replicas: int, remote: int) -> None:
    """Every set of replicas that Redis may count, against every set that a failover may see."""
    wanted = confirmations(Durability.SYNC, replicas + 1, remote)
    seen_at_least = replicas_to_see(Durability.SYNC, replicas + 1)
    everyone = [("local", n) for n in range(replicas)] + [("remote", n) for n in range(remote)]
    locals_ = everyone[:replicas]
    if replicas == 0:
        return  # nobody can take its place: the server is started again with what it has

    for confirmed in combinations(everyone, wanted):
        for seen in combinations(locals_, min(seen_at_least, replicas)):
            assert set(confirmed) & set(seen)


@given(st.sampled_from(Durability), st.integers(1, 6), st.integers(0, 4))
def test_no_more_replicas_are_asked_for_than_there_are(durability: Durability, size: int, remote: int) -> None:
    assert 0 <= min_replicas(durability, size, remote) <= size - 1 + remote
    assert 0 <= confirmations(durability, size, remote) <= size - 1 + remote


def test_without_other_sites_nothing_is_different() -> None:
    assert [min_replicas(Durability.BOUNDED, size) for size in (1, 2, 3)] == [0, 1, 1]
    assert [min_replicas(Durability.SYNC, size) for size in (1, 2, 3, 5)] == [0, 1, 1, 2]


# --- who is where -------------------------------------------------------------------------------------------------


@given(st.lists(sites, min_size=1, max_size=5))
def test_a_primary_is_told_who_is_elsewhere_and_counts_only_the_rest(where: list[str]) -> None:
    names = "pqrst"[: len(where)]
    everyone = [instance(name, site=site) for name, site in zip(names, where, strict=True)]
    told = topology("g", 1, everyone, "p")
    given_to = assignment(everyone[0], told, elsewhere(everyone, told))

    assert given_to.local_size == len(local(everyone, everyone[0]))
    assert given_to.group_size == len(everyone)
    assert bool(given_to.elsewhere) == spans_sites(everyone)


def test_a_server_goes_to_the_site_that_was_ordered_and_its_row_says_so() -> None:
    flavor = Flavor("1", "small", 64)
    hosts = [
        Host(name, "10.0.0.1", 7000, 7010, ("7.0",), 2**36, 2**36, 2**36, 0.0, site=site)
        for name, site in (("h1", "north"), ("h2", "south"))
    ]
    asked = {"version": "7.0", "flavor": flavor, "volume_gb": 1, "group_id": "g"}

    found = place(hosts, [], **asked, site="south")  # type: ignore[arg-type]
    assert isinstance(found, Place)
    assert (found.host_id, found.site) == ("h2", "south")
    nowhere = place(hosts, [], **asked, site="west")  # type: ignore[arg-type]
    assert isinstance(nowhere, NoPlace)
    assert "h1: is at site north, not west" in nowhere.reason


def test_an_owner_promotes_within_the_site_only() -> None:
    source = instance("p", role=Role.PRIMARY, site="north")
    replicas = [instance("r", replica_of="p", site="north"), instance("s", replica_of="p", site="south")]
    members = [source, *replicas]

    assert isinstance(lifecycle.may_promote(replicas[0], members), lifecycle.Allowed)
    refused = lifecycle.may_promote(replicas[1], members)
    assert isinstance(refused, lifecycle.Refusal)
    assert "failover of the whole backend" in refused.message


# --- which site may write -----------------------------------------------------------------------------------------


def cluster(
    status: ReplicationStatus, active: str = "", target: str | None = None, *, forced: bool = False
) -> ServiceCluster:
    failover = SiteFailover("f", target, forced, ReplicationStatus.ENABLED, "me", 0.0, 9.0) if target else None
    return ServiceCluster("m@redis", 0.0, replication_status=status, active_backend_id=active, failover=failover)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (cluster(ReplicationStatus.ENABLED), {"north"}),
        (cluster(ReplicationStatus.ENABLED, "", "default"), {"north"}),
        (cluster(ReplicationStatus.FAILED_OVER, "dr1", "dr1", forced=True), {"south"}),
        (cluster(ReplicationStatus.FAILING_OVER, "", "dr1"), {"north", "south"}),
        (cluster(ReplicationStatus.FAILING_OVER, "", "dr1", forced=True), {"south"}),
        (cluster(ReplicationStatus.FAILING_OVER, "dr1", "default", forced=True), {"north"}),
        (cluster(ReplicationStatus.FAILOVER_ERROR, "", "dr2"), {"north", "south", "west"}),
        (cluster(ReplicationStatus.FAILOVER_ERROR, "", "dr2", forced=True), {"north", "south", "west"}),
    ],
)
def test_where_primaries_may_write_follows_from_one_row(row: ServiceCluster, expected: set[str]) -> None:
    assert may_write_at(BACKEND, [row, replace(row, id="m@other")]) == frozenset(expected)


def test_managers_that_are_not_in_one_service_cluster_must_agree() -> None:
    here, there = cluster(ReplicationStatus.ENABLED), cluster(ReplicationStatus.FAILED_OVER, "dr1")

    assert may_write_at(BACKEND, [here, replace(there, id="other@redis")]) == frozenset()


def test_a_backend_without_targets_stops_nobody() -> None:
    assert may_write_at(Backend(), [cluster(ReplicationStatus.ENABLED)]) is None
    assert may_write_at(BACKEND, []) is None


@pytest.mark.parametrize(("active", "expected"), [(None, "north"), ("", "north"), ("dr1", "south"), ("gone", "north")])
def test_new_primaries_go_where_the_backend_is_active(active: str | None, expected: str) -> None:
    row = replace(cluster(ReplicationStatus.ENABLED), active_backend_id=active)

    assert active_site(BACKEND, [row]) == expected
    assert active_site(BACKEND, []) == "north"
    assert not active_site(Backend(), [row])


@given(st.lists(sites, min_size=1, max_size=4), st.none() | st.frozensets(sites))
def test_a_group_at_one_site_needs_no_word_for_it(where: list[str], allowed: frozenset[str] | None) -> None:
    everyone: list[Instance] = [instance("pqrs"[at], site=site) for at, site in enumerate(where)]
    may = may_be_primary(everyone[0], everyone, allowed)

    assert may == (len(set(where)) == 1 or allowed is None or where[0] in allowed)


moments = st.floats(0, 100)


@given(asked=moments, travels=st.floats(0, 5), denied_at=moments, seconds=st.floats(1, 30), reacts=st.floats(0, MARGIN))
def test_nobody_is_promoted_elsewhere_before_the_last_word_of_the_old_site_is_over(
    asked: float, travels: float, denied_at: float, seconds: float, reacts: float
) -> None:
    """The agent asks, a manager reads the row some time later and confirms what it finds there."""
    confirmed = asked + travels < denied_at
    last_write = asked + seconds + reacts if confirmed else denied_at
    promoted = denied_at + seconds_until_fenced(now=denied_at, denied_since=denied_at, site_seconds=seconds)

    assert last_write <= promoted + 1e-9
    assert not has_its_site(now=asked + seconds, site_until=asked + seconds, elsewhere=1)
    assert has_its_site(now=asked + seconds, site_until=0, elsewhere=0)


def test_who_is_being_made_elsewhere_counts_and_who_was_given_up_does_not() -> None:
    here = instance("p", role=Role.PRIMARY, site="north")
    coming = instance("r", site="south", status=Status.BUILD, address=None, host_id=None)
    given_up = replace(coming, status=Status.ERROR)

    assert spans_sites([here, coming])
    assert not spans_sites([here, given_up])

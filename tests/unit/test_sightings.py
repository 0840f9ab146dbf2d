"""What a manager makes of reports: the last word counts, and an old one does not outlive its meaning."""

from __future__ import annotations

from dataclasses import replace

from redkeep.manager.sightings import Sightings
from redkeep.model.facts import HostReport, Process, ServerFacts
from redkeep.model.topology import Role

from .strategies import HISTORY, OTHER_HISTORY, group, instance


def primary(history: str, epoch: int = 0) -> ServerFacts:
    return ServerFacts("p", Process.RUNNING, role=Role.PRIMARY, replication_id=history, epoch=epoch)


def report(*servers: ServerFacts) -> HostReport:
    return HostReport("host-p", "10.0.0.1", 7000, 7099, ("7.0",), 1, 1, 1, servers)


def test_the_history_of_an_earlier_reign_says_nothing_of_the_next_one() -> None:
    seen = Sightings(0)
    seen.see(primary(HISTORY), 1)
    assert seen.history_of("p") == HISTORY

    seen.see(ServerFacts("p", Process.RUNNING, role=Role.REPLICA, replication_id=OTHER_HISTORY), 2)

    assert seen.history_of("p") == ""


def test_a_second_reign_that_began_between_two_reports_has_no_history_yet() -> None:
    """Else its replicas, which have followed it, would be held for strangers when it dies."""
    seen = Sightings(0)
    seen.see(primary(HISTORY, epoch=3), 1)
    first, second = replace(group(), topology_epoch=3), replace(group(), topology_epoch=5)
    assert seen.view(first, (instance("p"),), 10.0).history == HISTORY

    assert seen.view(second, (instance("p"),), 10.0).history == ""

    seen.see(primary(OTHER_HISTORY, epoch=5), 2)
    assert seen.view(second, (instance("p"),), 10.0).history == OTHER_HISTORY


def test_a_primary_that_has_exited_keeps_its_history_for_those_who_judge_its_successors() -> None:
    seen = Sightings(0)
    seen.see(primary(HISTORY), 1)

    seen.see(ServerFacts("p", Process.EXITED, role=Role.PRIMARY, replication_id=HISTORY), 2)

    assert seen.history_of("p") == HISTORY


def test_who_tells_of_an_exit_has_been_heard_of() -> None:
    seen = Sightings(0)
    seen.fold(report(primary(HISTORY)), 1)

    seen.hear("host-p", 9)

    assert seen.view(group(), (instance("p"),), 10.0).heard["host-p"] == 9


def test_what_was_seen_is_what_was_seen_last() -> None:
    seen = Sightings(0)
    seen.fold(report(primary(HISTORY)), 1)
    seen.see(ServerFacts("p", Process.EXITED), 2)

    facts = seen.view(group(), (instance("p"),), 10.0).facts["p"]

    assert (facts.process, facts.seen_at) == (Process.EXITED, 2)

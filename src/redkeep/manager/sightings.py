"""What this manager has seen: the fold of all reports. In memory: a manager that starts sees it all anew at once."""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.recovery import GroupView
from redkeep.model.facts import HostReport, Process, ServerFacts
from redkeep.model.instance import Group, Instance
from redkeep.model.topology import Role

UNNAMED_LIMIT = 2.0
"""Seconds of reports without a server after which its agent does not have it."""
ANSWER_LASTS = 1.0
"""Seconds for which it counts whether a server answered, or did not."""


class Sightings:
    """Last facts by instance, last word by host, last history by primary. Times are monotonic seconds."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._facts: dict[str, ServerFacts] = {}
        self._heard: dict[str, float] = {}
        self._named: dict[str, frozenset[str]] = {}
        self._unnamed: dict[str, float] = {}
        """Since when an instance was not in its host's reports."""
        self._history: dict[str, tuple[str, int]] = {}
        """Replication id of a primary, and the epoch under which it was seen."""
        self._changed: dict[str, float] = {}
        self._failed_over: dict[str, float] = {}
        self._loading: dict[str, float] = {}
        """Since when a server has been seen to load."""
        self._answers: dict[tuple[str, str], tuple[bool, float]] = {}
        """By witness and by the host that was asked about."""
        self._outlived: dict[str, float] = {}
        """Hosts whose server answered though they had said nothing since this moment."""

    def fold(self, report: HostReport, now: float) -> None:
        """An agent's heartbeat: what it does not name, it does not have."""
        self._heard[report.host_id] = now
        self._named[report.host_id] = frozenset(facts.instance_id for facts in report.servers)
        for facts in report.servers:
            self.see(facts, now)

    def hear(self, host_id: str, now: float) -> None:
        """A word from its agent, whatever it said."""
        self._heard[host_id] = now

    def see(self, facts: ServerFacts, now: float) -> None:
        """One server."""
        self._facts[facts.instance_id] = replace(facts, seen_at=now)
        if facts.process is not Process.LOADING:
            self._loading.pop(facts.instance_id, None)
        else:
            self._loading.setdefault(facts.instance_id, now)
        if facts.process is Process.RUNNING and facts.role is Role.PRIMARY:
            self._history[facts.instance_id] = (facts.replication_id, facts.epoch)
        elif facts.role is Role.REPLICA:
            self._history.pop(facts.instance_id, None)

    def changed(self, group_id: str, now: float) -> None:
        """The group's topology has just changed."""
        self._changed[group_id] = now

    def failed_over(self, group_id: str, now: float) -> None:
        self._failed_over[group_id] = now

    def silent(self, now: float, limit: float, *, most: float = float("inf")) -> list[str]:
        """Hosts that have said nothing for longer than `limit` seconds, and for no longer than `most`."""
        silences = ((host, now - max(heard, self._since)) for host, heard in self._heard.items())
        return [host for host, silence in silences if limit < silence <= most]

    def history_of(self, instance_id: str | None, *, since_epoch: int = 0) -> str:
        """Replication id under which it was last seen as primary at that epoch or a later one; "" when it never was.

        A primary that was replaced and is primary again has another history than in its first reign, and both reigns
        may fit between two reports.
        """
        history, epoch = self._history.get(instance_id or "", ("", 0))
        return history if epoch >= since_epoch else ""

    def last_seen(self, instance_id: str) -> ServerFacts | None:
        """The last look at a server, however old."""
        return self._facts.get(instance_id)

    def facts_of(self, instance: Instance) -> ServerFacts | None:
        """The last look; ABSENT when its agent has reported for a while without it; None when nothing was heard."""
        host = instance.host_id or ""
        if host not in self._named or instance.id in self._named[host]:
            self._unnamed.pop(instance.id, None)
            return self._facts.get(instance.id)
        heard = self._heard[host]
        if heard - self._unnamed.setdefault(instance.id, heard) < UNNAMED_LIMIT:
            return self._facts.get(instance.id)  # so new that the last heartbeat is from before it
        return ServerFacts(instance.id, Process.ABSENT, seen_at=heard)

    def answered(self, witness_id: str, host_id: str, answers: bool, now: float) -> None:
        """The host of a replica was asked whether the server of its primary, on `host_id`, answers there."""
        self._answers[witness_id, host_id] = (answers, now)
        if answers and now - self._heard.get(host_id, self._since) > ANSWER_LASTS:
            self._outlived[host_id] = self._heard.get(host_id, self._since)

    def _answers_about(self, host_id: str | None, instances: tuple[Instance, ...], now: float) -> dict[str, bool]:
        asked = {one.id: self._answers.get((one.id, host_id or "")) for one in instances}
        return {name: said[0] for name, said in asked.items() if said and now - said[1] <= ANSWER_LASTS}

    def view(self, group: Group, instances: tuple[Instance, ...], now: float, *, paused: bool = False) -> GroupView:
        never = float("-inf")
        host = next((one.host_id or "" for one in instances if one.id == group.rightful_primary_id), "")
        return GroupView(
            group=group,
            instances=instances,
            facts={one.id: facts for one in instances if (facts := self.facts_of(one))},
            heard=self._heard,
            history=self.history_of(group.rightful_primary_id, since_epoch=group.topology_epoch),
            last_failover=self._failed_over.get(group.id, never),
            changed_at=self._changed.get(group.id, never),
            paused=paused,
            watching_since=self._since,
            answers=self._answers_about(host, instances, now),
            loading_since=self._loading.get(group.rightful_primary_id or "", float("inf")),
            outlived=host in self._outlived and self._outlived[host] == self._heard.get(host, self._since),
        )

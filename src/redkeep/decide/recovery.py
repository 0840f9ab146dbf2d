"""What to do about a group, given what was seen of its servers: the whole of automatic failover, as one pure function.

It refuses to act on silence alone. A silent host is doubted first: the hosts of its replicas are asked whether its
server answers them. If nobody can reach it, it is replaced as lost; if it answers, its agent alone is away, and after
more patience its server is fenced from one of those hosts (`TakeOver`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from redkeep.decide.durability import promised, replicas_to_see
from redkeep.decide.fencing import ON_THE_WAY, may_replace, sure_size
from redkeep.decide.promotion import NobodyFit, most_current
from redkeep.decide.sites import local, may_be_primary
from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Group, Instance, Status
from redkeep.model.topology import Role

PING_PERIOD = 1.0
"""Seconds between two pings of a primary to its replicas (`repl-ping-replica-period`)."""
ROUNDING = 1.0
"""Redis counts the age of the last I/O in whole seconds of its clock: what says 2 may be hardly more than 1."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient automatic failover is. Seconds."""

    doubt: float = 0.75
    """When the host of a primary has said nothing for so long, its replicas' hosts are asked about it."""
    silence: float = 1.25
    """A host that has said nothing for so long is silent: two heartbeats are missing."""
    orphan: float = 5.0
    """A primary that serves while its agent has said nothing for so long is taken over: it could not be fenced, watched
    or started again. More than it takes to start an agent again, and than any word lasts."""
    loading: float = 600.0
    """A primary that has been loading its data for longer is replaced, if somebody is fit to."""
    settle: float = 1.0
    """So long after a change, sights may still be from before it."""
    cool_down: float = 5.0
    """After a failover a group is left alone for so long, unless its process is known to be dead."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """What is known of one group at one moment."""

    group: Group
    instances: tuple[Instance, ...]
    """Those that are not deleted."""
    facts: Mapping[str, ServerFacts] = field(default_factory=dict)
    """The last look at each server, by instance."""
    heard: Mapping[str, float] = field(default_factory=dict)
    """When each host was last heard of, on the clock of `now`."""
    history: str = ""
    """Replication id that the primary had when it was last seen."""
    last_failover: float = float("-inf")
    changed_at: float = float("-inf")
    """When an operation last changed the group: older sights of its servers say nothing about their place in it."""
    paused: bool = False
    """The operator has switched automatic failover off, everywhere."""
    watching_since: float = float("-inf")
    """When this view began: silence is counted from then at the earliest."""
    sites: frozenset[str] | None = None
    """Where primaries of groups with members at several sites may write; None: everywhere."""
    answers: Mapping[str, bool] = field(default_factory=dict)
    """By replica, whether the primary's server has just answered its host; those that were not asked are left out."""
    loading_since: float = float("inf")
    """Since when the primary has been seen to load, without a break."""
    outlived: bool = False
    """Its server has answered since its host was last heard of: its agent is gone, and fences nobody."""


@dataclass(frozen=True, slots=True)
class Healthy:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class FailOver:
    """The primary is gone; this one takes its place. `proven`: the kernel of its host says that it is dead."""

    successor_id: str
    reason: str
    proven: bool
    agent_gone: bool = False
    """Its agent was gone before its host was: if it lives on behind a partition, it fences itself or nobody does."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The agent of the primary is gone, its server is not: fence that from the successor's host, then promote."""

    successor_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """The host of the primary is silent: ask these, who follow it, whether its server answers; then judge again."""

    witness_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class RestartPrimary:
    """The primary is dead and nobody can take its place: start it again where it was, with the data it has."""

    reason: str


@dataclass(frozen=True, slots=True)
class Realign:
    """These servers are not what the store says they are: bring them back into their role."""

    instance_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Degraded:
    """Something is wrong that time or a person has to mend; acting now could make it worse."""

    reason: str


Verdict = Healthy | FailOver | TakeOver | Doubt | RestartPrimary | Realign | Degraded


def judge(view: GroupView, now: float, limits: Limits) -> Verdict:
    """What to do about the group at `now` (monotonic seconds of the manager)."""
    if view.paused or view.group.paused:
        return Degraded("automatic failover is paused by the operator")
    primary = next((one for one in view.instances if one.id == view.group.rightful_primary_id), None)
    if primary is None or primary.status in (Status.BUILD, Status.SHUTDOWN) or primary.host_id is None:
        return Healthy()  # an operation is about to make, or unmake, it
    if not may_be_primary(primary, view.instances, view.sites):
        return Degraded(f"{primary.name} is at site {primary.site}, which is not active")
    facts = view.facts.get(primary.id)
    if facts is not None and _is_gone(view, facts, limits):
        return _replace_dead(view, primary, facts, now, limits)
    if facts is not None and facts.process is Process.LOADING and now - view.loading_since > limits.loading:
        return _replace_loading(view, primary, now, limits)
    silence = _silence(view, primary.host_id, now)
    if silence > limits.doubt and not view.answers and (asked := _witnesses(view, primary, now, limits)):
        return Doubt(asked, f"the host of {primary.name} has said nothing for {silence:.1f} s")
    if silence > limits.silence:
        return _replace_silent(view, primary, now, limits)
    return _realign(view, primary, now, limits)


def standing_by(view: GroupView, primary: Instance) -> tuple[ServerFacts, ...]:
    """What was seen of the replicas that may take its place: those at its site that are not still being built."""
    present = (one for one in _members(view, primary) if one.id != primary.id)
    return tuple(view.facts[one.id] for one in present if one.id in view.facts)


def _members(view: GroupView, primary: Instance) -> list[Instance]:
    everyone = local(view.instances, primary)
    return [one for one in everyone if one.status not in (Status.BUILD, Status.SHUTDOWN)]


def _quorum(view: GroupView, primary: Instance) -> int:
    return replicas_to_see(promised(view.group, primary), len(_members(view, primary)))


def _is_gone(view: GroupView, facts: ServerFacts, limits: Limits) -> bool:
    """An exit is told once it has happened; that an agent does not name a server may be older than the server."""
    unnamed = facts.process is Process.ABSENT and facts.seen_at > view.changed_at + limits.settle
    return facts.process is Process.EXITED or unnamed


def _replace_dead(view: GroupView, primary: Instance, facts: ServerFacts, now: float, limits: Limits) -> Verdict:
    """What was seen of a replica long ago says nothing: its whole host may be gone by now."""
    heard = {one.id for one in view.instances if _silence(view, one.host_id, now) <= limits.silence}
    present = [one for one in standing_by(view, primary) if one.instance_id in heard]
    chosen = most_current(present, history=view.history, quorum=_quorum(view, primary))
    if isinstance(chosen, NobodyFit):
        if unseen := [one.name for one in _members(view, primary) if one.id in heard and one.id not in view.facts]:
            return Degraded(f"{primary.name} is {facts.process}, and nothing was seen yet of {', '.join(unseen)}")
        return RestartPrimary(f"{primary.name} is {facts.process} and nobody can take its place: {chosen.reason}")
    return FailOver(
        chosen.instance_id,
        f"{primary.name} is {facts.process} ({facts.detail}); {chosen.reason}",
        proven=facts.process is Process.EXITED,
    )


def _replace_loading(view: GroupView, primary: Instance, now: float, limits: Limits) -> Verdict:
    """It refuses writes until it is told its role. What else its agent knows is not certain: its word is waited out."""
    busy = f"{primary.name} has been loading its data for {now - view.loading_since:.0f} s"
    heard = {one.id for one in view.instances if _silence(view, one.host_id, now) <= limits.silence}
    present = [one for one in standing_by(view, primary) if one.instance_id in heard]
    chosen = most_current(present, history=view.history, quorum=_quorum(view, primary))
    if isinstance(chosen, NobodyFit) or now - view.last_failover < limits.cool_down:
        return Degraded(f"{busy}, and nobody can take its place")
    return FailOver(chosen.instance_id, f"{busy}; {chosen.reason}", proven=False)


def _replace_silent(view: GroupView, primary: Instance, now: float, limits: Limits) -> Verdict:
    silent = f"the host of {primary.name} has said nothing for {_silence(view, primary.host_id, now):.1f} s"
    if any(view.answers.values()):
        return _take_over(view, primary, silent, now, limits)
    witnesses = [facts for facts in standing_by(view, primary) if _lost_primary(view, facts, now, limits)]
    around = local(view.instances, primary)
    followers = [one for one in around if one.id != primary.id and _may_follow(view, one, now, limits)]
    if not may_replace(group_size=sure_size(around), may_still_follow=len(followers)):
        return Degraded(f"{silent}, but its replicas may still follow it")
    if now - view.last_failover < limits.cool_down:
        return Degraded(f"{silent}, and the group has failed over a moment ago")
    chosen = most_current(witnesses, history=view.history, quorum=_quorum(view, primary))
    if isinstance(chosen, NobodyFit):
        return Degraded(f"{silent}, and nobody can take its place: {chosen.reason}")
    reason = f"{silent} and its replicas have lost it; {chosen.reason}"
    return FailOver(chosen.instance_id, reason, proven=False, agent_gone=view.outlived)


def _witnesses(view: GroupView, primary: Instance, now: float, limits: Limits) -> tuple[str, ...]:
    """The replicas of which something was heard lately: their hosts can say whether the primary's server answers."""
    lately = {one.id for one in view.instances if _silence(view, one.host_id, now) <= limits.doubt}
    return tuple(facts.instance_id for facts in standing_by(view, primary) if facts.instance_id in lately)


def _take_over(view: GroupView, primary: Instance, silent: str, now: float, limits: Limits) -> Verdict:
    """Its server answers somebody: only its agent is away, and may be back in a moment."""
    if _silence(view, primary.host_id, now) <= limits.orphan:
        return Degraded(f"{silent}, but its server answers")
    if now - view.last_failover < limits.cool_down:
        return Degraded(f"{silent}, its server answers, and the group has failed over a moment ago")
    near = [facts for facts in standing_by(view, primary) if view.answers.get(facts.instance_id)]
    chosen = most_current(near, history=view.history, quorum=_quorum(view, primary))
    if isinstance(chosen, NobodyFit):
        return Degraded(f"{silent}, its server answers, and nobody can take its place: {chosen.reason}")
    return TakeOver(chosen.instance_id, f"{silent} though its server answers: its agent is gone")


def _may_follow(view: GroupView, one: Instance, now: float, limits: Limits) -> bool:
    """Whether it may acknowledge to the silent primary, as far as we know."""
    if one.host_id is None:
        return False
    facts = view.facts.get(one.id)
    if facts is None:
        return True
    gone = facts.process in (Process.EXITED, Process.ABSENT) and _silence(view, one.host_id, now) <= limits.silence
    return not _lost_primary(view, facts, now, limits) and not (gone and one.status in ON_THE_WAY)


def _lost_primary(view: GroupView, facts: ServerFacts, now: float, limits: Limits) -> bool:
    """A replica that was heard of lately, and hears nothing of its primary.

    When a host vanishes without a word its connections stay "up" for a minute, so silence on the link counts as well,
    and so does a host that could not reach the primary's server when it was asked to.
    """
    instance = next(one for one in view.instances if one.id == facts.instance_id)
    if not facts.alive or _silence(view, instance.host_id, now) > limits.silence:
        return False
    link = facts.upstream
    if link is None or not link.link_up or view.answers.get(facts.instance_id) is False:
        return True
    return link.last_io_seconds > limits.silence + PING_PERIOD + ROUNDING


def _realign(view: GroupView, primary: Instance, now: float, limits: Limits) -> Verdict:
    if not all(one.status.steady for one in view.instances):
        return Healthy()  # an operation is at work on the group, and will leave it in order
    astray = tuple(
        one.id
        for one in view.instances
        if one.id in view.facts
        and view.facts[one.id].seen_at > view.changed_at + limits.settle
        and _silence(view, one.host_id, now) <= limits.silence
        and _is_astray(one, view.facts[one.id], primary, view.group.topology_epoch)
    )
    return Realign(astray, "not in the role that the store gives them") if astray else Healthy()


def _is_astray(instance: Instance, facts: ServerFacts, primary: Instance, topology_epoch: int) -> bool:
    if facts.process in (Process.LOADING, Process.HUNG):
        return False  # the one is on its way; the other is killed by its agent when it stays so
    if instance.id == primary.id:
        return facts.role is not Role.PRIMARY or facts.fenced
    follows = facts.upstream.primary if facts.upstream else None
    if not facts.alive:
        uninformed = facts.epoch < topology_epoch  # its agent may take it for a primary still, and await a word
        return facts.process is Process.ABSENT or uninformed  # else one that has exited is started by its agent
    return facts.role is not Role.REPLICA or follows != primary.address


def _silence(view: GroupView, host_id: str | None, now: float) -> float:
    return now - max(view.heard.get(host_id or "", float("-inf")), view.watching_since)

"""What to do about a cluster, given what was seen of its members: automatic failover and repair, as one pure function.

In a cluster Redis itself is the truth about who is primary and who owns what. What is decided here helps it along: a
death that the kernel has told of needs no time-out and no votes, and what Redis does not mend by itself is mended. It
refuses to act on silence: for that the members have their own majority.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redkeep.decide.agreement import prevailing
from redkeep.decide.durability import replicas_to_see
from redkeep.decide.promotion import Chosen, NobodyFit, most_current
from redkeep.decide.recovery import Degraded, GroupView, Healthy, Limits
from redkeep.model.facts import OpenSlots, Process, ServerFacts
from redkeep.model.instance import Durability, Instance, Status
from redkeep.model.slots import ClusterView, Ranges
from redkeep.model.topology import Role

NOT_YET = (Status.BUILD, Status.SHUTDOWN)
LOST = 5
"""Times the silence of a host after which a cluster of which nothing is seen counts as lost."""


@dataclass(frozen=True, slots=True)
class FailOverShards:
    """These primaries are dead, as the kernels of their hosts say, and each has a replica that may take its place."""

    dead: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Restart:
    """These members do not run, and nobody is to take their place, or somebody has: start them where they were."""

    instance_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Mend:
    """The cluster works, but not all is as it should be: what Redis does not mend by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """Redis has elected: these are the roles now, by instance."""

    roles: Mapping[str, Role]
    reason: str


Verdict = Healthy | FailOverShards | Restart | Mend | Adopt | Degraded


def judge_cluster(view: GroupView, now: float, limits: Limits) -> Verdict:
    """What to do about a cluster that was formed, at `now` (monotonic seconds of the manager)."""
    if view.paused or view.group.paused:
        return Degraded("automatic failover is paused by the operator")
    members = {one.id: one for one in view.instances if one.node_id is not None and one.status not in NOT_YET}
    heard = {
        name: view.facts[name]
        for name, one in members.items()
        if name in view.facts and now - max(view.heard.get(one.host_id or "", 0), view.watching_since) <= limits.silence
    }
    truth = prevailing(heard)
    dead = [name for name, facts in heard.items() if _died_since(facts, view.changed_at, limits.settle)]
    if dead and (verdict := _about_the_dead(dead, members, heard, truth, view)):
        return verdict
    if reason := _down(heard, truth):
        return Degraded(reason)
    if not heard and members and now - view.watching_since > LOST * limits.silence:
        return Degraded("nothing is seen of any member")
    fresh = all(one.seen_at > view.changed_at + limits.settle for one in heard.values())
    if not fresh or not all(one.status.steady for one in members.values()):
        return Healthy()  # an operation is at work on it, or has just been
    roles = {name: role for name, one in members.items() if (role := role_of(one, truth)) and role is not one.role}
    if roles and not dead:
        return Adopt(roles, "the members have elected")
    reason = what_to_mend(members, heard, truth)
    return Mend(reason) if reason else Healthy()


def is_dead(facts: ServerFacts) -> bool:
    """Its agent says that there is no process: proof, since the kernel told it."""
    return facts.process in (Process.EXITED, Process.ABSENT)


def _died_since(facts: ServerFacts, changed_at: float, settle: float) -> bool:
    """What was seen before the last change says nothing: it may have been started by that. That an agent does not name
    a server may be older than the server."""
    return is_dead(facts) and facts.seen_at > changed_at + (settle if facts.process is Process.ABSENT else 0)


def role_of(member: Instance, truth: ClusterView) -> Role | None:
    """What the cluster says that it is; None when it says nothing of it, or has given it up: it cannot know yet what it
    is then."""
    found = next((one for one in truth.members if one.id == member.node_id), None)
    if found is None or (found.primary_id is None and not found.ranges and member.role is Role.REPLICA):
        return None
    return Role.PRIMARY if found.primary_id is None else Role.REPLICA


def owns(truth: ClusterView, node_id: str | None) -> Ranges:
    """The slots of a node, as the cluster has it."""
    return next((one.ranges for one in truth.members if one.id == node_id), ())


def successor(
    dead: Instance, members: Iterable[Instance], facts: Mapping[str, ServerFacts], truth: ClusterView, quorum: int
) -> Chosen | NobodyFit:
    """Who takes the place of a dead primary: of those who follow it, the one that has most of its history."""
    last = facts.get(dead.id)
    history = last.replication_id if last is not None and last.role is Role.PRIMARY else ""
    following = {one.id for one in truth.members if one.primary_id == dead.node_id}
    replicas = [facts[one.id] for one in members if one.id in facts and _node_id(facts[one.id]) in following]
    return most_current(replicas, history=history, quorum=quorum)


def quorum(members: Iterable[Instance], dead: Instance, durability: Durability) -> int:
    """How many fit replicas of its shard must be seen so that the best of them has all that was promised."""
    shard = [one for one in members if one.shard == dead.shard and one.status not in NOT_YET]
    return replicas_to_see(durability, len(shard))


def marks_to_inherit(dead: Instance, facts: Mapping[str, ServerFacts]) -> tuple[OpenSlots, OpenSlots]:
    """The slots that were half-way with a dead primary, by the word of those on the other side: what its successor is
    giving away, and what it is being given."""
    alive = [one.cluster for one in facts.values() if one.alive and one.cluster and one.cluster.primary_id is None]
    giving = {slot: one.node_id for one in alive for slot, node_id in one.importing if node_id == dead.node_id}
    taking = {slot: one.node_id for one in alive for slot, node_id in one.migrating if node_id == dead.node_id}
    return tuple(sorted(giving.items())), tuple(sorted(taking.items()))


def what_to_mend(members: Mapping[str, Instance], facts: Mapping[str, ServerFacts], truth: ClusterView) -> str | None:
    """The first thing that Redis will not mend by itself; None when there is nothing."""
    alive = {name: one.cluster for name, one in facts.items() if one.alive and one.cluster is not None}
    for name, said in alive.items():
        if said.node_id != members[name].node_id:
            return f"{members[name].name} came back as somebody else"
        if said.primary_id is None and (said.migrating or said.importing):
            return f"slots of {members[name].name} are half-way"
    places = {alive[name].node_id: members[name].address for name in alive}
    for name, said in alive.items():
        known = {one.id: one.address for one in said.view.members}
        if astray := [node_id for node_id, place in places.items() if known.get(node_id) != place]:
            return f"{members[name].name} does not know where {len(astray)} of the members are"
        strangers = set(known) | set(said.nameless)
        if foreign := strangers - {one.node_id for one in members.values()}:
            return f"{members[name].name} knows {len(foreign)} that are no members"
    if lonely := [one.name for one in members.values() if one.id in alive and _follows_nobody(one, members, truth)]:
        return f"{lonely[0]} belongs to a shard that has another primary"
    return None


def _follows_nobody(one: Instance, members: Mapping[str, Instance], truth: ClusterView) -> bool:
    """A primary without slots in a shard whose slots another one has."""
    found = next((node for node in truth.members if node.id == one.node_id), None)
    if found is None or found.primary_id is not None or found.ranges:
        return False
    return any(other.shard == one.shard and owns(truth, other.node_id) for other in members.values())


def _about_the_dead(
    dead: list[str],
    members: Mapping[str, Instance],
    facts: Mapping[str, ServerFacts],
    truth: ClusterView,
    view: GroupView,
) -> Verdict | None:
    replaceable, reasons, others = [], [], []
    for name in dead:
        one = members[name]
        if owns(truth, one.node_id):
            found = successor(one, members.values(), facts, truth, quorum(members.values(), one, view.group.durability))
            if isinstance(found, Chosen):
                replaceable.append(name)
                reasons.append(f"{one.name} is {facts[name].process} ({facts[name].detail}); {found.reason}")
                continue
            reasons.append(f"nobody can take the place of {one.name}: {found.reason}")
        others.append(name)
    if replaceable:
        return FailOverShards(tuple(replaceable), "; ".join(reasons))
    names = ", ".join(members[name].name for name in others)
    return Restart(tuple(others), "; ".join(reasons) or f"{names} ended") if others else None


def _down(facts: Mapping[str, ServerFacts], truth: ClusterView) -> str | None:
    """Whether the cluster cannot help itself."""
    alive = [one.cluster for one in facts.values() if one.alive and one.cluster is not None]
    if not alive or any(one.state_ok for one in alive):
        return None
    present = {one.node_id for one in alive}
    owners = [one for one in truth.members if one.ranges]
    lost = [one for one in owners if one.id not in present]
    if 2 * len(lost) >= len(owners) and lost:
        return (
            f"{len(lost)} of {len(owners)} primaries are out of sight: the members cannot elect, and without proof "
            "that those are dead nobody takes their place unless an administrator says so"
        )
    return None


def _node_id(facts: ServerFacts) -> str:
    return facts.cluster.node_id if facts.cluster else ""

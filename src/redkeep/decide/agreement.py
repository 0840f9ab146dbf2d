"""Whether the members of a cluster agree: what is waited for instead of seconds.

The classic failure is to go on too early: a member that does not know yet who owns a slot, or who is primary, refuses
or undoes what comes next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from redkeep.model.facts import ServerFacts
from redkeep.model.slots import SLOTS, ClusterView, Member, Ranges, as_ranges, slots_in


def disagreement(
    facts: Mapping[str, ServerFacts], expected: Collection[str], *, gone: Collection[str] = (), covering: bool = True
) -> str | None:
    """What keeps these instances from being one cluster that works; None when nothing does.

    They must all have been looked at, be well, know each other and nobody else (but for node ids that are `gone`),
    agree on every primary and every slot, have no slot half-way, and every replica must hear its primary. With
    `covering` all slots have an owner.
    """
    if unseen := sorted(set(expected) - set(facts)):
        return f"nothing is seen of {', '.join(unseen)}"
    members = {name: facts[name] for name in sorted(expected)}
    for name, one in members.items():
        if reason := _unwell(one):
            return f"{name} {reason}"
    node_ids = {one.cluster.node_id for one in members.values() if one.cluster}
    views = {name: one.cluster.view for name, one in members.items() if one.cluster}
    for name, view in views.items():
        known = {one.id for one in view.members} - set(gone)
        if known != node_ids:
            return (
                f"{name} knows {len(known & node_ids)} of {len(node_ids)} members, and {len(known - node_ids)} others"
            )
        if failed := [one for one in view.members if one.failed and one.id in node_ids]:
            return f"{name} calls {failed[0].address} failed"
    shapes = {name: shape(view, node_ids) for name, view in views.items()}
    first = next(iter(shapes), "")
    if differing := [name for name, found in shapes.items() if found != shapes[first]]:
        return f"{differing[0]} and {first} differ about who is who or owns what"
    covered = next(iter(views.values())).covered if views else 0
    return f"{SLOTS - covered} slots have no owner" if covering and covered < SLOTS else None


Shape = frozenset[tuple[str, str, str | None, Ranges]]


def shape(view: ClusterView, among: Collection[str]) -> Shape:
    """What members must agree on: who is where, who follows whom, who owns what."""
    return frozenset((one.id, str(one.address), one.primary_id, one.ranges) for one in view.members if one.id in among)


def prevailing(facts: Mapping[str, ServerFacts]) -> ClusterView:
    """What is true of a cluster as far as its members can tell: of each node its own word, if it was looked at, and of
    the others what the one says that has seen the highest epoch. Of two who claim a slot the higher epoch has it."""
    said = [one.cluster for one in facts.values() if one.alive and one.cluster is not None]
    if not said:
        return ClusterView()
    best = max(said, key=lambda one: (one.state_ok, one.epoch, one.view.epoch, one.node_id))
    own = {one.node_id: me for one in said for me in one.view.members if me.id == one.node_id}
    members = [own.get(one.id, one) for one in best.view.members]
    known = {one.id for one in members}
    members += [me for node_id, me in own.items() if node_id not in known]
    return ClusterView(tuple(_without_lost(one, members) for one in members))


def _without_lost(one: Member, members: list[Member]) -> Member:
    """A member without the slots that another claims under a higher epoch: it has not heard of it yet."""
    above = [
        pair
        for other in members
        if other.id != one.id and other.primary_id is None and (other.epoch, other.id) > (one.epoch, one.id)
        for pair in other.ranges
    ]
    if not any(first <= high and low <= last for first, last in one.ranges for low, high in above):
        return one
    return replace(one, ranges=as_ranges(set(slots_in(one.ranges)) - set(slots_in(above))))


def _unwell(one: ServerFacts) -> str | None:
    if not one.alive:
        return f"is {one.process}"
    if one.cluster is None:
        return "is no member of a cluster"
    if not one.cluster.state_ok:
        return "says that the cluster is down"
    if one.cluster.shaking:
        return "is still being introduced to others"
    if one.cluster.migrating or one.cluster.importing:
        return "has slots that are half-way"
    if one.cluster.primary_id is not None and (one.upstream is None or not one.upstream.link_up):
        return "does not hear its primary"
    return None

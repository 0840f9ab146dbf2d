"""How servers become one cluster: what each still has to be told, given what all of them say.

The same answer serves the first forming, members that join later, and members that have to be introduced anew. It is
asked again after every look, so a server that died and came back in the middle needs no case of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redkeep.model.cluster_orders import (
    ClusterAddSlots,
    ClusterMeet,
    ClusterOrder,
    ClusterPrepare,
    ClusterReplicate,
)
from redkeep.model.facts import ClusterFacts, ServerFacts
from redkeep.model.slots import Ranges, as_ranges, slots_in
from redkeep.model.topology import Address

FORMING_TIMEOUT_MS = 500
"""`cluster-node-timeout` while a cluster is formed. Members ping each other twice in that time, so what one knows all
know soon; and an owner of slots that was alone waits this long, 0.5 s at the least, before it takes commands."""
PATIENT_TIMEOUT_MS = 3000
"""The same, once forming has taken longer than it should: on a starved machine short time-outs do harm."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a server is to be in the cluster."""

    instance_id: str
    group_id: str
    address: Address
    config_epoch: int
    """Distinct for each: equal ones are settled by the members among themselves, in their own time."""
    ranges: Ranges = ()
    """Slots that it is to own, unless somebody does."""
    follows: str | None = None
    """Instance id of the primary that it is to replicate; None for a primary."""


def preparations(places: Sequence[Place], epoch: int, node_timeout_ms: int) -> tuple[ClusterOrder, ...]:
    """What each is told before any of them knows another."""
    return tuple(
        ClusterPrepare(one.instance_id, one.group_id, epoch, one.config_epoch, one.ranges, node_timeout_ms)
        for one in places
    )


def introductions(
    places: Sequence[Place], facts: Mapping[str, ServerFacts], epoch: int, among: frozenset[str] | None = None
) -> tuple[ClusterOrder, ...]:
    """Who has to be introduced to whom: every two that do not know each other at their present address.

    One of both is told. With `among` only those that one of these takes part in.
    """
    told = []
    for at, one in enumerate(places):
        others = places[at + 1 :]
        if among is not None and one.instance_id not in among:
            others = [other for other in others if other.instance_id in among]
        mine = _cluster(facts, one)
        strangers = [
            other.address for other in others if not _know_each_other(mine, one, _cluster(facts, other), other)
        ]
        if mine is not None and strangers:
            told.append(ClusterMeet(one.instance_id, one.group_id, epoch, tuple(strangers)))
    return tuple(told)


def adjustments(places: Sequence[Place], facts: Mapping[str, ServerFacts], epoch: int) -> tuple[ClusterOrder, ...]:
    """What they can be told by now: replicas whom to follow, owners which slots nobody has."""
    told: list[ClusterOrder] = []
    node_ids = {name: one.cluster.node_id for name, one in facts.items() if one.cluster is not None}
    for one in places:
        mine = _cluster(facts, one)
        if mine is None:
            continue
        wanted = node_ids.get(one.follows or "")
        if wanted and mine.primary_id != wanted and not mine.ranges and _is_primary(mine, wanted):
            told.append(ClusterReplicate(one.instance_id, one.group_id, epoch, wanted))
        if one.follows is None and mine.primary_id is None and (lacking := _unowned(one, mine)):
            told.append(ClusterAddSlots(one.instance_id, one.group_id, epoch, lacking))
    return tuple(told)


def _cluster(facts: Mapping[str, ServerFacts], one: Place) -> ClusterFacts | None:
    found = facts.get(one.instance_id)
    return found.cluster if found is not None and found.alive else None


def _know_each_other(mine: ClusterFacts | None, me: Place, theirs: ClusterFacts | None, them: Place) -> bool:
    if mine is None or theirs is None:
        return False
    return _knows(mine, theirs.node_id, them.address) and _knows(theirs, mine.node_id, me.address)


def _knows(facts: ClusterFacts, node_id: str, address: Address) -> bool:
    return any(one.id == node_id and one.address == address for one in facts.view.members)


def _is_primary(facts: ClusterFacts, node_id: str) -> bool:
    """As it sees it: Redis lets nobody replicate a replica."""
    return any(one.id == node_id and one.primary_id is None for one in facts.view.members)


def _unowned(one: Place, mine: ClusterFacts) -> Ranges:
    """Slots of its that nobody owns as far as it knows, once it knows anybody: before that it is prepared."""
    if len(mine.view.members) < 2:
        return ()
    owned = {slot for other in mine.view.members for slot in slots_in(other.ranges)}
    return as_ranges(set(slots_in(one.ranges)) - owned)

"""What becomes of slots that were left half-way between two members: found by their marks, and finished forwards.

Keys of such a slot may be on either side. The owner's side is looked at first by every client, so what is left there is
handed over to the one that has the rest. A mark whose other side is away waits for it: closing it would make the keys
that are there unreachable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redkeep.model.facts import ClusterFacts, ServerFacts
from redkeep.model.slots import ClusterView, slots_in


@dataclass(frozen=True, slots=True)
class Finish:
    """The source, which owns them, hands what it has of these slots to the target. By instance."""

    source: str
    target: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """These slots are not open at this instance: it has no part in them (any more)."""

    instance_id: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Await:
    """The other side of these slots is away."""

    instance_id: str
    slots: tuple[int, ...]


Todo = Finish | Close | Await


def to_finish(facts: Mapping[str, ServerFacts], truth: ClusterView, shards: Mapping[str, str]) -> tuple[Todo, ...]:
    """What to do about every open slot. `shards`: the shard of each node id that is still a member's."""
    primaries = {
        name: one.cluster for name, one in facts.items() if one.alive and one.cluster and one.cluster.primary_id is None
    }
    owners = {slot: one.id for one in truth.members for slot in slots_in(one.ranges)}
    names = {one.node_id: name for name, one in primaries.items()}
    # where two of a shard call themselves primary, the one with slots is
    ordered = sorted(primaries.values(), key=lambda one: bool(one.ranges))
    leads = {shards[one.node_id]: one.node_id for one in ordered if one.node_id in shards}
    opened = {slot for one in primaries.values() for slot, _ in (*one.migrating, *one.importing)}
    found: dict[tuple[type, str, str], list[int]] = {}
    for slot in sorted(opened):
        for todo in _about(slot, owners.get(slot), primaries, names, leads, shards):
            found.setdefault(todo, []).append(slot)
    return tuple(_todo(kind, who, whom, tuple(slots)) for (kind, who, whom), slots in found.items())


def _todo(kind: type, who: str, whom: str, slots: tuple[int, ...]) -> Todo:
    if kind is Finish:
        return Finish(who, whom, slots)
    return Close(who, slots) if kind is Close else Await(who, slots)


def _about(
    slot: int,
    owner: str | None,
    primaries: Mapping[str, ClusterFacts],
    names: Mapping[str, str],
    leads: Mapping[str, str],
    shards: Mapping[str, str],
) -> list[tuple[type, str, str]]:
    """In terms of instances; a slot is finished with one, and closed with whoever else has a mark."""
    taking = [one.node_id for one in primaries.values() if slot in dict(one.importing)]
    giving = {one.node_id: dict(one.migrating)[slot] for one in primaries.values() if slot in dict(one.migrating)}
    if owner is None or owner not in names:
        return [(Await, names[node_id], "") for node_id in (*taking, *giving)]
    todo: list[tuple[type, str, str]] = [(Close, names[node_id], "") for node_id in giving if node_id != owner]
    if owner in taking:  # it was given the slot, and has not heard that this is over
        todo.append((Close, names[owner], ""))
        taking.remove(owner)
    if owner in giving:
        named = giving[owner]
        target = named if named in taking else leads.get(shards.get(named, ""))
        if target is None and named in shards:
            return [*todo, (Await, names[owner], "")]
        if target is None or target == owner:
            return [*todo, (Close, names[owner], "")]
        return [*todo, (Finish, names[owner], names[target])]
    return [*todo, *((Finish, names[owner], names[node_id]) for node_id in taking[:1])]

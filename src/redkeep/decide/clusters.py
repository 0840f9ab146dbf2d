"""What an owner may ask of a cluster, and what its new members are: the rules of sections 0 and 6.4 of the contract.

Pure, as `decide/lifecycle.py` is. The cluster's task is the lock: whatever would step over it is refused as busy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from redkeep.decide.lifecycle import Allowed, Refusal, UnderWay
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.facts import ClusterFacts, ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Role

MOST_REPLICAS = 3
"""Replicas that a shard may have."""

MOST_DIGITS = 9
"""A longer number in a name that somebody chose is no number of ours."""

MEMBER_OF_A_CLUSTER = "Operation not supported for instances that are part of a cluster."


@dataclass(frozen=True, slots=True)
class NewMember:
    """A server that is to be made."""

    name: str
    shard: str
    role: Role


# --- What there will be ---------------------------------------------------------------------------------------------


def new_shards(cluster: Cluster, members: Collection[Instance], names: Sequence[str | None]) -> tuple[NewMember, ...]:
    """One shard for each name, in that order, with as many replicas as the cluster's shards have.

    None: a name is made, `<cluster>-member-<n>`. Numbers go on from all that were ever given, so that no name of the
    cluster comes twice, and pass over names that somebody chose; the labels of shards go on from those that are there.
    """
    made = _made_up(cluster, {one.name for one in members} | {name for name in names if name})
    first = 1 + max((int(one.shard) for one in members if one.shard and one.shard.isdecimal()), default=0)
    shards = [str(first + place) for place in range(len(names))]
    primaries = [NewMember(name or next(made), shard, Role.PRIMARY) for name, shard in zip(names, shards, strict=True)]
    replicated = [shard for shard in shards for _ in range(cluster.replicas_per_shard)]
    replicas = [NewMember(next(made), shard, Role.REPLICA) for shard in replicated]
    return (*primaries, *replicas)


def new_replicas(cluster: Cluster, members: Collection[Instance], wanted: int) -> tuple[NewMember, ...]:
    """What shards lack to have so many replicas each."""
    lacking = [shard for shard, present in _replicas_by_shard(members).items() for _ in range(wanted - len(present))]
    made = _made_up(cluster, {one.name for one in members})
    return tuple(NewMember(next(made), shard, Role.REPLICA) for shard in lacking)


def surplus_replicas(members: Collection[Instance], wanted: int) -> tuple[str, ...]:
    """Those that shards have beyond so many: the youngest go, those in ERROR first."""
    return tuple(
        one.id
        for present in _replicas_by_shard(members).values()
        for one in sorted(present, key=lambda one: (one.status is Status.ERROR, one.created, one.name), reverse=True)[
            : max(0, len(present) - wanted)
        ]
    )


def _replicas_by_shard(members: Collection[Instance]) -> Mapping[str, list[Instance]]:
    shards = sorted({one.shard for one in members if one.shard}, key=lambda label: (len(label), label))
    return {label: [one for one in members if one.shard == label and one.role is Role.REPLICA] for label in shards}


def _made_up(cluster: Cluster, taken: Collection[str]) -> Iterator[str]:
    numbered = (f"{cluster.name}-member-{number}" for number in count(cluster.members_made + 1))
    return (name for name in numbered if name not in taken)


def made_after(cluster: Cluster, names: Iterable[str]) -> int:
    """The highest number that was ever given, once members of these names are made."""
    prefix = f"{cluster.name}-member-"
    numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    given = (int(number) for number in numbers if number.isascii() and number.isdecimal() and len(number) < MOST_DIGITS)
    return max((cluster.members_made, *given))


# --- What may be asked ------------------------------------------------------------------------------------------------


def is_free(cluster: Cluster) -> Allowed | Refusal:
    """No operation owns it."""
    if cluster.task is not ClusterTask.NONE:
        return Refusal(
            "busy",
            f"This action cannot be performed on the cluster while the current cluster task is '{cluster.task.value}'.",
        )
    return Allowed()


def may_change(cluster: Cluster) -> Allowed | Refusal:
    """Free, and it works."""
    free = is_free(cluster)
    if isinstance(free, Allowed) and not cluster.formed:
        return Refusal("busy", f"Cluster {cluster.name} was never formed: delete it and create another.")
    return free


def may_delete(cluster: Cluster) -> Allowed | UnderWay | Refusal:
    """Whatever state it is in, unless an operation owns it."""
    return UnderWay() if cluster.task is ClusterTask.DELETING else is_free(cluster)


def alike(flavors: Collection[str], volumes: Collection[int]) -> Allowed | Refusal:
    """The members of one request are of one size: shards share the slots evenly."""
    if len(set(flavors)) > 1:
        return Refusal("invalid", "The flavor for each instance in a cluster must be the same.")
    if len(set(volumes)) > 1:
        return Refusal("invalid", "The volume size for each instance in a cluster must be the same.")
    return Allowed()


def names_are_new(members: Iterable[Instance], names: Sequence[str | None]) -> Allowed | Refusal:
    """Names that the caller chose are nobody's yet."""
    given = [name for name in names if name is not None]
    taken = {one.name for one in members}
    if double := next((name for name in given if name in taken or given.count(name) > 1), None):
        return Refusal("conflict", f"The cluster has a member {double} already.")
    return Allowed()


def may_upgrade(cluster: Cluster, version: str) -> Allowed | Refusal:
    """To a newer version; no older Redis reads the files of a newer one."""
    old, new = (tuple(map(int, name.split("."))) for name in (cluster.version, version))
    if new == old:
        return Refusal("invalid", f"Cluster {cluster.name} has Redis {version} already.")
    if new < old:
        return Refusal(
            "invalid", f"Cluster {cluster.name} has Redis {cluster.version}, whose files Redis {version} cannot read."
        )
    return may_change(cluster)


def leaving(members: Collection[Instance], asked: Sequence[str]) -> tuple[str, ...] | Refusal:
    """Who leaves when these are to: a primary takes the replicas of its shard along."""
    known = {one.id: one for one in members}
    for name in asked:
        if name not in known:
            return Refusal("missing", f"Instance {name} does not exist.")
    shards = {known[name].shard for name in asked if known[name].role is Role.PRIMARY}
    gone = {*asked, *(one.id for one in members if one.shard in shards)}
    if not any(one.role is Role.PRIMARY and one.id not in gone for one in members):
        return Refusal("forbidden", "The last shard cannot be removed: delete the cluster instead.")
    return tuple(one.id for one in members if one.id in gone)


def may_shrink(
    cluster: Cluster, members: Collection[Instance], asked: Sequence[str], slots: Mapping[str, int], *, drain: bool
) -> Allowed | Refusal:
    """All or nothing: who owns slots, or is giving or taking some, stays, unless they are to be moved away first.

    `slots`: how many slots each member has a part in, as any member sees it.
    """
    free = may_change(cluster)
    gone = leaving(members, asked)
    if isinstance(gone, Refusal):
        return gone
    if isinstance(free, Refusal):
        return free
    holders = [one.name for one in members if one.id in gone and slots.get(one.id, 0)]
    if holders and not drain:
        return Refusal(
            "forbidden",
            f"One or more nodes have data slots assigned: {', '.join(holders)}. Move their slots away first, or shrink "
            "with drain.",
        )
    return Allowed(gone)


def weights_fit(members: Collection[Instance], weights: Mapping[str, float]) -> Allowed | Refusal:
    """Weights are of primaries, and leave somebody to have the slots."""
    primaries = {one.id for one in members if one.role is Role.PRIMARY}
    for name in weights:
        if name not in primaries:
            return Refusal("missing", f"Instance {name} is no primary of the cluster.")
    if not any(weights.get(name, 1.0) > 0 for name in primaries):
        return Refusal("invalid", "Somebody must have the slots: not all weights can be 0.")
    return Allowed()


def may_promote(members: Collection[Instance], key: str) -> Allowed | Refusal:
    """A replica that serves."""
    found = next((one for one in members if one.id == key), None)
    if found is None:
        return Refusal("missing", f"Instance {key} does not exist.")
    if found.role is Role.PRIMARY:
        return Refusal("conflict", f"{found.name} is the primary of its shard already.")
    if found.status is not Status.ACTIVE:
        return Refusal("busy", f"{found.name} is {found.status}.")
    return Allowed()


def may_be_replaced(members: Collection[Instance], keys: Collection[str]) -> Allowed | Refusal:
    """Primaries that have a replica. Whether they live is looked at when it is done: one that is seen alive stays."""
    by_id = {one.id: one for one in members}
    for key in keys:
        found = by_id.get(key)
        if found is None:
            return Refusal("missing", f"Instance {key} does not exist.")
        if found.role is not Role.PRIMARY:
            return Refusal("conflict", f"{found.name} is not the primary of its shard.")
        if not any(one.shard == found.shard and one.role is Role.REPLICA for one in members):
            return Refusal("conflict", f"{found.name} has no replica that could take over.")
    return Allowed()


# --- What is seen of the slots ----------------------------------------------------------------------------------------


def slots_held(members: Collection[Instance], facts: Mapping[str, ServerFacts]) -> Mapping[str, int]:
    """How many slots each member owns in the eyes of whoever sees most, those counted that it is giving or taking.

    Whose facts are missing counts as what the others say; without any facts nobody is known to own anything.
    """
    node_ids = {one.id: _node_id(one, facts) for one in members}
    seen = [one.cluster for one in facts.values() if one.cluster is not None]
    return {one.id: max((_part_of(node_ids[one.id], eyes) for eyes in seen), default=0) for one in members}


def _node_id(member: Instance, facts: Mapping[str, ServerFacts]) -> str | None:
    said = facts[member.id].cluster if member.id in facts else None
    return said.node_id if said is not None else member.node_id


def _part_of(node_id: str | None, eyes: ClusterFacts) -> int:
    owned = sum(last - first + 1 for one in eyes.view.members if one.id == node_id for first, last in one.ranges)
    open_with = [*eyes.migrating, *eyes.importing]
    half_way = sum(other == node_id for _, other in open_with) + (len(open_with) if eyes.node_id == node_id else 0)
    return owned + half_way

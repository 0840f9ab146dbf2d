"""What the runbooks about shards share: who they are now, by the members' own word, and how rows follow that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from redkeep.decide.agreement import prevailing
from redkeep.decide.shards import role_of
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.slots import ClusterView, Ranges
from redkeep.model.topology import Role
from redkeep.operations.context import Run

AGREE_LIMIT = 30.0
"""Seconds that members get to agree after a change."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at a cluster, and what is true of it by that."""

    facts: Mapping[str, ServerFacts]
    truth: ClusterView
    members: tuple[Instance, ...]

    def node_id(self, instance: Instance) -> str:
        """By its own word, else by its row."""
        said = self.facts[instance.id].cluster if instance.id in self.facts else None
        return said.node_id if said is not None else instance.node_id or ""

    @property
    def primaries(self) -> dict[str, Instance]:
        """Of each shard the member that is primary; where two say so, the one with slots."""
        found: dict[str, Instance] = {}
        nodes = {one.id: one for one in self.truth.members}
        for one in sorted(self.members, key=lambda each: bool(self._ranges(each))):
            node = nodes.get(self.node_id(one))
            if node is not None and node.primary_id is None and one.shard is not None:
                found[one.shard] = one
        return found

    @property
    def owned(self) -> dict[str, Ranges]:
        """The slots of each shard."""
        return {shard: self._ranges(one) for shard, one in self.primaries.items()}

    @property
    def shards(self) -> dict[str, str]:
        """The shard of each node id."""
        return {self.node_id(one): one.shard for one in self.members if one.shard is not None}

    def _ranges(self, one: Instance) -> Ranges:
        own = self.node_id(one)
        return next((node.ranges for node in self.truth.members if node.id == own), ())


def cluster_members(run: Run) -> tuple[Instance, ...]:
    """Those that have joined, and are not leaving."""
    return tuple(one for one in run.instances if one.node_id is not None and one.status is not Status.SHUTDOWN)


async def see(run: Run, *, timeout: float = 2.0) -> Seen:
    """Look at all of them."""
    members = cluster_members(run)
    facts = await run.look(members, timeout=timeout)
    return Seen(facts, prevailing(facts), members)


async def adopt(run: Run, seen: Seen, note: str = "", *, replaced: Collection[str] = ()) -> None:
    """Rows say what the members have agreed on: roles, and what Redis calls each of them. Those who were `replaced` are
    replicas, though they may be dead and cannot know it yet."""

    def as_it_is(one: Instance) -> Instance:
        said = seen.facts[one.id].cluster if one.id in seen.facts else None
        named = replace(one, node_id=said.node_id) if said is not None and one.node_id is not None else one
        role = Role.REPLICA if one.id in replaced else role_of(named, seen.truth)
        return replace(named, role=role) if role is not None and named.node_id is not None else named

    await run.alter(group=lambda group: replace(group, topology_epoch=group.epoch), instances=as_it_is, note=note)

"""Orders to the agent of a member of a Redis Cluster. As all orders they may be repeated, and carry the group's epoch.

What a cluster itself agrees on (who is primary, who owns which slot) is never ordered behind its back: each of these is
something that an operator could do to one node with Redis' own commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redkeep.model.facts import OpenSlots
from redkeep.model.slots import Pace, Ranges
from redkeep.model.topology import Address


@dataclass(frozen=True, slots=True)
class ClusterPrepare:
    """The member has this configuration epoch and these slots, if it knows nobody yet; else only the time-out changes.

    Before it meets anyone: epochs that are equal when members meet are settled by an election of their own, which may
    take seconds, and an owner of slots that is alone is a majority of itself, so that no time is lost later.
    """

    instance_id: str
    group_id: str
    epoch: int
    config_epoch: int
    ranges: Ranges = ()
    node_timeout_ms: int = 0
    """Counts until `ClusterComplete` or the next start; 0 leaves it as it is."""
    kind: Literal["cluster_prepare"] = "cluster_prepare"


@dataclass(frozen=True, slots=True)
class ClusterMeet:
    """The member has been introduced to the servers at these addresses. That they know each other takes a while."""

    instance_id: str
    group_id: str
    epoch: int
    peers: tuple[Address, ...]
    kind: Literal["cluster_meet"] = "cluster_meet"


@dataclass(frozen=True, slots=True)
class ClusterAddSlots:
    """The member owns these slots, which nobody owned before. Refused (`conflict`) when somebody else does."""

    instance_id: str
    group_id: str
    epoch: int
    ranges: Ranges
    kind: Literal["cluster_add_slots"] = "cluster_add_slots"


@dataclass(frozen=True, slots=True)
class ClusterReplicate:
    """The member is a replica of that one. NotNow while it does not know it, Refused while it owns slots."""

    instance_id: str
    group_id: str
    epoch: int
    primary_node_id: str
    kind: Literal["cluster_replicate"] = "cluster_replicate"


@dataclass(frozen=True, slots=True)
class ClusterComplete:
    """Forming is over: the time after which others count as failed is as configured."""

    instance_id: str
    group_id: str
    epoch: int
    kind: Literal["cluster_complete"] = "cluster_complete"


@dataclass(frozen=True, slots=True)
class ClusterTakeOver:
    """The replica is primary of its shard, with the slots of the one that it replicated, without asking the others.

    Only for whoever made sure that the old primary does not write any more: it is dead, or held. The slots that were
    half-way are half-way again in the same instant, so that no client finds a key missing that is only elsewhere.
    """

    instance_id: str
    group_id: str
    epoch: int
    former_node_id: str
    """Whose place it takes."""
    ranges: Ranges = ()
    """The slots of the former one as anybody knows them; it takes those too of which it has not heard itself."""
    migrating: OpenSlots = ()
    importing: OpenSlots = ()
    replication_id: str = ""
    at_least: int = -1
    """With it, wait up to `patience` seconds until that offset of this history is applied; else NotNow."""
    patience: float = 0.0
    kind: Literal["cluster_take_over"] = "cluster_take_over"


@dataclass(frozen=True, slots=True)
class ClusterYield:
    """The primary that was held has become a replica, and those who waited are answered MOVED.

    NotNow when it does not see within `patience` seconds that somebody has taken its place; it stays held then.
    """

    instance_id: str
    group_id: str
    epoch: int
    patience: float = 1.0
    kind: Literal["cluster_yield"] = "cluster_yield"


@dataclass(frozen=True, slots=True)
class ClusterForget:
    """The member does not know these any more, and does not hear of them from others for a minute."""

    instance_id: str
    group_id: str
    epoch: int
    node_ids: tuple[str, ...]
    kind: Literal["cluster_forget"] = "cluster_forget"


@dataclass(frozen=True, slots=True)
class CloseSlots:
    """None of these slots is open at the member any more: it takes no part in moving them.

    `owners` names for some of them who owns them: that is what it believes from now on.
    """

    instance_id: str
    group_id: str
    epoch: int
    slots: tuple[int, ...] = ()
    owners: OpenSlots = ()
    kind: Literal["close_slots"] = "close_slots"


@dataclass(frozen=True, slots=True)
class MoveSlots:
    """Some or all of these slots are the target's, with their keys: as many as can be moved in `budget` seconds.

    Slots that are half-way already are finished. What was moved and what was left, and why, is in the answer's
    `ClusterFacts`. No command to the server takes longer than what moving `largest_key` bytes takes: a slot with a
    larger key is left where it is.
    """

    instance_id: str
    group_id: str
    epoch: int
    slots: tuple[int, ...]
    target_node_id: str
    target: Address
    pace: Pace = Pace.GENTLE
    budget: float = 0.5
    largest_key: int = 32 * 1024 * 1024
    """Bytes that a key may take in memory to be moved."""
    kind: Literal["move_slots"] = "move_slots"


ClusterOrder = (
    ClusterPrepare
    | ClusterMeet
    | ClusterAddSlots
    | ClusterReplicate
    | ClusterComplete
    | ClusterTakeOver
    | ClusterYield
    | ClusterForget
    | CloseSlots
    | MoveSlots
)

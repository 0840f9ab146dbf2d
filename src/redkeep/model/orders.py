"""Orders to an agent: values that travel over the bus. Each may be repeated without harm.

All carry the epoch of the lease under which they were given; an agent that has accepted a higher one for the group
refuses them. What an order promises stands in its docstring; how it is kept, in `agent/server.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redkeep.model.cluster_orders import ClusterOrder
from redkeep.model.facts import Assignment, ServerSpec
from redkeep.model.topology import Address


@dataclass(frozen=True, slots=True)
class EnsureRunning:
    """A server runs by this specification and in this role: started, adjusted or left alone as needed.

    A server that has to be started as a primary comes up refusing writes; it accepts them after `Promote`. One that
    runs another version than the specification says is stopped in order and started with the other program. Refused
    with `conflict` when the port belongs to somebody else, with `missing` when there is no such redis-server.
    """

    spec: ServerSpec
    assignment: Assignment
    restart_token: str = ""
    """When given, and not the one of the last start: stop in order and start again."""
    with_data: bool = False
    """What `RestoreCopy` put in place must be there at its first start: NotNow when it is not (any more)."""
    kind: Literal["ensure_running"] = "ensure_running"


@dataclass(frozen=True, slots=True)
class Promote:
    """The server is primary and accepts writes; its clients are told.

    With `at_least` it waits up to `patience` seconds until it has applied that offset of history `replication_id`;
    else NotNow, and nothing has changed.
    """

    assignment: Assignment
    replication_id: str = ""
    at_least: int = -1
    patience: float = 0.0
    kind: Literal["promote"] = "promote"


@dataclass(frozen=True, slots=True)
class Follow:
    """The server is a replica of `assignment.primary` and stays one across restarts; its clients are told."""

    assignment: Assignment
    kind: Literal["follow"] = "follow"


@dataclass(frozen=True, slots=True)
class Isolate:
    """The replica follows nobody and stays read-only: it acknowledges to no primary, and keeps what it has applied."""

    instance_id: str
    group_id: str
    epoch: int
    kind: Literal["isolate"] = "isolate"


@dataclass(frozen=True, slots=True)
class FenceNeighbour:
    """Another server of the group, whose own agent says nothing, refuses every write; the answer is what it shows then.

    Executed by the agent of `instance_id`, which stays as it is, over the network. Nothing but an order to the other
    server's own agent ends it. Unavailable or OutcomeUnknown when that server does not answer in time.
    """

    instance_id: str
    group_id: str
    epoch: int
    neighbour_id: str
    address: Address
    version: str
    kind: Literal["fence_neighbour"] = "fence_neighbour"


@dataclass(frozen=True, slots=True)
class Brief:
    """The agent and the clients know this topology. The role is as it was, or the order is refused."""

    assignment: Assignment
    kind: Literal["brief"] = "brief"


@dataclass(frozen=True, slots=True)
class ExpectAbsence:
    """Replicas are about to leave for a while: the primary goes on without them at once, as far as its word and the
    promise of its group let it."""

    instance_id: str
    group_id: str
    epoch: int
    patience: float = 10.0
    kind: Literal["expect_absence"] = "expect_absence"


@dataclass(frozen=True, slots=True)
class HoldWrites:
    """The primary accepts no more writes: for `patience` seconds writers wait, after that they are refused.

    The answer carries the final offset of its history. Nothing but `ReleaseWrites`, `Promote` or `Follow` ends it.
    """

    instance_id: str
    group_id: str
    epoch: int
    patience: float = 2.0
    kind: Literal["hold_writes"] = "hold_writes"


@dataclass(frozen=True, slots=True)
class ReleaseWrites:
    """The primary that was held accepts writes again."""

    instance_id: str
    group_id: str
    epoch: int
    kind: Literal["release_writes"] = "release_writes"


@dataclass(frozen=True, slots=True)
class AwaitReplicas:
    """The primary gives so many replicas their first synchronisation, in one go and as quickly as it can.

    After `patience` seconds, or when told to await none, it synchronises as it is configured to; also when its agent
    has been replaced meanwhile, and when it was started again. So whoever gives this order may die.
    """

    instance_id: str
    group_id: str
    epoch: int
    replicas: int
    patience: float = 15.0
    kind: Literal["await_replicas"] = "await_replicas"


@dataclass(frozen=True, slots=True)
class Configure:
    """Memory limits, users and parameters are as specified, now and after a restart.

    Parameters that Redis takes at a start only wait for the next one. Refused, with nothing changed, when Redis does
    not take one of the others.
    """

    spec: ServerSpec
    epoch: int
    kind: Literal["configure"] = "configure"


@dataclass(frozen=True, slots=True)
class EnsureRemoved:
    """No process runs and no file is left."""

    instance_id: str
    group_id: str
    epoch: int
    kind: Literal["ensure_removed"] = "ensure_removed"


@dataclass(frozen=True, slots=True)
class TakeCopy:
    """A copy of the server's data is on its way into the storage of backups.

    Answered at once; what becomes of it is in `ServerFacts.transfer`. It is of one replication id, or fails. The same
    `attempt` again changes nothing.
    """

    instance_id: str
    group_id: str
    epoch: int
    backup_id: str
    attempt: int
    kind: Literal["take_copy"] = "take_copy"


@dataclass(frozen=True, slots=True)
class RestoreCopy:
    """A stored copy is on its way to where a server of this instance will find it at its first start.

    Answered at once, as `TakeCopy`. Nothing is put in place before size, checksum and structure were found right, and
    nothing at all once a server was started there.
    """

    instance_id: str
    group_id: str
    epoch: int
    version: str
    backup_id: str
    attempt: int
    name: str
    """In the storage of backups."""
    size_bytes: int
    sha256: str
    kind: Literal["restore_copy"] = "restore_copy"


@dataclass(frozen=True, slots=True)
class DropCopy:
    """Nothing of this backup is stored any more, and no copy for it is under way on this host."""

    instance_id: str
    group_id: str
    epoch: int
    backup_id: str
    kind: Literal["drop_copy"] = "drop_copy"


@dataclass(frozen=True, slots=True)
class AskForSite:
    """A manager has said that the site of the server may write, for one that is about to be promoted and has members
    elsewhere: so that its writers need not wait for that. NotNow when none says so."""

    instance_id: str
    group_id: str
    epoch: int
    kind: Literal["ask_for_site"] = "ask_for_site"


@dataclass(frozen=True, slots=True)
class SampleKeys:
    """Nothing changes. The answer has digests of these keys in `ServerFacts.sample`; of some at random, without any."""

    instance_id: str
    group_id: str
    epoch: int
    keys: tuple[str, ...] = ()
    """In hexadecimal: a key may be any bytes."""
    count: int = 20
    kind: Literal["sample_keys"] = "sample_keys"


@dataclass(frozen=True, slots=True)
class WriteCanary:
    """A message goes into the stream that the primary's replicas are fed by. The answer's offset is behind it."""

    instance_id: str
    group_id: str
    epoch: int
    kind: Literal["write_canary"] = "write_canary"


CopyOrder = TakeCopy | RestoreCopy | DropCopy
"""What changes no server, and need not find one."""

Order = (
    EnsureRunning
    | Promote
    | Follow
    | Isolate
    | FenceNeighbour
    | Brief
    | ExpectAbsence
    | HoldWrites
    | ReleaseWrites
    | AwaitReplicas
    | Configure
    | EnsureRemoved
    | AskForSite
    | SampleKeys
    | WriteCanary
    | CopyOrder
    | ClusterOrder
)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom an order concerns, and under which lease it was given."""

    instance_id: str
    group_id: str
    epoch: int


def target(order: Order) -> Target:
    """Whom an order concerns."""
    match order:
        case EnsureRunning(assignment=to) | Promote(assignment=to) | Follow(assignment=to) | Brief(assignment=to):
            return Target(to.instance_id, to.group_id, to.epoch)
        case Configure(spec=spec, epoch=epoch):
            return Target(spec.instance_id, spec.group_id, epoch)
        case (
            HoldWrites()
            | ReleaseWrites()
            | AwaitReplicas()
            | EnsureRemoved()
            | Isolate()
            | FenceNeighbour()
            | ExpectAbsence()
        ):
            return Target(order.instance_id, order.group_id, order.epoch)
        case TakeCopy() | RestoreCopy() | DropCopy():
            return Target(order.instance_id, order.group_id, order.epoch)
        case _:
            return Target(order.instance_id, order.group_id, order.epoch)

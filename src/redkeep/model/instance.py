"""Instances, the groups that they replicate in, and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from redkeep.model.topology import Address, Role

DEFAULT_SITE = "default"
"""The site of every host that is not told another one."""


class Status(StrEnum):
    """Where an instance is in its life. The words are Trove's (contract, section 4.2).

    Stable: ACTIVE, ERROR. The others say that an operation is at work and serve as its lock: only the transaction
    that moves a stable status to one of them may record the operation. RESTART_REQUIRED is shown in place of ACTIVE
    while parameters wait for a restart (`decide.parameters.shown_status`) and is never kept: it follows from the rows.
    """

    BUILD = "BUILD"
    ACTIVE = "ACTIVE"
    REBOOT = "REBOOT"
    RESIZE = "RESIZE"
    PROMOTE = "PROMOTE"
    EJECT = "EJECT"
    DETACH = "DETACH"
    UPDATING = "UPDATING"
    UPGRADE = "UPGRADE"
    BACKUP = "BACKUP"
    SHUTDOWN = "SHUTDOWN"
    RESTART_REQUIRED = "RESTART_REQUIRED"
    ERROR = "ERROR"

    @property
    def settled(self) -> bool:
        """No operation owns the instance."""
        return self in (Status.ACTIVE, Status.RESTART_REQUIRED, Status.ERROR)

    @property
    def steady(self) -> bool:
        """Its server should be in its role: no operation is changing that (one that makes a backup only reads)."""
        return self.settled or self is Status.BACKUP


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an instance is in ERROR, or why its last operation failed. Shown to its owner."""

    message: str
    created: float


@dataclass(frozen=True, slots=True)
class Flavor:
    """A size to order by. Memory is what Redis may fill (`maxmemory`); the process gets room for copies on top."""

    id: str
    name: str
    ram_mb: int
    vcpus: int = 1
    disk_gb: int = 0
    """Local storage, for installations without volumes."""

    @property
    def maxmemory_bytes(self) -> int:
        return self.ram_mb * 1024 * 1024

    @property
    def process_limit_bytes(self) -> int:
        """Address space of one redis-server process: the data, copy on write while a child saves it, and the code."""
        return 2 * self.maxmemory_bytes + 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DatastoreVersion:
    """A Redis that can be ordered. `name` is `major.minor`; its program is found by each host."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with an agent on it, as it last described itself."""

    id: str
    address: str
    port_low: int
    port_high: int
    versions: tuple[str, ...]
    memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    seen_at: float
    """Store time of the last word from its agent."""
    zone: str = ""
    """The availability zone that it stands in; hosts of one zone may fail together."""
    site: str = DEFAULT_SITE
    """Where it stands, among the places that a backend can move between."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a group's servers and their masters know. Each is a token, encrypted with the key of the installation."""

    admin: str
    """Password of `redkeep-admin`, by which the agent commands its servers."""
    replication: str
    """Password of `redkeep-replica`, by which a replica follows its primary."""


@dataclass(frozen=True, slots=True)
class RedisUser:
    """A tenant's user. Only a digest of the password is kept: Redis needs no more to check it."""

    name: str
    password_sha256: str
    enabled: bool = True


FAILOVER_PAUSED = "failover-paused"
"""The operator's switch that pauses automatic failover of all groups."""


class Durability(StrEnum):
    """What a group promises of an acknowledged write when its primary is lost."""

    ASYNC = "async"
    """It may be lost if it was acknowledged within the fence bound before a host was lost. Costs nothing."""
    BOUNDED = "bounded"
    """As `async`, but writes are refused when no replica has acknowledged for ten seconds: what may be lost is bounded
    by that, whatever becomes of the managers. Costs availability when the replicas are away."""
    SYNC = "sync"
    """Nothing that the driver acknowledged is lost: it waits for a majority of the group, and only a replica that has
    all of it is promoted. Costs a round trip for each write."""


@dataclass(frozen=True, slots=True)
class Group:
    """A primary and those who replicate from it: the unit of leases, epochs and failover. One instance is one too."""

    id: str
    project_id: str
    secrets: Secrets
    primary_id: str | None
    """The instance that is primary, as far as this table knows: changed only after the change was made."""
    successor_id: str | None = None
    """Whom a running change has chosen. Written before anyone acts on it; from then on nobody else may be primary."""
    topology_epoch: int = 0
    epoch: int = 0
    """Raised by each lease. Agents refuse orders that carry a lower one."""
    holder: str | None = None
    """Manager that holds the lease."""
    lease_until: float = 0.0
    """Store time at which the lease ends."""
    users: tuple[RedisUser, ...] = ()
    root_enabled: bool = False
    durability: Durability = Durability.ASYNC
    paused: bool = False
    """No automatic failover: an operator is at work on it."""

    @property
    def rightful_primary_id(self) -> str | None:
        """The only instance whose claim to be primary a manager may confirm."""
        return self.successor_id or self.primary_id


Parameters = tuple[tuple[str, str], ...]
"""Settings of redis.conf beyond the operator's, sorted by name, in the words of the server's own version."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A tenant's configuration group: values under a name, attached to any number of instances."""

    id: str
    project_id: str
    name: str
    version: str
    """The datastore version (`major.minor`) whose parameters it sets."""
    created: float
    updated: float
    values: Parameters = ()
    """As `decide.parameters.validate` returns them."""
    description: str = ""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What a server was configured with, and by which configuration group."""

    configuration_id: str | None = None
    parameters: Parameters = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One Redis server and what its owner ordered."""

    id: str
    group_id: str
    project_id: str
    name: str
    role: Role
    """What it is meant to be; `Group.primary_id` decides where the two disagree in the middle of a change."""
    status: Status
    flavor_id: str
    volume_gb: int
    version: str
    created: float
    updated: float
    host_id: str | None = None
    address: Address | None = None
    fault: Fault | None = None
    deleted: bool = False
    replica_of: str | None = None
    configuration_id: str | None = None
    """The configuration group that is attached. All members of a group have the same."""
    parameters: Parameters = ()
    """What its server is to run with: applied where Redis can, in its redis.conf in any case."""
    proven: Applied = Applied()
    """What its server was last started with and came up with: put back when it does not come up with `parameters`."""
    shard: str | None = None
    """In a cluster: the shard that it belongs to, a label that stays whoever is primary there. None: no cluster."""
    node_id: str | None = None
    """In a cluster: what Redis calls it, once that is known."""
    site: str = ""
    """The site where it is to be placed, or is: that of its host. Empty: not placed yet, and it goes where the backend
    is active."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit: who asked for what, what happened, when."""

    at: float
    kind: str
    text: str
    project_id: str | None = None
    group_id: str | None = None
    instance_id: str | None = None
    operation_id: str | None = None
    actor: str = "redkeep"
    id: int | None = field(default=None, compare=False)

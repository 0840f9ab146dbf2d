"""What was seen of a server, and when: the frozen input of every decision, and the vocabulary of orders to agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from redkeep.model.backup import Transfer
from redkeep.model.instance import DEFAULT_SITE, Durability, Parameters, RedisUser, Secrets
from redkeep.model.slots import ClusterView
from redkeep.model.topology import Address, Role, Topology


class Process(StrEnum):
    """What the agent knows of the process itself, apart from what Redis answers."""

    RUNNING = "running"
    LOADING = "loading"
    HUNG = "hung"
    EXITED = "exited"
    """It was ours, and the kernel says that it is gone: proof, not suspicion."""
    ABSENT = "absent"
    """Never started here, or removed."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A replica as its primary sees it (`slaveN` of INFO replication)."""

    address: Address
    online: bool
    offset: int
    lag_seconds: float
    """Since its last acknowledgement, as Redis counts: whole seconds."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A replica's own view of the link to its primary."""

    primary: Address
    link_up: bool
    syncing: bool
    last_io_seconds: int
    """-1 while the link is down: says nothing when it is needed most, so it only breaks ties."""
    received_bytes: int = 0
    """Of a full synchronisation under way."""
    total_bytes: int = 0
    """What that comes to; 0 while it is not known, as when the primary sends without a file."""


OpenSlots = tuple[tuple[int, str], ...]
"""Slots that are half-way between two members, each with the node id of the other one."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What a member of a cluster says of the cluster, and of itself in it."""

    node_id: str
    """Redis' own name for it: stays with its `nodes.conf`, whatever its address."""
    state_ok: bool = False
    """It takes commands: the cluster is not down for it."""
    epoch: int = 0
    """The highest configuration epoch that it knows of, be it of one that asked for votes."""
    my_epoch: int = 0
    """The one under which it claims its slots."""
    view: ClusterView = field(default_factory=ClusterView)
    nameless: tuple[str, ...] = ()
    """Node ids of which it knows no address."""
    shaking: int = 0
    """Members that it has been introduced to and does not know yet."""
    migrating: OpenSlots = ()
    """Slots of its own that it is giving away, and to whom."""
    importing: OpenSlots = ()
    """Slots that it is being given, and by whom."""
    moved_keys: int = 0
    """Keys that the `MoveSlots` which this look answers has moved."""
    kept: tuple[tuple[int, str], ...] = ()
    """Slots that this order has left where they are, and why."""

    @property
    def primary_id(self) -> str | None:
        """Whom it replicates, by its own word; None for a primary."""
        return next((one.primary_id for one in self.view.members if one.id == self.node_id), None)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The slots that it claims."""
        return next((one.ranges for one in self.view.members if one.id == self.node_id), ())


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One look at one server by its agent."""

    instance_id: str
    process: Process
    seen_at: float = 0.0
    """Monotonic clock of whoever holds this value: when it arrived, in seconds."""
    pid: int | None = None
    run_id: str = ""
    role: Role | None = None
    """What Redis says that it is."""
    fenced: bool = False
    """It refuses writes because its agent makes it."""
    guarded: bool = False
    """A primary: it refuses writes by itself when too few replicas follow, whatever becomes of its agent."""
    epoch: int = 0
    """The highest epoch that its agent has accepted for the group."""
    replication_id: str = ""
    offset: int = -1
    """Replication offset: what a primary has produced, or a replica has applied. -1: unknown."""
    former_id: str = ""
    """Replication id of the history that this one goes on from, if it was promoted."""
    former_until: int = -1
    """The last offset that the two have in common."""
    synced_once: bool = False
    """A replica: has completed a synchronisation, so that its data set is whole."""
    upstream: Upstream | None = None
    followers: tuple[Follower, ...] = ()
    keys: int = 0
    memory_used: int = 0
    memory_max: int = 0
    disk_used: int = 0
    redis_version: str = ""
    trouble: str = ""
    """For people: why it refuses writes though it runs in its role."""
    detail: str = ""
    """For people: why it is hung, with what status it exited."""
    transfer: Transfer | None = None
    """The last copy of its data that its agent was told to take, or to put in place, since that started."""
    sample: tuple[tuple[str, str], ...] = ()
    """Keys, in hexadecimal, and digests of their values: what `SampleKeys` asked for."""
    kept: str = ""
    """In words where that is kept which only it had, when this order has made it follow another site."""
    cluster: ClusterFacts | None = None
    """Of a member of a cluster; what it last said when it says nothing now."""

    @property
    def alive(self) -> bool:
        return self.process is Process.RUNNING


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """All that an agent needs to run a server, apart from its role. Secrets travel encrypted."""

    instance_id: str
    group_id: str
    version: str
    address: Address
    maxmemory_bytes: int
    process_limit_bytes: int
    secrets: Secrets
    users: tuple[RedisUser, ...] = ()
    durability: Durability = Durability.ASYNC
    parameters: Parameters = ()
    """What its redis.conf says beyond the operator's settings."""
    cluster: bool = False
    """It is a member of a Redis Cluster: its role is the cluster's affair, not that of orders."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The role that a server is given, by whoever holds the group's lease at `epoch`."""

    instance_id: str
    group_id: str
    epoch: int
    role: Role
    primary: Address | None
    """Whom to follow; None for the primary itself."""
    topology: Topology
    """What to tell the clients."""
    elsewhere: tuple[Address, ...] = ()
    """Members at other sites than the primary's. While there are any, it needs a word for its site to write."""

    @property
    def group_size(self) -> int:
        return max(1, len(self.topology.nodes))

    @property
    def local_size(self) -> int:
        """Members at the primary's own site, itself included: who may take its place, or carry it."""
        return max(1, len(self.topology.nodes) - len(self.elsewhere))


@dataclass(frozen=True, slots=True)
class HostReport:
    """What an agent says of its machine with every heartbeat."""

    host_id: str
    address: str
    port_low: int
    port_high: int
    versions: tuple[str, ...]
    memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    servers: tuple[ServerFacts, ...] = ()
    wants_confirmed: tuple[str, ...] = ()
    """Instances that it runs as primaries, and whose right to write it wants confirmed."""
    sequence: int = 0
    """Rises with each report of one run of the agent."""
    incarnation: str = ""
    """Names one run of the agent."""
    zone: str = ""
    """The availability zone that it stands in."""
    site: str = DEFAULT_SITE
    """The site that it stands at."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A manager's answer to a heartbeat: for how long the confirmed primaries may go on accepting writes."""

    confirmed: tuple[str, ...]
    denied: tuple[str, ...]
    lease_seconds: float
    """Counted by the agent from the moment at which it *sent* the heartbeat."""
    site_seconds: float = 0.0
    """The same for their site's right to write, which is asked of groups that have members at several."""

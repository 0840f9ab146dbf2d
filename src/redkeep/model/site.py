"""Sites, the managers' services, and the service clusters that they form: who serves a backend, and where it is active.

A *backend* is what a set of managers serves together; a *site* is a place in which its primaries may be. The words on
the wire are Cinder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BINARY = "cinder-volume"
"""What the stock clients call the service that serves a backend. A manager is one."""

FAILBACK = "default"
"""The one reserved target: the site that a backend belongs to. Drivers are told this word and no other for it."""


class ReplicationStatus(StrEnum):
    """Where a backend, or one service of it, stands between its sites. The words are Cinder's."""

    NOT_CAPABLE = "not-capable"
    DISABLED = "disabled"
    """Its driver has no target to fail over to."""
    ENABLED = "enabled"
    FAILING_OVER = "failing-over"
    FAILED_OVER = "failed-over"
    FAILOVER_ERROR = "failover-error"
    """The last failover ended half way. Another one, or a failback, may be asked for."""
    ERROR = "error"
    """Of a service: its driver does not follow to the active site."""


def site_of(backend_id: str | None) -> str:
    """The target that an `active_backend_id` names: null, '' and 'default' are one."""
    return backend_id or FAILBACK


def shown_site(target: str) -> str:
    """A target as rows and replies have it: '' is the default site."""
    return "" if target == FAILBACK else target


@dataclass(frozen=True, slots=True)
class ReplicationTarget:
    """One `replication_device`: where a backend can fail over to."""

    backend_id: str
    site: str
    """Label of the hosts there."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Whatever else the operator wrote for the driver."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What the operator says of a backend; the same for all of its managers."""

    name: str = "redis"
    driver: str = "plain"
    """Name of an entry point of the group `redkeep.backends`."""
    site: str = "default"
    """Label of the hosts at the site that the backend belongs to: the target `default`."""
    targets: tuple[ReplicationTarget, ...] = ()
    site_seconds: float = 10.0
    """For how long a manager's word for their site lets primaries write that have a replica at another one."""

    def site_label(self, target: str) -> str | None:
        """Label of the hosts at a target, `default` included; None when there is no such target."""
        if site_of(target) == FAILBACK:
            return self.site
        return next((one.site for one in self.targets if one.backend_id == target), None)

    @property
    def names(self) -> Mapping[str, str]:
        """Targets by the label of their hosts."""
        return {self.site: FAILBACK} | {one.site: one.backend_id for one in self.targets}


@dataclass(frozen=True, slots=True)
class Volume:
    """An instance, as far as a driver needs to know it to fail it over. Cinder's word: it is what a backend keeps."""

    id: str
    """Of the instance that is the primary."""
    group_id: str
    replication_status: ReplicationStatus
    """ENABLED when another site has a copy of it, else DISABLED."""
    site: str
    """Label of the hosts where its primary is."""


@dataclass(frozen=True, slots=True)
class VolumeUpdate:
    """What became of one volume in a failover."""

    volume_id: str
    replication_status: ReplicationStatus
    detail: str = ""
    """For people: what was lost, or why it failed."""


@dataclass(frozen=True, slots=True)
class FailoverResult:
    """What a driver says once the storage has failed over."""

    active_backend_id: str
    """The target that is active now; `default` after a failback."""
    updates: tuple[VolumeUpdate, ...] = ()
    """Volumes that are not named are as the backend is."""


@dataclass(frozen=True, slots=True)
class SiteFailover:
    """One failover between sites: what was asked for, how far it is, how it ended. The last one stays on the row."""

    id: str
    target: str
    """A configured target, or `default`. Chosen and saved before anybody acts on it."""
    forced: bool | None
    """Writes may be lost, since the old site cannot be asked. None: not looked at yet whether it answers."""
    came_from: ReplicationStatus
    """The status before: what it goes back to when nothing was done."""
    requested_by: str
    requested_at: float
    deadline: float
    """Store time after which it is given up."""
    step: str = ""
    progress: float = 0.0
    """From 0 to 1."""
    attempts: int = 0
    error: str | None = None
    """Why it was refused, or failed, or has to be tried again."""
    finished: float | None = None
    volumes: int = 0
    """How many the driver was told of."""
    updates: tuple[VolumeUpdate, ...] = ()
    """What the driver said of single volumes."""


@dataclass(frozen=True, slots=True)
class ServiceCluster:
    """The managers of one backend together: the desired state of all of them, and the lease of who changes it.

    A manager that is in no service cluster has one of its own, which is shown nowhere (`solitary`).
    """

    id: str
    """Its name, `<cluster>@<backend>`; of a solitary one the host of the only service."""
    created_at: float
    updated_at: float | None = None
    """When something was changed. Heartbeats do not count."""
    solitary: bool = False
    disabled: bool = False
    disabled_reason: str | None = None
    replication_status: ReplicationStatus = ReplicationStatus.NOT_CAPABLE
    active_backend_id: str | None = None
    frozen: bool = False
    targets: tuple[str, ...] = ()
    """`backend_id` of all targets, in the order of the settings."""
    epoch: int = 0
    """Raised whenever another site has become active: what the members have to follow to."""
    failover: SiteFailover | None = None
    lease_epoch: int = 0
    """Raised by each claim of the lease."""
    holder: str | None = None
    """The service that works on the failover."""
    lease_until: float = 0.0

    @property
    def backend(self) -> str:
        return backend_of(self.id)

    @property
    def site(self) -> str:
        """The target that is active."""
        return site_of(self.active_backend_id)


@dataclass(frozen=True, slots=True)
class Service:
    """One manager process."""

    id: str
    """Its host, `<manager>@<backend>`."""
    cluster_id: str
    created_at: float
    updated_at: float | None = None
    """When something was changed. Heartbeats do not count."""
    heartbeat_at: float = 0.0
    """Store time of its last sign of life: written by heartbeats alone, so that nothing else makes it look alive."""
    incarnation: str = ""
    """Names one run of the process."""
    release: str = ""
    """The version of Redkeep that it runs."""
    object_version: str = "1.0"
    """The newest form of messages between managers that it reads."""
    zone: str = "nova"
    disabled: bool = False
    disabled_reason: str | None = None
    replication_status: ReplicationStatus = ReplicationStatus.NOT_CAPABLE
    active_backend_id: str | None = None
    """The site that its own driver works with."""
    frozen: bool = False
    applied_epoch: int = 0
    """The cluster's epoch up to which its driver has followed."""
    fault: str | None = None
    """Why its driver could not follow to the cluster's epoch."""

    @property
    def backend(self) -> str:
        return backend_of(self.id)


def backend_of(name: str) -> str:
    """`redis` for `managers@redis`."""
    return name.rpartition("@")[2]

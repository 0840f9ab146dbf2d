"""What the operator decides about the API. Frozen: read once, passed on by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from redkeep.model.instance import Flavor
from redkeep.model.operation import Kind
from redkeep.model.site import Backend

FLAVORS = (
    Flavor("1", "redis.128m", 128),
    Flavor("2", "redis.512m", 512),
    Flavor("3", "redis.1g", 1024),
    Flavor("4", "redis.2g", 2048, vcpus=2),
    Flavor("5", "redis.4g", 4096, vcpus=2),
    Flavor("6", "redis.8g", 8192, vcpus=2),
    Flavor("7", "redis.16g", 16384, vcpus=2),
)

TIME_LIMITS: Mapping[Kind, float] = MappingProxyType(
    {
        Kind.CREATE_INSTANCE: 600.0,
        Kind.CREATE_BACKUP: 4 * 3600.0,
        Kind.DELETE_BACKUP: 600.0,
        Kind.ADD_REPLICAS: 1800.0,
        Kind.DELETE_INSTANCE: 600.0,
        Kind.RESTART_INSTANCE: 600.0,
        Kind.RESIZE_INSTANCE: 1800.0,
        Kind.UPDATE_USERS: 120.0,
        Kind.CONFIGURE: 300.0,
        Kind.ROLL_GROUP: 7200.0,
        Kind.PROMOTE_REPLICA: 300.0,
        Kind.EJECT_PRIMARY: 300.0,
        Kind.DETACH_REPLICA: 300.0,
        Kind.CREATE_CLUSTER: 900.0,
        Kind.GROW_CLUSTER: 4 * 3600.0,
        Kind.SHRINK_CLUSTER: 4 * 3600.0,
        Kind.CHANGE_REPLICAS: 4 * 3600.0,
        Kind.ROLL_CLUSTER: 7200.0,
        Kind.CONFIGURE_CLUSTER: 300.0,
        Kind.REBALANCE_CLUSTER: 4 * 3600.0,
        Kind.FAIL_OVER_SHARD: 60.0,
        Kind.PROMOTE_SHARD_REPLICA: 300.0,
        Kind.DELETE_CLUSTER: 600.0,
    }
)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Defaults are those of one machine with authentication."""

    flavors: tuple[Flavor, ...] = FLAVORS
    """What can be ordered, in the order in which it is listed. Ids must be unique."""
    versions: tuple[str, ...] = ("7.0", "6.2")
    """Redis versions (`major.minor`) in the order in which they are listed, before whatever else the hosts have. Only
    those that some host has are shown."""
    default_version: str = "7.0"
    """What an order gets that names none; the first that is shown when no host has this one."""
    max_instances: int = 100
    """Instances that a project may have."""
    max_ram_mb: int = 256 * 1024
    """Memory that the flavors of a project's instances may add up to."""
    cluster_support: bool = True
    """Clusters can be ordered; those that are there can be used either way."""
    cluster_strategy: str = "redkeep.api.cluster_strategy.RedisApiStrategy"
    """The class that knows what clusters of the datastore are, by its dotted name."""
    volume_support: bool = True
    """Members have volumes, of the size that is ordered. Without, they have the local storage of their flavor."""
    max_replicas: int = 3
    """Replicas that one order may ask for; upstream's number. All of an order share one synchronisation."""
    max_backups: int = 500
    """Backups that a project may have."""
    max_volume_gb: int = 2048
    """Disk that the volumes of a project's instances may add up to."""
    page_size: int = 1000
    """Items of a list's page, at most and by default. Stock clients read one page only, so keep it large."""
    region: str = "RegionOne"
    """Named in the catalogue and with every instance."""
    public_url: str | None = None
    """Where clients reach this API, without a slash at the end. None: wherever the request came to."""
    auth: Literal["basic", "noauth"] = "basic"
    """`noauth` lets everybody in as the administrator: for loopback only."""
    htpasswd: Path = Path("htpasswd")
    """Names and bcrypt hashes, as `htpasswd -B` writes them. Read again whenever it changes."""
    admin_user: str = "admin"
    """Who may use every project. Every other user may use the project of its own name."""
    token_lifetime_seconds: int = 12 * 3600
    """For how long a token of the identity facade is good."""
    verified_for_seconds: float = 300.0
    """For how long a checked name and password need no new bcrypt, which costs tens of milliseconds."""
    heartbeat_expiry_seconds: float = 90.0
    """A source may be ejected when nothing was heard of its host for this long."""
    time_limits: Mapping[Kind, float] = field(default_factory=lambda: TIME_LIMITS)
    """Seconds after which an operation is given up, by kind: nothing stays busy for ever."""
    restore_limit_seconds: float = 4 * 3600.0
    """The same for an instance that is created from a backup."""
    users_wait_seconds: float = 5.0
    """For how long a change of users waits for the servers before it answers."""
    poke_timeout_seconds: float = 1.0
    """For how long an answer waits for the hint to the managers, which find the work without it too."""
    backend: str = "redis"
    """The backend that the instances are of, as in `managers@redis`."""
    sites: Backend = field(default_factory=Backend)
    """The same with its sites: where replicas can be ordered."""
    service_down_seconds: float = 60.0
    """Without a sign of life for this long a manager's service is down."""
    site_failover_limit_seconds: float = 3600.0
    """After this long a failover of a site is given up."""
    hook_wait_seconds: float = 10.0
    """For how long a freeze or a thaw waits for the backend's driver."""
    max_body_bytes: int = 256 * 1024
    """Larger requests are refused unread."""

    def flavor(self, flavor_id: str) -> Flavor | None:
        """The flavor of that id, if there is one."""
        return next((flavor for flavor in self.flavors if flavor.id == flavor_id), None)

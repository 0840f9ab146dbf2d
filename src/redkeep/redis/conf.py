"""redis.conf as text: pure, and without a secret in it.

What must stay secret (`masterauth`) goes to redis-server on its standard input; users stand here by the digest of their
password. The file always starts a server as a replica, of nobody when it is meant to be primary: so a primary that
comes back refuses every write, scripts included, until it is told its role. A member of a Redis Cluster takes its role
from `nodes.conf`, which Redis keeps, and from the other members: it refuses writes for two seconds to hear from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from redkeep.decide.durability import MAX_LAG_SECONDS
from redkeep.decide.parameters import for_redis, live
from redkeep.model.facts import ServerSpec
from redkeep.model.instance import Parameters, RedisUser
from redkeep.model.topology import Address

ADMIN = "redkeep-admin"
REPLICA = "redkeep-replica"

NOBODY = Address("127.0.0.1", 1)
"""An address that no Redis listens on."""

FENCE = 2**31 - 1
"""`min-replicas-to-write` that no group can meet: every write is refused with NOREPLICAS."""

HA_CHANNEL = "__redkeep:ha"
"""Where a group's topology is published on each of its servers."""

TENANT_RULES = (
    "~* &* +@all -@admin +role -migrate -acl "
    "+client|setname +client|getname +client|id +client|tracking +client|trackinginfo +client|caching +client|reply"
)
"""A tenant's user may do all that concerns its data; nothing that concerns the server.

INFO, KEYS and FLUSHALL are not `@admin` and stay allowed. In Redis 6.2 the whole of CLIENT is `@admin`, so what client
libraries call at connect is given back; in 7.0 that changes nothing.
"""

CLUSTER_RULES = " ".join(
    f"+cluster|{word}"
    for word in ("slots", "shards", "nodes", "info", "myid", "keyslot", "countkeysinslot", "getkeysinslot")
)
"""What cluster-aware clients ask. In Redis 6.2 the whole of CLUSTER is `@admin`."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the operator may set for all servers of a host."""

    diskless_sync: bool = True
    diskless_sync_delay: int = 0
    """Seconds that a primary waits for more replicas before it starts to send; `expected_replicas` cuts it short."""
    append_fsync: str = "everysec"
    file_sync_versions: frozenset[str] = frozenset()
    """Those (`major.minor`) that go through a file all the same."""

    def is_diskless(self, version: str) -> bool:
        """Whether primaries of that version send their data without a file."""
        return self.diskless_sync and version not in self.file_sync_versions

    cluster_node_timeout_ms: int = 5000
    """How long a member of a Redis Cluster may be silent before the others elect a successor by themselves. An exit
    that an agent sees needs none of that."""


@dataclass(frozen=True, slots=True)
class Masters:
    """Digests of the passwords by which Redkeep's own users command and follow a server."""

    admin_sha256: str
    replica_sha256: str


def render(spec: ServerSpec, directory: Path, follow: Address, *, tuning: Tuning, masters: Masters) -> str:
    """The configuration file of a server that replicates from `follow` (`NOBODY` for one that is to be primary)."""
    return "\n".join(
        (
            "# Written by Redkeep at every change; edits are lost.",
            f"bind {spec.address.host}",
            f"port {spec.address.port}",
            "protected-mode no",
            "daemonize no",
            "tcp-keepalive 60",
            f'dir "{directory}"',
            f'logfile "{directory / "redis.log"}"',
            'pidfile ""',
            "always-show-logo no",
            f"maxmemory {spec.maxmemory_bytes}",
            "appendonly yes",
            "aof-use-rdb-preamble yes",
            *(_cluster(spec, tuning) if spec.cluster else [f"replicaof {follow.host} {follow.port}"]),
            *_replication(spec, tuning),
            *(f"{name} {_word(value)}" for name, value in _settable(spec, tuning)),
            *(f"user {name} {rules}" for name, rules in users(spec.users, masters, cluster=spec.cluster).items()),
            "",
        )
    )


def live_parameters(spec: ServerSpec, tuning: Tuning) -> dict[str, str]:
    """All that a running server can be told of its parameters, those included that nobody has set (any more)."""
    return live(_settable(spec, tuning), spec.version)


def secret_directives(replication_password: str) -> str:
    """What redis-server is told on its standard input, after the file."""
    return f"masteruser {REPLICA}\nmasterauth {replication_password}\n"


def users(tenants: tuple[RedisUser, ...], masters: Masters, *, cluster: bool = False) -> dict[str, str]:
    """ACL rules by user, each from a clean slate. Without a tenant called `default` nobody gets in without a name.

    In a cluster tenants see its map, and members hand each other keys as the one who replicates.
    """
    rules, receiving = (
        (f"{TENANT_RULES} {CLUSTER_RULES}", " ~* +select +restore-asking") if cluster else (TENANT_RULES, "")
    )
    return {
        "default": "reset off",
        **{user.name: f"reset {'on' if user.enabled else 'off'} #{user.password_sha256} {rules}" for user in tenants},
        ADMIN: f"reset on #{masters.admin_sha256} ~* &* +@all",
        REPLICA: f"reset on #{masters.replica_sha256} +psync +replconf +ping{receiving}",
    }


def _settable(spec: ServerSpec, tuning: Tuning) -> Parameters:
    """The operator's settings, where the tenant has none."""
    operators = {
        "maxmemory-policy": "noeviction",
        "appendfsync": tuning.append_fsync,
        "save": "3600 1 300 100 60 10000",
    }
    return tuple((operators | dict(for_redis(spec.parameters))).items())


def _word(value: str) -> str:
    return value or '""'


def _cluster(spec: ServerSpec, tuning: Tuning) -> list[str]:
    """Full coverage is not required: a shard that is lost takes its own slots with it, and no others. A primary is not
    made a replica because its slots were moved away (`cluster-allow-replica-migration`)."""
    return [
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        f"cluster-node-timeout {tuning.cluster_node_timeout_ms}",
        f"cluster-announce-ip {spec.address.host}",
        "cluster-allow-replica-migration no",
        "cluster-require-full-coverage no",
    ]


def _replication(spec: ServerSpec, tuning: Tuning) -> list[str]:
    backlog = max(_MIB, min(64 * _MIB, spec.maxmemory_bytes // 8))
    return [
        f"replica-announce-ip {spec.address.host}",
        f"replica-announce-port {spec.address.port}",
        f"min-replicas-max-lag {MAX_LAG_SECONDS}",
        "replica-read-only yes",
        "replica-serve-stale-data yes",
        f"repl-diskless-sync {'yes' if tuning.is_diskless(spec.version) else 'no'}",
        f"repl-diskless-sync-delay {tuning.diskless_sync_delay}",
        "repl-diskless-load on-empty-db",
        f"repl-backlog-size {backlog}",
        "repl-ping-replica-period 1",
        f"masteruser {REPLICA}",
    ]

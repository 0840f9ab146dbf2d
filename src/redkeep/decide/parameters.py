"""Which parameters of Redis a tenant may set, to what, and what their change asks of a server.

Offered is what concerns the tenant's own data and clients. What Redkeep itself steers (roles, memory, persistence,
durability, files, the network) is not: `KEPT` says why, and what to use in its place. Values are kept as redis.conf
writes them; what a catalogue entry lets through may still be refused by a server's build, or kill it at its next start,
so each change is tried on one replica first (`operations/roll_group.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from redkeep.errors import Refused
from redkeep.model.instance import Instance, Parameters, Status

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE
MOST_INTEGER = 2**31 - 1
LISTPACKS = (7, 0)
"""The version from which on ziplists, and the parameters named after them, are called listpacks."""

_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": MEBIBYTE, "g": 1000**3, "gb": GIBIBYTE}


class Type(StrEnum):
    """What values look like. `memory`: bytes, also with the units of redis.conf (`64mb`)."""

    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"
    ENUM = "enum"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One line of the catalogue."""

    name: str
    type: Type
    default: str
    """What Redkeep's servers have when nobody sets it."""
    low: int = 0
    high: int = MOST_INTEGER
    options: tuple[str, ...] = ()
    """Of an enum: its values. Of a string: the characters that it may consist of."""
    restart_required: bool = False
    """Redis takes it at a start only."""
    since: tuple[int, int] = (6, 2)
    formerly: str = ""
    """Its name before 7.0."""
    own: bool = False
    """Redkeep's, and no line of redis.conf."""


def _integer(name: str, default: int, low: int = 0, high: int = MOST_INTEGER, *, formerly: str = "") -> Parameter:
    return Parameter(name, Type.INTEGER, str(default), low, high, formerly=formerly)


def _boolean(name: str, default: str = "no") -> Parameter:
    return Parameter(name, Type.BOOLEAN, default)


def _memory(name: str, default: int, low: int, high: int) -> Parameter:
    return Parameter(name, Type.MEMORY, str(default), low, high)


def _enum(name: str, default: str, *options: str) -> Parameter:
    return Parameter(name, Type.ENUM, default, options=options)


DURABILITY = "redkeep-durability"
"""What the group promises of acknowledged writes: see `decide/durability.py`."""

CATALOGUE = (
    # memory
    _enum(
        "maxmemory-policy",
        "noeviction",
        *("noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random"),
        *("volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"),
    ),
    _integer("maxmemory-samples", 5, 1, 64),
    _integer("maxmemory-eviction-tenacity", 10, 0, 100),
    _integer("lfu-log-factor", 10, 0, 255),
    _integer("lfu-decay-time", 1, 0, 65535),
    _boolean("lazyfree-lazy-eviction"),
    _boolean("lazyfree-lazy-expire"),
    _boolean("lazyfree-lazy-server-del"),
    _boolean("lazyfree-lazy-user-del"),
    _boolean("lazyfree-lazy-user-flush"),
    _boolean("replica-lazy-flush"),
    _boolean("activedefrag"),
    _memory("active-defrag-ignore-bytes", 100 * MEBIBYTE, MEBIBYTE, GIBIBYTE),
    _integer("active-defrag-threshold-lower", 10, 0, 1000),
    _integer("active-defrag-threshold-upper", 100, 0, 1000),
    _integer("active-defrag-cycle-min", 1, 1, 99),
    _integer("active-defrag-cycle-max", 25, 1, 99),
    _boolean("activerehashing", "yes"),
    _integer("active-expire-effort", 1, 1, 10),
    # how small values are kept
    _integer("hash-max-listpack-entries", 512, 0, 65536, formerly="hash-max-ziplist-entries"),
    _integer("hash-max-listpack-value", 64, 0, 65536, formerly="hash-max-ziplist-value"),
    _integer("list-max-listpack-size", -2, -5, 65536, formerly="list-max-ziplist-size"),
    _integer("list-compress-depth", 0, 0, 65536),
    _integer("set-max-intset-entries", 512, 0, 65536),
    _integer("zset-max-listpack-entries", 128, 0, 65536, formerly="zset-max-ziplist-entries"),
    _integer("zset-max-listpack-value", 64, 0, 65536, formerly="zset-max-ziplist-value"),
    _integer("hll-sparse-max-bytes", 3000, 0, 16000),
    _memory("stream-node-max-bytes", 4096, 0, MEBIBYTE),
    _integer("stream-node-max-entries", 100, 0, 65536),
    # saving
    Parameter("save", Type.STRING, "3600 1 300 100 60 10000", options=tuple("0123456789 ")),
    _enum("appendfsync", "everysec", "always", "everysec", "no"),
    _boolean("no-appendfsync-on-rewrite"),
    _integer("auto-aof-rewrite-percentage", 100, 10, 1000),
    _memory("auto-aof-rewrite-min-size", 64 * MEBIBYTE, MEBIBYTE, 16 * GIBIBYTE),
    _boolean("rdbcompression", "yes"),
    _boolean("stop-writes-on-bgsave-error", "yes"),
    # clients
    _integer("maxclients", 10000, 64, 65000),
    _integer("timeout", 0, 0, 86400),
    _memory("proto-max-bulk-len", 512 * MEBIBYTE, MEBIBYTE, 4 * GIBIBYTE),
    _memory("client-query-buffer-limit", GIBIBYTE, MEBIBYTE, 4 * GIBIBYTE),
    _integer("tracking-table-max-keys", 1000000, 0, 100_000_000),
    Parameter("notify-keyspace-events", Type.STRING, "", options=tuple("KEg$lshzxetdmA")),
    _integer("hz", 10, 1, 500),
    _boolean("dynamic-hz", "yes"),
    _integer("lua-time-limit", 5000, 10, 60000),
    # looking
    _integer("slowlog-log-slower-than", 10000, -1, MOST_INTEGER),
    _integer("slowlog-max-len", 128, 0, 100_000),
    _integer("latency-monitor-threshold", 0, 0, MOST_INTEGER),
    _integer("acllog-max-len", 128, 0, 10_000),
    Parameter("latency-tracking", Type.BOOLEAN, "yes", since=(7, 0)),
    # taken at a start only
    Parameter("databases", Type.INTEGER, "16", 16, 10000, restart_required=True),
    Parameter("io-threads", Type.INTEGER, "1", 1, 128, restart_required=True),
    Parameter("io-threads-do-reads", Type.BOOLEAN, "no", restart_required=True),
    # Redkeep's own
    Parameter(DURABILITY, Type.ENUM, "async", options=("async", "bounded", "sync"), own=True),
)
"""In the order in which it is listed. Names are those of the newest version."""

_PERSISTENCE = (
    "every server keeps its append-only file: without one a primary comes back from a crash with an old copy, or "
    "empty, and takes its replicas along. Use `appendfsync` and `save` to choose how much is written"
)
_DURABILITY = f"it can make a primary refuse every write. Use `{DURABILITY}`"
_REPLICATION = "Redkeep steers replication"
_PLACE = "Redkeep decides where a server listens and keeps its files"

KEPT: Mapping[str, str] = {
    "appendonly": _PERSISTENCE,
    "aof-use-rdb-preamble": _PERSISTENCE,
    "maxmemory": "it is the flavor's. Resize the instance to another flavor",
    "maxmemory-clients": "it can throw out Redkeep's own connections. Use `maxclients`",
    **dict.fromkeys(
        ("min-replicas-to-write", "min-replicas-max-lag", "min-slaves-to-write", "min-slaves-max-lag"), _DURABILITY
    ),
    **dict.fromkeys(
        (
            *("replicaof", "slaveof", "replica-read-only", "replica-priority", "replica-serve-stale-data"),
            *("repl-backlog-size", "repl-diskless-sync", "repl-diskless-sync-delay", "repl-diskless-load"),
            *("repl-timeout", "repl-ping-replica-period", "client-output-buffer-limit", "masterauth", "masteruser"),
        ),
        f"{_REPLICATION}. Promote, detach, or add replicas",
    ),
    **dict.fromkeys(
        ("bind", "port", "dir", "dbfilename", "appendfilename", "logfile", "pidfile", "unixsocket", "tls-port"), _PLACE
    ),
    **dict.fromkeys(
        ("requirepass", "aclfile", "user"), "users are a resource of their own. Use .../users and .../root"
    ),
    **dict.fromkeys(("cluster-enabled", "cluster-config-file"), "an instance is not a member of a cluster"),
    **dict.fromkeys(("rename-command", "loadmodule"), "it would change what Redkeep and your clients rely on"),
}
"""What is Redkeep's to set, and the way out."""


# --- Looking up ---------------------------------------------------------------------------------------------------


@cache
def offered(version: str) -> Mapping[str, Parameter]:
    """The parameters of a version (`major.minor`), by the name that they have there."""
    number = _number(version)
    return {name_in(one, version): one for one in CATALOGUE if one.since <= number}


def name_in(parameter: Parameter, version: str) -> str:
    """What a version calls it."""
    return parameter.formerly if parameter.formerly and _number(version) < LISTPACKS else parameter.name


def find(name: str, version: str) -> Parameter:
    """A parameter by its name. Raises Refused (kind `missing`)."""
    found = offered(version).get(name)
    if found is None:
        instead = _instead(name, version)
        raise Refused(f"Parameter {name[:64]} is not offered for Redis {version}. {instead}", kind="missing")
    return found


def _number(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _instead(name: str, version: str) -> str:
    if reason := KEPT.get(name.lower()):
        return f"It is not a tenant's to set: {reason}."
    for one in CATALOGUE:
        if name in (one.name, one.formerly) and one.since <= _number(version):
            return f"There it is called {name_in(one, version)}."
        if name == one.name:
            return f"It came with Redis {one.since[0]}.{one.since[1]}."
    return "See the parameters of the datastore version for those that are."


# --- Values -------------------------------------------------------------------------------------------------------


def validate(values: Mapping[str, object], version: str) -> Parameters:
    """Values as a server of this version takes them. Raises Refused, naming all that is wrong, and the way out."""
    wrong, right = list[str](), dict[str, str]()
    for name, value in values.items():
        try:
            right[name] = _value(name, find(name, version), value)
        except Refused as error:
            wrong.append(str(error))
    wrong += _clashes(right, version)
    if wrong:
        raise Refused(" ".join(wrong))
    return tuple(sorted(right.items()))


def carried_over(parameters: Parameters, version: str) -> Parameters:
    """The same values in the words of another version. Raises Refused when it does not offer one of them."""
    renamed = {one.formerly: one for one in CATALOGUE if one.formerly} | {one.name: one for one in CATALOGUE}
    words = {name_in(renamed[name], version) if name in renamed else name: value for name, value in parameters}
    return validate(words, version)


def effective(parameters: Parameters, version: str) -> dict[str, str]:
    """Every offered parameter with the value that a server has: the given ones, and the defaults."""
    return {name: one.default for name, one in offered(version).items()} | dict(parameters)


def live(parameters: Parameters, version: str) -> dict[str, str]:
    """Of those, what a running server can be told."""
    known = offered(version)
    every = effective(parameters, version)
    told = {name for name, one in known.items() if not one.restart_required and not one.own}
    return {name: value for name, value in every.items() if name in told}


def for_redis(parameters: Parameters) -> Parameters:
    """Those that are lines of redis.conf."""
    own = {one.name for one in CATALOGUE if one.own}
    return tuple((name, value) for name, value in parameters if name not in own)


def _value(name: str, parameter: Parameter, value: object) -> str:
    match parameter.type:
        case Type.BOOLEAN:
            return _as_boolean(name, value)
        case Type.ENUM:
            if value not in parameter.options:
                raise Refused(f"{name} must be one of {', '.join(parameter.options)}.")
            return str(value)
        case Type.STRING:
            return _as_text(name, parameter, value)
        case Type.INTEGER:
            return _within(name, parameter, _as_integer(name, value))
        case Type.MEMORY:
            return _within(name, parameter, _as_bytes(name, value))


def _as_boolean(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value not in ("yes", "no"):
        raise Refused(f"{name} must be yes or no.")
    return str(value)


def _as_integer(name: str, value: object) -> int:
    text = str(value)
    digits = text.removeprefix("-")
    if isinstance(value, bool) or not isinstance(value, int | str) or not (digits.isascii() and digits.isdecimal()):
        raise Refused(f"{name} must be a whole number.")
    return int(text[:32])


def _as_bytes(name: str, value: object) -> int:
    text = str(value).lower()
    digits = text.rstrip("bkmg")
    unit = _UNITS.get(text[len(digits) :])
    if isinstance(value, bool) or not isinstance(value, int | str) or unit is None or not digits.isdecimal():
        raise Refused(f"{name} must be a number of bytes, as 1048576 or 64mb.")
    return _as_integer(name, digits) * unit


def _within(name: str, parameter: Parameter, number: int) -> str:
    if not parameter.low <= number <= parameter.high:
        raise Refused(f"{name} must be from {parameter.low} to {parameter.high}.")
    return str(number)


def _as_text(name: str, parameter: Parameter, value: object) -> str:
    if not isinstance(value, str) or not set(value) <= set(parameter.options):
        raise Refused(f"{name} must be text of these characters: {''.join(parameter.options)!r}.")
    if name == "save":
        return _as_save_points(value)
    return value


def _as_save_points(value: str) -> str:
    numbers = value.split()
    if len(numbers) % 2 or len(numbers) > 16 or any(not 1 <= int(number[:12]) <= MOST_INTEGER for number in numbers):
        raise Refused("save must be up to eight pairs of seconds and changes, as '3600 1 300 100', or empty.")
    return " ".join(str(int(number)) for number in numbers)


def _clashes(right: Mapping[str, str], version: str) -> list[str]:
    """Values that are good alone and not together."""
    every = effective(tuple(right.items()), version)
    pairs = (
        ("active-defrag-threshold-lower", "active-defrag-threshold-upper"),
        ("active-defrag-cycle-min", "active-defrag-cycle-max"),
    )
    found = [f"{low} must not be greater than {high}." for low, high in pairs if int(every[low]) > int(every[high])]
    if every["io-threads-do-reads"] == "yes" and every["io-threads"] == "1":
        found.append("io-threads-do-reads needs io-threads of 2 or more.")
    if int(every["client-query-buffer-limit"]) < int(every["proto-max-bulk-len"]):
        found.append("client-query-buffer-limit must not be less than proto-max-bulk-len.")
    return found


# --- Changes ------------------------------------------------------------------------------------------------------


def loss(old: Parameters, new: Parameters, version: str) -> str | None:
    """Why going from one to the other could lose data, or None.

    With fewer databases a server does not start when one of those beyond has keys in its snapshot; what stands of them
    in its append-only file ends up in another database. So their number only ever rises.
    """
    before, after = (int(effective(values, version)["databases"]) for values in (old, new))
    if after < before:
        return (
            f"databases cannot go from {before} back to {after}: what the databases beyond hold would be lost. "
            f"Use a configuration with databases of {before} or more, or move the data to a new instance."
        )
    return None


def waiting(instance: Instance) -> tuple[str, ...]:
    """Names of the parameters that its server takes up with its next start."""
    if instance.address is None or instance.proven.parameters == instance.parameters:
        return ()
    known = offered(instance.version)
    now, then = (effective(each, instance.version) for each in (instance.proven.parameters, instance.parameters))
    return tuple(sorted(name for name in known if known[name].restart_required and now.get(name) != then.get(name)))


def shown_status(instance: Instance) -> Status:
    """The status as people see it."""
    return Status.RESTART_REQUIRED if instance.status is Status.ACTIVE and waiting(instance) else instance.status

"""What INFO says, as facts. Pure: takes the parsed sections of redis-py, returns frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redkeep.model.facts import Follower, Upstream
from redkeep.model.topology import Address, Role

FULL = 0.99
"""Share of its memory above which a server is full."""
NEARLY_FULL = 0.95
"""The same for one that has refused a write for it: while that is under way its own size counts as well."""


def role(info: Mapping[str, Any]) -> Role:
    return Role.PRIMARY if info["role"] == "master" else Role.REPLICA


def offset(info: Mapping[str, Any]) -> int:
    """What a primary has produced, or a replica has applied."""
    if info["role"] == "slave":
        return int(info.get("slave_repl_offset", -1))
    return int(info.get("master_repl_offset", -1))


def upstream(info: Mapping[str, Any]) -> Upstream | None:
    """The link of a replica to its primary; None for a primary."""
    if info["role"] != "slave":
        return None
    return Upstream(
        primary=Address(str(info["master_host"]), int(info["master_port"])),
        link_up=info["master_link_status"] == "up",
        syncing=bool(int(info.get("master_sync_in_progress", 0))),
        last_io_seconds=int(info.get("master_last_io_seconds_ago", -1)),
        received_bytes=max(0, int(info.get("master_sync_read_bytes", 0))),
        total_bytes=max(0, int(info.get("master_sync_total_bytes", 0))),
    )


def followers(info: Mapping[str, Any]) -> tuple[Follower, ...]:
    """The replicas that are connected to this server, in the order in which they came."""
    found = []
    for number in range(int(info.get("connected_slaves", 0))):
        entry = info.get(f"slave{number}")
        if isinstance(entry, Mapping):
            found.append(
                Follower(
                    address=Address(str(entry["ip"]), int(entry["port"])),
                    online=entry["state"] == "online",
                    offset=int(entry["offset"]),
                    lag_seconds=float(entry["lag"]),
                )
            )
    return tuple(found)


def loading(info: Mapping[str, Any]) -> bool:
    """Whether it is still reading its data set, from a file or from its primary."""
    return bool(int(info.get("loading", 0)))


def keys(info: Mapping[str, Any]) -> int:
    """Keys in all databases."""
    databases = (value for name, value in info.items() if name.startswith("db") and isinstance(value, Mapping))
    return sum(int(database["keys"]) for database in databases)


def trouble(info: Mapping[str, Any]) -> str:
    """Why the server refuses writes though it runs and may accept them, for people; "" when it does not."""
    if info.get("aof_last_write_status", "ok") != "ok":
        return "it cannot write its append-only file and refuses writes: is its disk full?"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return "its last save failed, so it may refuse writes (MISCONF): is its disk or its memory full?"
    most, counted = int(info["maxmemory"]), int(info["used_memory"]) - int(info.get("mem_not_counted_for_evict", 0))
    evicts = info["maxmemory_policy"] != "noeviction"
    full = NEARLY_FULL if "errorstat_OOM" in info else FULL
    if most and counted >= full * most and not evicts and info["role"] == "master":
        return f"its {most >> 20} MB are full, and it refuses writes (OOM): resize it, or let it evict"
    return ""


def has_child(info: Mapping[str, Any]) -> bool:
    """A child of the server is at work on its data: it starts no other until that ends."""
    return bool(int(info["rdb_bgsave_in_progress"])) or bool(int(info["aof_rewrite_in_progress"]))


def saves(info: Mapping[str, Any]) -> bool:
    """A BGSAVE is under way."""
    return bool(int(info["rdb_bgsave_in_progress"]))


def saved_fraction(info: Mapping[str, Any]) -> float:
    """How much of its keys the BGSAVE that is under way has written, from 0 to 1."""
    total, done = int(info.get("current_save_keys_total", 0)), int(info.get("current_save_keys_processed", 0))
    return min(1.0, done / total) if total > 0 else 0.0


def data_bytes(info: Mapping[str, Any]) -> int:
    """Memory that the data takes: without the buffers of clients and replicas, which come and go."""
    buffers = ("mem_replication_backlog", "mem_clients_slaves", "mem_clients_normal")
    return max(0, int(info["used_memory"]) - sum(int(info.get(name, 0)) for name in buffers))

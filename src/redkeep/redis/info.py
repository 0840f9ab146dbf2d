"""What INFO says, as facts. Pure: takes the parsed sections of redis-py, returns frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redkeep.model.facts import Follower, Upstream
from redkeep.model.topology import Address, Role


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

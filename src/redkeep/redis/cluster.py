"""What a member of a Redis Cluster says, as facts, and what is said to it. Pure: texts and data, no connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redkeep.model.facts import ClusterFacts, OpenSlots
from redkeep.model.slots import Ranges, parse_nodes, slots_in
from redkeep.model.topology import Address
from redkeep.redis.admin import Command

LOOK: Sequence[Command] = (("CLUSTER", "INFO"), ("CLUSTER", "NODES"))
"""What `facts` reads."""


def facts(info: str, nodes: str, asked: Address) -> ClusterFacts:
    """From the answers to `LOOK` of the member at `asked`. Raises ValueError on anything else."""
    said = dict(line.split(":", 1) for line in info.split() if ":" in line)
    rows = [row for line in nodes.splitlines() if (row := line.split())]
    own = next((row for row in rows if "myself" in row[2].split(",")), None)
    if own is None or "cluster_state" not in said:
        raise ValueError(f"{asked}: not the words of a member of a cluster: {nodes[:200]!r}")
    flags = {row[0]: row[2].split(",") for row in rows}
    return ClusterFacts(
        node_id=own[0],
        state_ok=said["cluster_state"] == "ok",
        epoch=int(said["cluster_current_epoch"]),
        my_epoch=int(said["cluster_my_epoch"]),
        view=parse_nodes(nodes, asked),
        nameless=tuple(name for name, words in flags.items() if "noaddr" in words),
        shaking=sum("handshake" in words for words in flags.values()),
        migrating=_open(own[8:], "->-"),
        importing=_open(own[8:], "-<-"),
    )


def _open(fields: Iterable[str], arrow: str) -> OpenSlots:
    """`[12->-NODE]`: slot 12 is being given to NODE; `[12-<-NODE]`: taken from it."""
    pairs = (field.strip("[]").split(arrow) for field in fields if field.startswith("[") and arrow in field)
    return tuple((int(slot), node_id) for slot, node_id in pairs)


# --- Words ----------------------------------------------------------------------------------------------------------


def set_node_timeout(milliseconds: int) -> Command:
    return ("CONFIG", "SET", "cluster-node-timeout", milliseconds)


def add_slots(ranges: Ranges) -> Command:
    """One by one: ADDSLOTSRANGE is there from 7.0 on."""
    return ("CLUSTER", "ADDSLOTS", *slots_in(ranges))


def give_to(slots: Iterable[int], node_id: str) -> list[Command]:
    """Who owns them."""
    return [("CLUSTER", "SETSLOT", slot, "NODE", node_id) for slot in slots]


def migrating(marks: OpenSlots) -> list[Command]:
    return [("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id) for slot, node_id in marks]


def importing(marks: OpenSlots) -> list[Command]:
    return [("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id) for slot, node_id in marks]


def stable(slots: Iterable[int]) -> list[Command]:
    return [("CLUSTER", "SETSLOT", slot, "STABLE") for slot in slots]


TAKE_OVER: Command = ("CLUSTER", "FAILOVER", "TAKEOVER")

LIST_KEYS = """
local keys = redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[1], ARGV[2])
local large = {}
for at, key in ipairs(keys) do
  local used = redis.pcall('MEMORY', 'USAGE', key)
  if type(used) == 'number' and used > tonumber(ARGV[3]) then
    large[#large + 1] = {at - 1, used}
  end
end
return {keys, large}
"""
"""Keys of slot ARGV[1], at most ARGV[2]; and which of them take more than ARGV[3] bytes, with the bytes that they take.
One trip for each slot: asking for the memory of each key by itself would cost more than moving it."""


def migrate(target: Address, keys: Sequence[bytes], user: str, password: str, timeout_ms: int) -> Command:
    """Both servers serve nobody else meanwhile.

    REPLACE: a key that both have was restored there and not yet deleted here, and here it is served from. That holds as
    long as the slot is given away: once it is not, nobody may be told to migrate it from here.
    """
    where = (target.host, target.port, "", 0, timeout_ms, "REPLACE")
    return ("MIGRATE", *where, "AUTH2", user, password, "KEYS", *keys)

"""The guest agent's part in a cluster, by the six methods of the clustering specification.

The class is named by the option `guestagent_strategy`: another one that has these methods may take its place, best by
inheriting from this one.
"""

from __future__ import annotations

from collections.abc import Sequence

from redkeep.errors import Refused
from redkeep.model.topology import Address
from redkeep.redis import cluster
from redkeep.redis.admin import Admin

METHODS = (
    "get_node_ip",
    "get_node_id_for_removal",
    "remove_nodes",
    "cluster_meet",
    "cluster_addslots",
    "cluster_complete",
)
"""What a class needs to be one."""


class GuestAgentStrategy:
    """What one member of a cluster is told, in the words of Redis. Raises what `Admin` raises."""

    def __init__(self, admin: Admin, address: Address, node_timeout_ms: int) -> None:
        self.admin = admin
        self.address = address
        self.node_timeout_ms = node_timeout_ms

    async def get_node_ip(self) -> Address:
        """Where the others meet it."""
        return self.address

    async def get_node_id_for_removal(self) -> str | None:
        """Its node id, if it may leave; None when it has slots, or is about to get some."""
        info, nodes = await self.admin.run(*cluster.LOOK)
        facts = cluster.facts(info, nodes, self.address)
        return None if facts.ranges or facts.importing or facts.migrating else facts.node_id

    async def remove_nodes(self, node_ids: Sequence[str]) -> None:
        """It knows none of these any more. One that it never knew is no error."""
        for node_id in node_ids:
            try:
                await self.admin.run(("CLUSTER", "FORGET", node_id))
            except Refused as error:
                if "Unknown node" not in str(error):
                    raise

    async def cluster_meet(self, ip: str, port: int) -> None:
        """It introduces itself there. That both know each other takes some turns of their own clocks."""
        await self.admin.run(("CLUSTER", "MEET", ip, port))

    async def cluster_addslots(self, first_slot: int, last_slot: int) -> None:
        """It owns these, both included, which nobody owned before."""
        await self.admin.run(cluster.add_slots(((first_slot, last_slot),)))

    async def cluster_complete(self) -> None:
        """The cluster is made: from now on it is as patient with the others as configured."""
        await self.admin.run(cluster.set_node_timeout(self.node_timeout_ms))

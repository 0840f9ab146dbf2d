"""A customer's Redis Cluster: what its owner ordered. Its servers are the instances of the group of the same id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from redkeep.model.instance import Fault


class ClusterTask(StrEnum):
    """What is being done with a cluster. The words are Trove's (contract, section 6.1).

    Like an instance's status it is a lock: only the transaction that moves NONE to another one may record the operation
    that ends with NONE again.
    """

    NONE = "NONE"
    BUILDING = "BUILDING"
    DELETING = "DELETING"
    ADDING_SHARD = "ADDING_SHARD"
    GROWING_CLUSTER = "GROWING_CLUSTER"
    SHRINKING_CLUSTER = "SHRINKING_CLUSTER"
    UPGRADING_CLUSTER = "UPGRADING_CLUSTER"
    RESTARTING_CLUSTER = "RESTARTING_CLUSTER"
    UPDATING_CLUSTER = "UPDATING_CLUSTER"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Redis Cluster. `id` is that of its group, which has its leases, epochs, secrets, users and operations."""

    id: str
    project_id: str
    name: str
    version: str
    """Its members', `major.minor`; while an upgrade is under way some have the one before still."""
    task: ClusterTask
    created: float
    updated: float
    replicas_per_shard: int = 0
    formed: bool = False
    """All slots were given out and all members agreed on it. Before that there is nothing to keep healthy, and nothing
    that may be used."""
    members_made: int = 0
    """The highest number that a member of it ever had: the next one is `<name>-member-<members_made + 1>`, so that no
    name comes twice."""
    configuration_id: str | None = None
    """The configuration group of all members, those to come included."""
    fault: Fault | None = None
    """Why its last task was given up. Shown to its owner; the next task that ends well removes it."""
    deleted: bool = False

"""What managers do with clusters of Redis: the class that the option `taskmanager_strategy` names.

Another one may be named in its place; the operations that the API's strategy records must all be among its runbooks.
"""

from __future__ import annotations

from collections.abc import Mapping

from redkeep.model.operation import Kind
from redkeep.operations import (
    change_replicas,
    configure_cluster,
    create_cluster,
    delete_cluster,
    fail_over_shard,
    grow_cluster,
    mend_cluster,
    promote_shard_replica,
    rebalance_cluster,
    roll_cluster,
    shrink_cluster,
)
from redkeep.operations.runbook import Runbook

METHODS = ("runbooks",)
"""What a strategy must have."""


class RedisTaskManagerStrategy:
    """The runbooks of clusters."""

    def runbooks(self) -> Mapping[Kind, Runbook]:
        """By the kind of operation that each does."""
        return {
            Kind.CREATE_CLUSTER: Runbook(create_cluster.run, create_cluster.give_up),
            Kind.GROW_CLUSTER: Runbook(grow_cluster.run, grow_cluster.give_up),
            Kind.SHRINK_CLUSTER: Runbook(shrink_cluster.run, shrink_cluster.give_up),
            Kind.CHANGE_REPLICAS: Runbook(change_replicas.run, change_replicas.give_up),
            Kind.ROLL_CLUSTER: Runbook(roll_cluster.run, roll_cluster.give_up),
            Kind.CONFIGURE_CLUSTER: Runbook(configure_cluster.run, configure_cluster.give_up),
            Kind.DELETE_CLUSTER: Runbook(delete_cluster.run, delete_cluster.give_up),
            Kind.FAIL_OVER_SHARD: Runbook(fail_over_shard.run, fail_over_shard.give_up),
            Kind.PROMOTE_SHARD_REPLICA: Runbook(promote_shard_replica.run, promote_shard_replica.give_up),
            Kind.REBALANCE_CLUSTER: Runbook(rebalance_cluster.run, rebalance_cluster.give_up),
            Kind.MEND_CLUSTER: Runbook(mend_cluster.run, mend_cluster.give_up),
        }

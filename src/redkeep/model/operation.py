"""Operations: what was asked for, as a row that survives whoever works on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The runbooks. Each is one module in `operations/`."""

    CREATE_INSTANCE = "create_instance"
    ADD_REPLICAS = "add_replicas"
    DELETE_INSTANCE = "delete_instance"
    RESTART_INSTANCE = "restart_instance"
    RESIZE_INSTANCE = "resize_instance"
    UPDATE_USERS = "update_users"
    CONFIGURE = "configure"
    ROLL_GROUP = "roll_group"
    PROMOTE_REPLICA = "promote_replica"
    EJECT_PRIMARY = "eject_primary"
    DETACH_REPLICA = "detach_replica"
    BECOME_INDEPENDENT = "become_independent"
    FAIL_OVER = "fail_over"
    REPAIR = "repair"
    CREATE_BACKUP = "create_backup"
    DELETE_BACKUP = "delete_backup"
    CREATE_CLUSTER = "create_cluster"
    GROW_CLUSTER = "grow_cluster"
    SHRINK_CLUSTER = "shrink_cluster"
    CHANGE_REPLICAS = "change_replicas"
    ROLL_CLUSTER = "roll_cluster"
    CONFIGURE_CLUSTER = "configure_cluster"
    REBALANCE_CLUSTER = "rebalance_cluster"
    DELETE_CLUSTER = "delete_cluster"
    FAIL_OVER_SHARD = "fail_over_shard"
    PROMOTE_SHARD_REPLICA = "promote_shard_replica"
    MEND_CLUSTER = "mend_cluster"


class State(StrEnum):
    """Every operation ends in DONE or FAILED; one whose doer died is still RUNNING and is taken over."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def open(self) -> bool:
        return self in (State.PENDING, State.RUNNING)


URGENT = frozenset({Kind.FAIL_OVER, Kind.FAIL_OVER_SHARD})
"""Kinds that overtake whatever else a group has waiting."""

BACKGROUND = frozenset({Kind.CREATE_BACKUP, Kind.DELETE_BACKUP})
"""Kinds that change no server and may take hours: everything else goes first, and is not kept from starting by them."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change to one group. `args` is what was asked, `choice` what was decided before anyone acted on it."""

    id: str
    group_id: str
    kind: Kind
    created: float
    args: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    state: State = State.PENDING
    step: str = ""
    progress: float = 0.0
    """From 0 to 1."""
    attempts: int = 0
    not_before: float = 0.0
    """Store time before which it should not be tried (again)."""
    deadline: float = 0.0
    """Store time after which it is given up: nothing stays in BUILD for ever."""
    error: str | None = None
    requested_by: str = "redkeep"
    finished: float | None = None

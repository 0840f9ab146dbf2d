"""One leaves its group: in one transaction its row moves to a group of its own, with what is left to do there.

The server itself does not know yet. `become_independent`, under the lease of the new group, tells it.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from redkeep.errors import RedkeepError, Refused
from redkeep.model.instance import Instance, Status
from redkeep.model.operation import Kind, Operation
from redkeep.model.topology import Role
from redkeep.operations.context import Run
from redkeep.orders import HINTS, hint
from redkeep.ports import Transaction

LIMIT = 900.0
"""Seconds that the server's host gets to come back before the instance is given up."""


async def move_out(run: Run, tx: Transaction, instance: Instance, group_id: str, status: Status) -> None:
    """Inside a change of the old group. The new group was made when the operation was recorded."""
    apart = await tx.group(group_id, lock=True)
    if apart is None:
        raise Refused(f"the group {group_id} that {instance.name} was to move to is not there", kind="missing")
    now = await tx.now()
    await tx.save(
        replace(apart, primary_id=instance.id),
        replace(instance, group_id=group_id, role=Role.PRIMARY, replica_of=None, status=status, updated=now),
        Operation(
            id=str(uuid.uuid4()),
            group_id=group_id,
            kind=Kind.BECOME_INDEPENDENT,
            created=now,
            args={"instance": instance.id},
            deadline=now + LIMIT,
            requested_by=run.operation.requested_by,
        ),
    )


async def poke(run: Run, group_id: str) -> None:
    """Have a manager look at the new group now; it would find the operation without that."""
    try:
        await run.tools.bus.publish(HINTS, hint(group_id))
    except RedkeepError:
        return

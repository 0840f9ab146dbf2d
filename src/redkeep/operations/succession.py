"""The rows after a change of primary: written once, in one transaction, by every runbook that makes one."""

from __future__ import annotations

from dataclasses import replace

from redkeep.model.instance import Instance
from redkeep.model.topology import Role
from redkeep.operations.context import Run


async def record_primary(run: Run, primary_id: str, note: str) -> None:
    """From now on this instance is the primary of its group, for everyone who reads the store."""

    def in_place(one: Instance) -> Instance:
        if one.id == primary_id:
            return replace(one, role=Role.PRIMARY, replica_of=None)
        return replace(one, role=Role.REPLICA, replica_of=primary_id)

    await run.alter(
        group=lambda group: replace(group, primary_id=primary_id, successor_id=None, topology_epoch=group.epoch),
        instances=in_place,
        note=note,
        about=primary_id,
    )

"""The rows after a change of primary: written once, in one transaction, by every runbook that makes one."""

from __future__ import annotations

from dataclasses import replace

from redkeep.model.topology import Role
from redkeep.operations.context import Run


async def record_primary(run: Run, primary_id: str, note: str) -> None:
    """From now on this instance is the primary of its group, for everyone who reads the store."""
    group = replace(run.group, primary_id=primary_id, successor_id=None, topology_epoch=run.group.epoch)
    instances = [
        replace(one, role=Role.PRIMARY, replica_of=None)
        if one.id == primary_id
        else replace(one, role=Role.REPLICA, replica_of=primary_id)
        for one in run.instances
    ]
    await run.save(group, *instances, note=note, about=primary_id)

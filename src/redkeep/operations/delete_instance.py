"""Delete an instance: nobody may be promoted to it any more, then its process and files go, then its row.

`args`: `instance`.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.model.instance import Status
from redkeep.model.orders import EnsureRemoved
from redkeep.operations.context import Run


async def run(run: Run) -> None:
    instance = run.find(run.arg("instance"))
    if instance is None:
        return

    await run.step("remove", 0.3)
    if instance.host_id is not None:
        await run.expect_absence(instance)
        await run.tell(instance, EnsureRemoved(instance.id, run.group.id, run.group.epoch), timeout=30)

    run.mark("record", 0.7)
    remaining = None if run.group.primary_id == instance.id else run.group.primary_id
    await run.alter(
        group=lambda group: replace(group, primary_id=remaining, topology_epoch=group.epoch),
        instances=lambda one: replace(one, deleted=True, fault=None) if one.id == instance.id else one,
        note=f"{instance.name} is gone",
        about=instance.id,
    )

    run.mark("brief the others", 1.0)
    if run.group.primary_id is not None:
        told = run.topology(run.group.primary_id)
        await run.announce(told)
        await run.brief_members(told)


async def give_up(run: Run, reason: str) -> None:
    await run.settle([run.arg("instance")], Status.ERROR, f"{reason} Delete it again.")

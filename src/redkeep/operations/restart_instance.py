"""Restart one server in order: it saves, ends, starts, loads, and takes up its role again.

`args`: `instance`.
"""

from __future__ import annotations

from redkeep.model.instance import Status
from redkeep.model.orders import EnsureRunning, Promote
from redkeep.operations.context import Run


async def run(run: Run) -> None:
    instance = run.instance(run.arg("instance"))
    assigned = run.assignment(instance, run.topology(run.group.primary_id))

    await run.step("restart", 0.2)
    await run.tell(instance, EnsureRunning(run.spec(instance), assigned, restart_token=run.operation.id), timeout=90)

    run.mark("load", 0.6)
    await run.until_loaded(instance)

    run.mark("open", 0.9)
    if assigned.primary is None:
        await run.tell(instance, Promote(assigned))

    run.mark("record", 1.0)
    await run.settle([instance.id], Status.ACTIVE)
    await run.note(f"{instance.name} was restarted", instance.id)


async def give_up(run: Run, reason: str) -> None:
    await run.settle([run.arg("instance")], Status.ERROR, reason)

"""Create an instance: place it, start redis-server as nobody's replica, open it for writes.

From a backup: the copy is checked and put in place before the server is started.

`args`: `instance`; `backup`, what to restore, if anything. `choice`: `fetches`, how often that was tried.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.topology import topology
from redkeep.model.backup import holder_of
from redkeep.model.instance import Status
from redkeep.model.orders import EnsureRunning, Promote
from redkeep.operations.context import Run
from redkeep.operations.placing import ensure_placed, start_placed
from redkeep.operations.restoring import fetch, restorable


async def run(run: Run) -> None:
    name = run.arg("instance")
    await run.step("place", 0.1)
    backup = await restorable(run)
    await ensure_placed(run, name, only=holder_of(backup.location) if backup else None)

    if backup:
        await run.step("fetch", 0.2)
        await fetch(run, name, backup)

    run.mark("start", 0.3)
    told = topology(run.group.id, run.group.epoch, [run.instance(name)], name)
    assigned = run.assignment(run.instance(name), told)
    order = EnsureRunning(run.spec(run.instance(name)), assigned, with_data=backup is not None)
    await start_placed(run, name, order)

    run.mark("load", 0.6)
    await run.until_loaded(run.instance(name))

    run.mark("open", 0.9)
    await run.tell(run.instance(name), Promote(run.assignment(run.instance(name), told)))

    run.mark("record", 1.0)
    await run.alter(
        group=lambda group: replace(group, primary_id=name, topology_epoch=group.epoch),
        instances=lambda one: replace(one, status=Status.ACTIVE, fault=None) if one.id == name else one,
        note=f"{run.instance(name).name} is ready on {run.instance(name).address}",
        about=name,
    )
    await run.announce(told)


async def give_up(run: Run, reason: str) -> None:
    await run.settle([run.arg("instance")], Status.ERROR, reason)

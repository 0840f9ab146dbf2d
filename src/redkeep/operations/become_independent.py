"""A server that has left its group becomes the primary of its own: other secrets, nobody to follow, and no way back.

`args`: `instance`.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.topology import topology
from redkeep.model.instance import Status
from redkeep.model.orders import EnsureRunning, Promote
from redkeep.operations.context import Run


async def run(run: Run) -> None:
    name = run.arg("instance")
    instance = run.instance(name)
    assigned = run.assignment(instance, topology(run.group.id, run.group.epoch, [instance], name))

    await run.step("separate", 0.2)
    await run.tell(instance, EnsureRunning(run.spec(instance), assigned), timeout=30)

    run.mark("load", 0.5)
    await run.until_loaded(instance)

    run.mark("open", 0.8)
    await run.tell(instance, Promote(assigned))

    run.mark("record", 1.0)
    await run.alter(
        group=lambda group: replace(group, primary_id=name, topology_epoch=group.epoch),
        instances=lambda one: replace(one, status=Status.ACTIVE, fault=None) if one.id == name else one,
        note=f"{instance.name} stands on its own",
        about=name,
    )
    await run.announce(assigned.topology)


async def give_up(run: Run, reason: str) -> None:
    await run.settle([run.arg("instance")], Status.ERROR, f"{reason} It has left its group; delete it, or restart it.")

"""Restart one server in order: it saves, ends, starts, loads, and takes up its role again.

One that ends at its start under parameters that it never ran with is started with those that it last came up with.

`args`: `instance`. `choice`: `stopped`, why its parameters were put back.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.errors import Unavailable
from redkeep.model.instance import Status
from redkeep.model.orders import Promote
from redkeep.operations.context import Run
from redkeep.operations.renewal import is_unproven, proven, restore, start_anew


async def run(run: Run) -> None:
    name = run.arg("instance")
    assigned = run.assignment(run.instance(name), run.topology(run.group.primary_id))

    await run.step("restart", 0.2)
    await _restart(run, name)

    run.mark("load", 0.6)
    await run.until_loaded(run.instance(name))

    run.mark("open", 0.9)
    if assigned.primary is None:
        await run.tell(run.instance(name), Promote(assigned))

    run.mark("record", 1.0)
    await run.alter(instances=lambda one: proven(one) if one.id == name else one)
    await run.settle([name], Status.ACTIVE, run.operation.choice.get("stopped"))
    await run.note(f"{run.instance(name).name} was restarted", name)


async def give_up(run: Run, reason: str) -> None:
    await run.settle([run.arg("instance")], Status.ERROR, reason)


async def _restart(run: Run, name: str) -> None:
    stopped = run.operation.choice.get("stopped")
    reason = await start_anew(run, name, f"{run.operation.id}/back" if stopped else run.operation.id)
    instance = run.instance(name)
    if reason is None:
        return
    if stopped or not is_unproven(instance):
        raise Unavailable(reason)
    said = f"{instance.name} does not start with its new parameters, and has the old ones again: {reason}"
    run.operation = replace(run.operation, choice={"stopped": said})
    await restore(run, name, instance.version)
    await run.note(said, name)
    await _restart(run, name)

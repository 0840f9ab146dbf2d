"""Shrink a cluster: members without slots leave; with `drain` their slots are moved to the others before.

Whom they are is saved before anybody is told to forget them, and from then on there is no way back.

`args`: `instances`, who leaves; `drain`, and at which `pace`. `choice`: `forget`, what Redis calls them.
"""

from __future__ import annotations

from redkeep.model.cluster import ClusterTask
from redkeep.model.slots import Pace
from redkeep.operations.context import Run
from redkeep.operations.membership import fail, finish
from redkeep.operations.parting import part, stay_after_all
from redkeep.operations.shifting import drain

TASK = ClusterTask.SHRINKING_CLUSTER


async def run(run: Run) -> None:
    names = [one.name for one in run.instances if one.id in run.arg("instances")]
    if run.operation.args.get("drain") and "forget" not in run.operation.choice:
        await drain(run, run.arg("instances"), Pace(run.operation.args.get("pace", Pace.GENTLE)))
    await part(run, run.arg("instances"))

    run.mark("record", 1.0)
    await finish(run, TASK, f"{', '.join(names) or 'nobody'} left")


async def give_up(run: Run, reason: str) -> None:
    await stay_after_all(run, run.arg("instances"), reason)
    await fail(run, TASK, f"It was not shrunk: {reason}")

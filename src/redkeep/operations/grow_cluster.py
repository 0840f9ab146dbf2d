"""Grow a cluster: new shards join, without slots, once all who are there agree; if asked, they get their share.

`args`: `instances`, the new members; `zones`, where some of them are to be; `rebalance`, whether slots
move to them, and at which `pace`.
"""

from __future__ import annotations

from redkeep.errors import Refused
from redkeep.model.cluster import ClusterTask
from redkeep.model.slots import Pace
from redkeep.operations.context import Run
from redkeep.operations.joining import join
from redkeep.operations.membership import drop_unfinished, fail, finish
from redkeep.operations.shifting import rebalance

TASK = ClusterTask.GROWING_CLUSTER


async def run(run: Run) -> None:
    names = [name for name in run.arg("instances") if run.find(name)]
    if not names:
        raise Refused("the new members were deleted before they were made", kind="missing")
    await join(run, names)
    if run.operation.args.get("rebalance"):
        await rebalance(run, {}, Pace(run.operation.args.get("pace", Pace.GENTLE)))

    run.mark("record", 1.0)
    await finish(run, TASK, f"{', '.join(run.instance(name).name for name in names)} joined")


async def give_up(run: Run, reason: str) -> None:
    await drop_unfinished(run, run.arg("instances"), reason)
    await fail(run, TASK, f"It was not grown: {reason}")

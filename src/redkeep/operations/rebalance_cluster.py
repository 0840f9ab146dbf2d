"""Rebalance a cluster: every shard gets its share of the slots, by weights, and no slot moves that need not.

`args`: `weights`, by the instance that is primary of a shard (1 for all others); `pace`; `dry_run`, to be told what
would move and nothing else. `choice`: `slots` to move, `slots_moved`, `keys_moved`; or `plan`, what a dry run found.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.slots import describe, size
from redkeep.model.cluster import ClusterTask
from redkeep.model.slots import Pace
from redkeep.operations.context import Run
from redkeep.operations.membership import fail, finish
from redkeep.operations.shifting import planned, rebalance

TASK = ClusterTask.UPDATING_CLUSTER


async def run(run: Run) -> None:
    weights = {str(name): float(weight) for name, weight in run.operation.args.get("weights", {}).items()}
    if run.operation.args.get("dry_run"):
        shifts = await planned(run, weights)
        told = describe(shifts, {})
        plan = [[one.source, one.target, [list(pair) for pair in one.ranges]] for one in shifts]
        run.operation = replace(run.operation, choice={"plan": plan, "slots": size(shifts)})
        await finish(run, TASK, f"would move {size(shifts)} slots: {told}")
        return
    await rebalance(run, weights, Pace(run.operation.args.get("pace", Pace.GENTLE)))
    run.mark("record", 1.0)
    moved = run.operation.choice
    await finish(run, TASK, f"moved {moved.get('slots_moved', 0)} slots with {moved.get('keys_moved', 0)} keys")


async def give_up(run: Run, reason: str) -> None:
    """Slots stay where they are; one that is half-way is finished by the manager's next look."""
    await fail(run, TASK, f"It was not rebalanced: {reason}")

"""Another number of replicas for every shard: those that lack join, those beyond it leave.

`args`: `instances`, new replicas; `leaving`, those that are too many; `zones`.
"""

from __future__ import annotations

from redkeep.model.cluster import ClusterTask
from redkeep.operations.context import Run
from redkeep.operations.joining import join
from redkeep.operations.membership import drop_unfinished, fail, finish
from redkeep.operations.parting import part, stay_after_all

TASKS = (ClusterTask.GROWING_CLUSTER, ClusterTask.SHRINKING_CLUSTER)


async def run(run: Run) -> None:
    names = [name for name in run.arg("instances") if run.find(name)]
    if names:
        await join(run, names)
    await part(run, run.arg("leaving"))

    run.mark("record", 1.0)
    for task in TASKS:
        await finish(run, task, f"{len(names)} replicas joined, {len(run.arg('leaving'))} left")


async def give_up(run: Run, reason: str) -> None:
    await drop_unfinished(run, run.arg("instances"), reason)
    await stay_after_all(run, run.arg("leaving"), reason)
    for task in TASKS:
        await fail(run, task, f"The number of replicas was not changed: {reason}")

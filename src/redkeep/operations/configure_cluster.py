"""Parameters of a cluster: as `configure` does with a group, one member first, and all others when its Redis took them.

`args`: `configuration`, the group of parameters that is attached, or null; `parameters`, its values; `before`, an
object with the same two.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.model.cluster import ClusterTask
from redkeep.operations import configure
from redkeep.operations.context import Run
from redkeep.operations.membership import fail, finish

TASK = ClusterTask.UPDATING_CLUSTER


async def run(run: Run) -> None:
    await configure.apply(run)
    await finish(run, TASK, configure.summary(run))


async def give_up(run: Run, reason: str) -> None:
    await configure.give_up(run, reason)
    before = run.arg("before")["configuration"]
    await run.alter(cluster=lambda one: replace(one, configuration_id=before))
    await fail(run, TASK, f"The configuration was not changed: {reason}")

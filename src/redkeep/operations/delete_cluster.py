"""Delete a cluster: all of its servers and their files go, then their rows and its own. `args`: none."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from redkeep.errors import NotNow
from redkeep.model.cluster import ClusterTask
from redkeep.model.instance import Status
from redkeep.model.orders import EnsureRemoved
from redkeep.operations.context import Run
from redkeep.operations.membership import fail

TASK = ClusterTask.DELETING


async def run(run: Run) -> None:
    await run.step("remove", 0.3)
    group = run.group
    orders = (run.try_tell(one, EnsureRemoved(one.id, group.id, group.epoch)) for one in run.instances if one.host_id)
    missed = [reason for reason in await asyncio.gather(*orders) if reason]
    if missed:
        raise NotNow(f"not all servers are gone yet: {'; '.join(missed)}")

    run.mark("record", 1.0)
    await run.alter(
        instances=lambda one: replace(one, deleted=True, fault=None),
        cluster=lambda cluster: replace(cluster, deleted=True, fault=None),
        note="the cluster is gone",
    )


async def give_up(run: Run, reason: str) -> None:
    await run.settle([one.id for one in run.instances], Status.ERROR, f"{reason} Delete the cluster again.")
    await fail(run, TASK, f"It was not deleted: {reason} Delete it again.")

"""Create a cluster: place and start its servers, form them into one, and wait until every member says that it works.

Until then it is not formed: nothing may be done with it but deleting it, and nobody keeps it healthy.

`args`: `instances`, its members; `zones`, where some of them are to be, by instance.
"""

from __future__ import annotations

from redkeep.errors import Refused
from redkeep.model.cluster import ClusterTask
from redkeep.model.instance import Status
from redkeep.operations.context import Run
from redkeep.operations.forming import form
from redkeep.operations.membership import fail, finish, joined, kept_running, places, start_members

TASK = ClusterTask.BUILDING


async def run(run: Run) -> None:
    names = [name for name in run.arg("instances") if run.find(name)]
    if not names:
        raise Refused("its members were deleted before they were made", kind="missing")

    await run.step("place", 0.05)
    await start_members(run, names)

    await run.step("form", 0.6)
    members = [run.instance(name) for name in names]
    async with kept_running(run, names):
        facts = await form(run, places(members, first_epoch=1, slots=True))

    run.mark("record", 1.0)
    await joined(run, names, facts, f"{len(names)} members agree")
    await finish(run, TASK, f"the cluster {run.cluster.name if run.cluster else ''} works", formed=True)


async def give_up(run: Run, reason: str) -> None:
    """Its members keep their hosts, so that deleting the cluster removes them there."""
    building = [one.id for one in run.instances if one.status is Status.BUILD]
    await run.settle(building, Status.ERROR, reason)
    await fail(run, TASK, f"It was not created: {reason} Delete it, and create another.")

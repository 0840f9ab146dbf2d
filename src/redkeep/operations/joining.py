"""New members join a cluster that works: started, introduced to everybody, and known to be of one mind with them."""

from __future__ import annotations

from collections.abc import Sequence

from redkeep.decide.agreement import prevailing
from redkeep.operations.context import Run
from redkeep.operations.forming import form
from redkeep.operations.membership import in_cluster, joined, kept_running, places, start_members


async def join(run: Run, names: Sequence[str]) -> None:
    """Safe to call again; members that have joined are left as they are. Raises NotNow while somebody is missing."""
    pending = [name for name in names if run.instance(name).node_id is None]
    if not pending:
        return
    await run.step("place", 0.05)
    await start_members(run, pending)

    await run.step("join", 0.3)
    present = in_cluster(run)
    facts = await run.look(present)
    highest = max((one.cluster.epoch for one in facts.values() if one.cluster), default=prevailing(facts).epoch)
    members = [*present, *(run.instance(name) for name in pending)]
    async with kept_running(run, pending):
        agreed = await form(run, places(members, first_epoch=highest + 1), joining=pending)

    run.mark("joined", 0.5)
    await joined(run, pending, agreed, f"{', '.join(run.instance(name).name for name in pending)} joined the others")

"""Every server of the group knows the tenant's users as the store has them. `args`: none."""

from __future__ import annotations

import asyncio

from redkeep.errors import NotNow
from redkeep.model.orders import Configure
from redkeep.operations.context import Run


async def run(run: Run) -> None:
    run.mark("configure", 0.5)
    orders = (run.try_tell(one, Configure(run.spec(one), run.group.epoch)) for one in run.members)
    missed = [reason for reason in await asyncio.gather(*orders) if reason]
    if missed:
        raise NotNow(f"not all servers know the users yet: {'; '.join(missed)}")
    run.mark("record", 1.0)
    await run.note("users updated")


async def give_up(run: Run, reason: str) -> None:
    await run.note(f"users are not the same on all servers: {reason}")

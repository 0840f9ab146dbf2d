"""Detach a replica: it keeps its data and leaves its group for good.

The primary's agent counts one member less before the managers do (see `decide/fencing.py`).

`args`: `instance`; `group`, the new group, made when this was recorded.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.sites import spans_sites
from redkeep.errors import Refused
from redkeep.model.instance import Status
from redkeep.model.orders import Brief
from redkeep.operations.context import Run
from redkeep.operations.leaving import move_out, poke


async def run(run: Run) -> None:
    name = run.arg("instance")
    if run.find(name) is not None:
        if run.group.primary_id == name:
            raise Refused(f"{run.primary.name} has become primary meanwhile: promote another one first", kind="busy")
        await _leave(run, name)
    run.mark("brief the others", 1.0)
    told = run.topology(run.primary.id)
    await run.announce(told)
    await run.brief_members(told)
    await poke(run, run.arg("group"))


async def give_up(run: Run, reason: str) -> None:
    """It stays a member; its primary's agent is told so."""
    if run.find(run.arg("instance")) is not None:
        if spans_sites(run.members):  # it must know that it has one elsewhere before that one may be chosen
            told = run.topology(run.primary.id)
            await run.tell(run.primary, Brief(run.assignment(run.primary, told)))
        await run.settle([run.arg("instance")], Status.ACTIVE, reason)
        await run.brief_members(run.topology(run.primary.id))


async def _leave(run: Run, name: str) -> None:
    run.mark("brief the primary", 0.2)
    told = run.topology(run.primary.id, [one for one in run.members if one.id != name])
    await run.tell(run.primary, Brief(run.assignment(run.primary, told)))

    run.mark("record", 0.5)
    async with run.change() as tx:
        await move_out(run, tx, run.instance(name), run.arg("group"), Status.DETACH)
        await tx.save(replace(run.group, topology_epoch=run.group.epoch))
    await run.note("a replica was detached", name)

"""Eject a primary that is not heard of any more: the most current replica takes its place, and the old one leaves.

The same care as in an unproven failover, since it may be writing behind a partition. What the successor is known to
lack is named, and needs `force`. The old one stays an instance of its owner, in a group of its own.

`args`: `instance`; `group`, the new group of the one that leaves; `force`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from redkeep.decide.promotion import Chosen, NobodyFit, most_current
from redkeep.decide.sites import local
from redkeep.errors import NotNow, Refused
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.orders import Follow, Promote
from redkeep.model.topology import Role, Topology
from redkeep.operations.context import Run
from redkeep.operations.fail_over import LOOK_LIMIT, make_sure, quorum, save_choice
from redkeep.operations.leaving import move_out, poke


async def run(run: Run) -> None:
    old = run.find(run.arg("instance"))
    if old is not None and run.group.primary_id == old.id:
        await _replace(run, old)
    told = run.topology(run.primary.id)
    run.mark("repoint", 0.9)
    await run.announce(told)
    await _follow(run, told)
    await run.settle([one.id for one in run.instances if one.status is Status.EJECT], Status.ACTIVE)
    await poke(run, run.arg("group"))


async def give_up(run: Run, reason: str) -> None:
    """Before anyone was chosen all is as it was. After that the rows say ERROR, and it may be asked for again."""
    taken = [one.id for one in run.instances if one.status is Status.EJECT]
    await run.settle(taken, Status.ERROR if run.group.successor_id else Status.ACTIVE, reason)


async def _replace(run: Run, old: Instance) -> None:
    run.mark("look", 0.1)
    replicas = [one for one in local(run.members, old) if one.id != old.id]
    facts = await run.look(replicas, timeout=LOOK_LIMIT)
    chosen = _choose(run, old, facts)

    run.mark("choose", 0.2)
    await save_choice(run, old, chosen)
    final = await make_sure(run, old, chosen)
    successor = run.instance(final.instance_id)

    run.mark("promote", 0.7)
    told = run.topology(successor.id, [one for one in run.members if one.id != old.id])
    await run.tell(successor, Promote(run.assignment(successor, told)))

    run.mark("record", 0.8)
    await _record(run, old, successor, f"{final.reason}; {_loss(run, old, final)}")


def _choose(run: Run, old: Instance, facts: dict[str, ServerFacts]) -> Chosen:
    """Raises Refused when the best one is known to lack something and `force` was not given."""
    earlier = facts.get(run.group.successor_id or "")
    if earlier is not None and earlier.alive and earlier.role is Role.PRIMARY:
        return Chosen(earlier.instance_id, earlier.offset, "it was promoted before")
    seen = run.tools.last_seen(old.id)
    history = seen.replication_id if seen else ""
    fit = most_current(facts.values(), history=history, quorum=1 if run.arg("force") else quorum(run))
    if isinstance(fit, NobodyFit):
        raise NotNow(f"nobody can take the place of {old.name}: {fit.reason}")
    lacking = _lacking(run, old, fit)
    if lacking > 0 and not run.arg("force"):
        name = run.instance(fit.instance_id).name
        message = f"{name}, the most current replica, lacks {lacking} bytes of what {old.name} had when last seen"
        raise Refused(f"{message}; eject with force to accept that", kind="busy")
    return fit


def _lacking(run: Run, old: Instance, chosen: Chosen) -> int:
    """Bytes of the old primary's history, as far as it was last seen, that the chosen one has not applied."""
    seen = run.tools.last_seen(old.id)
    return max(0, seen.offset - chosen.offset) if seen else 0


def _loss(run: Run, old: Instance, chosen: Chosen) -> str:
    """What is given up, for the events: in numbers, as far as anybody has seen them."""
    if run.tools.last_seen(old.id) is None:
        return "what it lacks cannot be known"
    lacking = _lacking(run, old, chosen)
    which = f" (offsets {chosen.offset + 1} to {chosen.offset + lacking})" if lacking else ""
    return f"it lacks {lacking} bytes of what was last seen of {old.name}{which}"


async def _record(run: Run, old: Instance, successor: Instance, reason: str) -> None:
    async with run.change() as tx:
        await move_out(run, tx, run.instance(old.id), run.arg("group"), Status.EJECT)
        await tx.save(
            replace(run.group, primary_id=successor.id, successor_id=None, topology_epoch=run.group.epoch),
            *(
                replace(one, role=Role.PRIMARY, replica_of=None)
                if one.id == successor.id
                else replace(one, replica_of=successor.id)
                for one in run.instances
                if one.id != old.id
            ),
        )
    await run.note(f"{old.name} was ejected, {successor.name} is primary: {reason}", successor.id)


async def _follow(run: Run, told: Topology) -> None:
    others = [one for one in run.members if one.id != run.primary.id]
    await asyncio.gather(*(run.try_tell(one, Follow(run.assignment(one, told))) for one in others))

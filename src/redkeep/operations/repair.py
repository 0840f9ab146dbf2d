"""Bring servers back into the role that the store gives them: after a crash without successor, or one that went astray.

`args`: `instances`.
"""

from __future__ import annotations

from redkeep.decide.promotion import diverged_bytes
from redkeep.model.facts import Process
from redkeep.model.instance import Instance
from redkeep.model.orders import Brief, EnsureRunning, Promote
from redkeep.operations.context import Run

KEEP_LIMIT = 30.0
"""Seconds for a start, and for saving what one that comes back from another site is about to lose."""


async def run(run: Run) -> None:
    astray = [one for name in run.arg("instances") if (one := run.find(name)) and one.address]
    first = [one for one in astray if one.id == run.group.rightful_primary_id]
    for one in (*first, *(one for one in astray if one not in first)):
        run.mark(f"realign {one.name}")
        await _realign(run, one)
    await run.note(f"{', '.join(one.name for one in astray)} brought back into place")


async def give_up(run: Run, reason: str) -> None:
    await run.note(f"not repaired: {reason}")


async def _note_divergence(run: Run, instance: Instance) -> None:
    """One that was primary comes back: what it has and its successor has not is about to be discarded. Say so."""
    facts = await run.look([instance, run.primary])
    mine, successor = facts.get(instance.id), facts.get(run.primary.id)
    if mine is None or successor is None or (lost := diverged_bytes(mine, successor)) <= 0:
        return
    first = successor.former_until + 1
    await run.note(
        f"{instance.name} comes back with {lost} bytes of history (offsets {first} to {mine.offset}) that "
        f"{run.primary.name} never had; they are discarded",
        instance.id,
    )


async def _realign(run: Run, instance: Instance) -> None:
    assigned = run.assignment(instance, run.topology(run.group.rightful_primary_id))
    if assigned.primary is not None:
        if instance.site == run.primary.site:
            await _note_divergence(run, instance)
        seen = await run.tell(instance, EnsureRunning(run.spec(instance), assigned), timeout=KEEP_LIMIT)
        if seen.kept:
            text = f"{instance.name} comes back from another site; on {instance.host_id}, {seen.kept}"
            await run.note(text, instance.id)
        await run.tell(instance, Brief(assigned))
        return
    facts = (await run.look([instance])).get(instance.id)
    if facts is None or facts.process in (Process.EXITED, Process.ABSENT):
        await run.tell(instance, EnsureRunning(run.spec(instance), assigned), timeout=30)
    await run.until_loaded(instance)
    await run.tell(instance, Promote(assigned))

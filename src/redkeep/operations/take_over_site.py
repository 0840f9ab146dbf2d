"""The primary of a group goes to another site without the old one being asked: its part of a forced failover.

The backend's row denies the old site its word; in the transaction that saves the choice this is seen to be so, and the
last word that the old site can have is waited out before anyone is promoted (see `decide/sites.py`). Nothing is told to
the old site: when it is back, its servers are realigned, and what only they had is saved to a file first.

`args`: `reason`; `site`; `failover`, the id of the failover on the backend's row; `denied_since`, a store time at which
that row denied the old site. `choice`: `successor`; at the end `lost`, in words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from redkeep.decide.promotion import Chosen, NobodyFit, most_current, unfitness
from redkeep.decide.sites import may_write_at, seconds_until_fenced
from redkeep.errors import NotNow, Refused
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.orders import Follow, Promote
from redkeep.model.topology import Role
from redkeep.operations.context import Run
from redkeep.operations.succession import record_primary
from redkeep.ports import Transaction

LOOK_LIMIT = 1.0
"""Seconds that a look at the new site may take."""


async def run(run: Run) -> None:
    if run.primary.site != run.arg("site"):
        await _replace(run)
    successor = run.primary
    told = run.topology(successor.id)

    run.mark("repoint", 0.9)
    await run.announce(told)
    neighbours = [one for one in run.members if one.site == successor.site and one.id != successor.id]
    await asyncio.gather(*(run.try_tell(one, Follow(run.assignment(one, told))) for one in neighbours))


async def _replace(run: Run) -> None:
    old = run.primary
    run.mark("look", 0.1)
    chosen = _choose(run, await run.look(candidates(run), timeout=LOOK_LIMIT))

    run.mark("choose", 0.3)
    await _save_choice(run, chosen)

    run.mark("wait out its word", 0.4)
    await _until_fenced(run)

    run.mark("choose again")
    chosen = _choose(run, await run.look(candidates(run), timeout=LOOK_LIMIT), again=True)
    if chosen.instance_id != run.group.successor_id:
        await _save_choice(run, chosen)
    successor, lost = run.instance(chosen.instance_id), loss(run, old, chosen)

    run.mark("promote", 0.6)
    await run.tell(successor, Promote(run.assignment(successor, run.topology(successor.id))))

    run.mark("record", 0.8)
    run.operation = replace(run.operation, choice={**run.operation.choice, "lost": lost})
    await record_primary(run, successor.id, f"{successor.name} is primary: {run.arg('reason')}; {lost}")
    await _give_back(run)


async def give_up(run: Run, reason: str) -> None:
    """A choice stays: it may have been acted on."""
    await run.note(f"failover to site {run.arg('site')} did not succeed: {reason}")
    await _give_back(run)


def candidates(run: Run) -> list[Instance]:
    """Members at the new site. Of one that is leaving, the old primary's agent may not know any more."""
    return [one for one in run.members if one.site == run.arg("site") and one.status is not Status.DETACH]


def _choose(run: Run, facts: Mapping[str, ServerFacts], *, again: bool = False) -> Chosen:
    """An earlier choice that was promoted stands; else the one that has most.

    Raises Refused when there is nobody who could, NotNow when there may be later.
    """
    earlier = facts.get(run.group.successor_id or "")
    if earlier is not None and earlier.alive and earlier.role is Role.PRIMARY:
        return Chosen(earlier.instance_id, earlier.offset, "it was promoted before")
    if not candidates(run):
        raise Refused(f"it has no replica at site {run.arg('site')}", kind="missing")
    found = most_current(facts.values())
    if not isinstance(found, NobodyFit):
        return found
    unfit = [reason for one in facts.values() if (reason := unfitness(one, ""))]
    never = not again and facts and all("never" in reason for reason in unfit)
    message = f"nobody at site {run.arg('site')} can take the place of {run.primary.name}: {found.reason}"
    raise Refused(message, kind="busy") if never else NotNow(message)


async def _save_choice(run: Run, chosen: Chosen) -> None:
    """From now on nobody but the chosen one may be confirmed; until now, nobody at the old site was.

    Raises Refused, with nothing changed, when the backend's row does not say (any more) that this failover is forced.
    """
    run.operation = replace(run.operation, choice={**run.operation.choice, "successor": chosen.instance_id})
    async with run.change() as tx:
        await _require_denied(run, tx)
        await tx.save(replace(run.group, successor_id=chosen.instance_id))


async def _require_denied(run: Run, tx: Transaction) -> None:
    rows = [one for one in await tx.service_clusters() if one.backend == run.tools.backend.name]
    sites = may_write_at(run.tools.backend, rows)
    ours = any(one.failover is not None and one.failover.id == run.arg("failover") for one in rows)
    earlier = run.find(run.group.successor_id)
    if earlier is not None and earlier.site == run.arg("site"):
        return  # it was seen to be so when that one was chosen
    if sites is None or run.primary.site in sites or run.arg("site") not in sites or not ours:
        raise Refused("the failover of the backend that this was part of is over", kind="conflict")


async def _until_fenced(run: Run) -> None:
    async with run.tools.store.read() as tx:
        now = await tx.now()
    since = max(run.arg("denied_since"), *(one.created for one in candidates(run)))
    await asyncio.sleep(seconds_until_fenced(now=now, denied_since=since, site_seconds=run.tools.backend.site_seconds))


def loss(run: Run, old: Instance, chosen: Chosen) -> str:
    """What may be lost, as far as anybody has seen it."""
    seen = run.tools.last_seen(old.id)
    if seen is None:
        return f"what {old.name} had acknowledged after offset {chosen.offset} may be lost: how much cannot be known"
    lacking, age = max(0, seen.offset - chosen.offset), asyncio.get_running_loop().time() - seen.seen_at
    which = f" (offsets {chosen.offset + 1} to {seen.offset})" if lacking else ""
    return (
        f"it lacks {lacking} bytes{which} of what {old.name} had when it was last heard of, {age:.1f} s before; what "
        "was acknowledged since then may be lost"
    )


async def _give_back(run: Run) -> None:
    """Whoever was waiting in PROMOTE for a planned change that this has overtaken."""
    await run.settle([one.id for one in run.instances if one.status is Status.PROMOTE], Status.ACTIVE)

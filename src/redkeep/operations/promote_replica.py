"""Promote a replica while its primary lives, losing nothing.

Writers are made to wait on the old primary, the successor applies the last byte, becomes primary, and the old one turns
into its replica: then the waiting writes are answered READONLY, which every client knows to mean "not here, and not
run". All of it is between the marks `hold writes` and `record`; nothing is written to the store there.

`args`: `instance`; `site`, when it goes to another one as part of a failover of the whole backend.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from redkeep.decide.promotion import lag_bytes, unfitness
from redkeep.decide.sites import spans_sites
from redkeep.errors import NotNow, Refused
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.orders import AskForSite, Brief, Follow, HoldWrites, Promote, ReleaseWrites
from redkeep.model.topology import Role, Topology
from redkeep.operations.context import Run
from redkeep.operations.succession import record_primary

FIT_LIMIT = 3.0
"""Seconds that a successor gets to become fit, before anybody has been disturbed."""
CATCH_UP = 1.0
"""Seconds that writers wait at the most for the successor to apply what is left."""


async def run(run: Run) -> None:
    successor = run.instance(run.arg("instance"))
    if successor.site != run.primary.site and run.operation.args.get("site") != successor.site:
        raise Refused(f"{successor.name} is at another site than {run.primary.name} by now", kind="conflict")
    if run.group.primary_id != successor.id:
        await switch(run, successor)
    told = run.topology(successor.id)
    run.mark("tell")
    await run.announce(told)
    await _settle(run)


async def give_up(run: Run, reason: str) -> None:
    """Roll forward is `run`'s business; here the old primary gets its writes back, unless the successor has them."""
    if await undo(run):
        await _settle(run, reason)
    else:
        failed = [one.id for one in run.instances if one.status is Status.PROMOTE]
        await run.settle(failed, Status.ERROR, reason)


async def undo(run: Run) -> bool:
    """A switch that was begun is taken back; False when the successor has been promoted already."""
    facts = await run.look(run.members)
    chosen = facts.get(run.group.successor_id or "")
    if chosen is not None and chosen.role is Role.PRIMARY:
        return False
    await _take_back(run)
    return True


async def switch(run: Run, successor: Instance) -> None:
    """From `look` to `record`. Raises Refused, with the switch taken back, when the successor does not catch up."""
    run.mark("look", 0.1)
    await _until_fit(run, successor)

    run.mark("choose", 0.4)
    await run.alter(
        group=lambda group: replace(group, successor_id=successor.id),
        note=f"{successor.name} was chosen to be promoted",
        about=successor.id,
    )
    old, told = run.primary, run.topology(successor.id)
    if spans_sites(run.members):  # writers shall not wait for the answer
        await run.tell(successor, AskForSite(successor.id, run.group.id, run.group.epoch))

    run.mark("hold writes", 0.5)
    final = await run.tell(old, HoldWrites(old.id, run.group.id, run.group.epoch, patience=2 * CATCH_UP))

    run.mark("promote", 0.6)
    await _promote(run, successor, told, final)

    run.mark("repoint", 0.8)
    await _repoint(run, successor, old, told)

    run.mark("record", 1.0)
    await record_primary(run, successor.id, f"{successor.name} is primary; {old.name} follows it; nothing was lost")


async def _until_fit(run: Run, successor: Instance) -> None:
    """Wait, writers undisturbed, until the successor is close behind. Raises Refused when it does not get there.

    It must apply more than the primary had at the first look: a link may be up and counted as online while the stream
    does not flow yet, which starts with the replica's first acknowledgement, up to a second later. Where nobody writes,
    the briefing is what there is to come: it tells the clients what they know, through the stream. Of a primary that an
    earlier attempt made hold its writes nothing comes any more: there the stream was seen to flow before.
    """
    deadline = asyncio.get_running_loop().time() + FIT_LIMIT
    mark = -1
    while True:
        facts = await run.look(run.members)
        mine, primary = facts.get(successor.id), facts.get(run.primary.id)
        if mine is None or primary is None:
            raise NotNow(f"the agents of {successor.name} and {run.primary.name} must both be reachable")
        if mine.role is Role.PRIMARY or primary.role is not Role.PRIMARY:
            return  # an earlier attempt came so far; what follows finishes it
        if mark < 0:
            mark = primary.offset
            told = run.topology(run.primary.id)
            await run.try_tell(run.primary, Brief(run.assignment(run.primary, told)))
        reason = _unfit(mine, primary, mark, run.tools.lag_limit_bytes)
        if reason is None:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise Refused(f"{successor.name} cannot be promoted: {reason}", kind="busy")
        await run.wait(0.02)


def _unfit(mine: ServerFacts, primary: ServerFacts, mark: int, limit: int) -> str | None:
    if reason := unfitness(mine, primary.replication_id):
        return reason
    if mine.upstream is not None and not mine.upstream.link_up:
        return "its link to the primary is down"
    if (lag := lag_bytes(mine, primary)) > limit:
        return f"it lags {lag} bytes behind; the limit is {limit}"
    wanted = mark if primary.fenced else mark + 1
    if mine.offset < wanted:
        return f"it does not catch up: it lacks {wanted - mine.offset} bytes of a while ago"
    return None


async def _promote(run: Run, successor: Instance, told: Topology, final: ServerFacts) -> None:
    order = Promote(run.assignment(successor, told), final.replication_id, final.offset, CATCH_UP)
    try:
        await run.tell(successor, order)
    except NotNow as error:
        await _take_back(run)
        raise Refused(f"{successor.name} was not promoted: {error}", kind="busy") from error


async def _repoint(run: Run, successor: Instance, old: Instance, told: Topology) -> None:
    """The old primary first: writers wait there for their answer."""
    others = [one for one in run.members if one.id not in (successor.id, old.id)]
    orders = [run.tell(old, Follow(run.assignment(old, told)))]
    rest = [run.try_tell(one, Follow(run.assignment(one, told))) for one in others]
    await asyncio.gather(*orders, *rest)


async def _take_back(run: Run) -> None:
    if run.group.successor_id is not None:
        await run.alter(group=lambda group: replace(group, successor_id=None))
    await run.try_tell(run.primary, ReleaseWrites(run.primary.id, run.group.id, run.group.epoch))


async def _settle(run: Run, reason: str | None = None) -> None:
    await run.settle([one.id for one in run.instances if one.status is Status.PROMOTE], Status.ACTIVE, reason)

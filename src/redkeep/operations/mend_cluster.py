"""Mend a cluster: what Redis does not mend by itself. Half-moved slots are finished, members that do not know where
others are, or came back as somebody else, are introduced, and who is no member any more is forgotten.

Nobody is forgotten while somebody calls it its primary, or votes may be under way: the members must agree first.

`args`: `reason`.
"""

from __future__ import annotations

import asyncio

from redkeep.decide.agreement import disagreement
from redkeep.decide.forming import Place, adjustments, introductions
from redkeep.decide.shards import is_dead
from redkeep.errors import NotNow
from redkeep.model.cluster_orders import ClusterForget
from redkeep.model.instance import Instance
from redkeep.model.orders import EnsureRunning
from redkeep.model.slots import Pace
from redkeep.operations.context import Run
from redkeep.operations.mending import finish_open_slots
from redkeep.operations.shards import AGREE_LIMIT, Seen, adopt, see

INTRODUCE_AGAIN = 1.0
"""Seconds after which an introduction that has led to nothing is repeated."""
LOOK_AGAIN = 0.05


async def run(run: Run) -> None:
    run.mark("introduce", 0.1)
    seen = await _introduce(run)
    run.mark("finish slots", 0.4)
    while await finish_open_slots(run, seen, Pace.GENTLE):
        seen = await see(run)
        await run.wait(LOOK_AGAIN)
    run.mark("forget", 0.7)
    await _forget_strangers(run, seen)
    run.mark("record", 1.0)
    await adopt(run, await see(run), f"mended: {run.arg('reason')}")


async def give_up(run: Run, reason: str) -> None:
    await run.note(f"not mended: {reason}")


async def _introduce(run: Run) -> Seen:
    """All that run know each other at their present addresses, and replicas without a primary follow their shard's.

    Raises NotNow when that does not come about.
    """
    clock = asyncio.get_running_loop().time
    deadline, introduced = clock() + AGREE_LIMIT, float("-inf")
    while True:
        seen = await see(run)
        await asyncio.gather(*(_start(run, one) for one in seen.members if _ended(one, seen) or _elsewhere(one, seen)))
        places = _places(seen)
        strangers = introductions(places, seen.facts, run.group.epoch)
        followers = adjustments(places, seen.facts, run.group.epoch)
        if not strangers and not followers:
            return seen
        if clock() > deadline:
            raise NotNow(f"{len(strangers)} members do not get to know the others")
        if clock() > introduced + INTRODUCE_AGAIN:
            introduced = clock()
            await asyncio.gather(*(run.try_tell(run.instance(one.instance_id), one) for one in strangers))
        await asyncio.gather(*(run.try_tell(run.instance(one.instance_id), one) for one in followers))
        await run.wait(LOOK_AGAIN)


def _ended(one: Instance, seen: Seen) -> bool:
    return one.id in seen.facts and is_dead(seen.facts[one.id])


def _elsewhere(one: Instance, seen: Seen) -> bool:
    """It runs at another address than the one where everybody looks for it."""
    said = seen.facts[one.id].cluster if one.id in seen.facts and seen.facts[one.id].alive else None
    own = next((node for node in said.view.members if node.id == said.node_id), None) if said is not None else None
    return own is not None and own.address != one.address


async def _start(run: Run, one: Instance) -> None:
    await run.try_tell(one, EnsureRunning(run.spec(one), run.assignment(one, run.topology(None, [one]))))


def _places(seen: Seen) -> list[Place]:
    """Nobody gets slots here; one without any follows whoever has its shard's."""
    owners = {shard: one.id for shard, one in seen.primaries.items() if seen.owned[shard]}
    return [
        Place(one.id, one.group_id, one.address, 0, follows=lead if lead != one.id else None)
        for one in seen.members
        if one.address is not None and one.id in seen.facts
        for lead in [owners.get(one.shard or "")]
    ]


async def _forget_strangers(run: Run, seen: Seen) -> None:
    """Those whom some member knows, and who are none: not while the others disagree about who is who."""
    ours = {seen.node_id(one) for one in run.instances if one.node_id is not None}
    ours |= {said.node_id for one in seen.facts.values() if (said := one.cluster) is not None}
    known = {
        node_id
        for one in seen.facts.values()
        if one.alive and one.cluster is not None
        for node_id in (*(each.id for each in one.cluster.view.members), *one.cluster.nameless)
    }
    foreign = known - ours
    if not foreign:
        return
    alive = {one.id: one for one in seen.members if one.id in seen.facts and seen.facts[one.id].alive}
    if reason := disagreement(seen.facts, list(alive), gone=foreign, covering=False):
        raise NotNow(f"nobody is forgotten while the members do not agree: {reason}")
    followed = {said.primary_id for one in seen.facts.values() if (said := one.cluster) is not None}
    owning = {one.id for one in seen.truth.members if one.ranges}
    if kept := foreign & (followed | owning):
        raise NotNow(f"{', '.join(sorted(kept))} is no member, but has slots or replicas")
    orders = [ClusterForget(name, run.group.id, run.group.epoch, tuple(sorted(foreign))) for name in alive]
    await asyncio.gather(*(run.try_tell(alive[one.instance_id], one) for one in orders))

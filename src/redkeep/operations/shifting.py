"""Slots move between the shards of a cluster until they are where they should be: look, plan, move some, look again.

The plan is made anew from what is there after every round. So it does not matter who died, who failed over or who moved
slots by hand meanwhile, and an operation that is taken over goes on where the slots are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from redkeep.decide import slots
from redkeep.decide.slots import Shift
from redkeep.errors import NotNow, RedkeepError, StaleEpoch
from redkeep.model.cluster_orders import MoveSlots
from redkeep.model.facts import ServerFacts
from redkeep.model.slots import SLOTS, Pace, Ranges, as_ranges, slots_in
from redkeep.operations.context import Overtaken, Run
from redkeep.operations.forming import until_agreed
from redkeep.operations.mending import finish_open_slots
from redkeep.operations.shards import AGREE_LIMIT, Seen, cluster_members, see

log = logging.getLogger(__name__)

Plan = Callable[[Mapping[str, Ranges]], tuple[Shift, ...]]
"""From who owns what to what has to move, by shards."""

BUDGET = {Pace.GENTLE: 2.0, Pace.FAST: 2.0}
"""Seconds that one order may take: after so long somebody looks whether all is as it was."""
AT_ONCE = 1024
"""Slots that one order names."""
FAILURES = 100
"""Rounds in a row that may come to nothing, with a pause after each, before the operation is put off."""
PAUSE = 0.1


async def rebalance(run: Run, weights: Mapping[str, float], pace: Pace) -> None:
    """Each shard has its share. `weights` by the instance that is primary of it, or any other of its members; 1 where
    none is given."""

    def plan(owned: Mapping[str, Ranges]) -> tuple[Shift, ...]:
        return slots.plan(owned, {shard: _weight(run, shard, weights) for shard in owned})

    await shift(run, plan, pace)


async def drain(run: Run, leaving: Collection[str], pace: Pace = Pace.GENTLE) -> None:
    """The shards of these instances own nothing: their slots are shared out evenly to the others.

    A shard of which only some members leave keeps its slots, unless its primary is among them.
    """

    def plan(owned: Mapping[str, Ranges]) -> tuple[Shift, ...]:
        going = {one.shard or "" for one in run.instances if one.id in set(leaving) and _leads(run, one.id)}
        return slots.drain(owned, going & set(owned)) if going & set(owned) else ()

    await shift(run, plan, pace)


async def planned(run: Run, weights: Mapping[str, float]) -> tuple[Shift, ...]:
    """What `rebalance` would move now."""
    seen = await see(run)
    return slots.plan(seen.owned, {shard: _weight(run, shard, weights) for shard in seen.owned})


async def shift(run: Run, plan: Plan, pace: Pace) -> None:
    """Move until the plan says that nothing has to move. Raises NotNow when that gets nowhere for a while, Overtaken
    when something urgent waits; whatever was half-way then is finished by whoever comes next."""
    await until_agreed_but_open(run)
    kept: set[int] = set()
    failures = 0
    while True:
        await run.step("move")
        seen = await see(run)
        if not _whole(seen):
            failures = await _pause(run, failures)
            continue
        if await finish_open_slots(run, seen, pace):
            continue
        todo = _without(plan(seen.owned), kept)
        _note_progress(run, todo)
        if not todo:
            break
        moved = await _round(run, seen, todo, pace)
        kept |= {slot for one in moved if one.cluster for slot, _ in one.cluster.kept}
        _count_keys(run, moved)
        failures = 0 if moved else await _pause(run, failures)
    run.mark("agree")
    await until_agreed(run, cluster_members(run), AGREE_LIMIT)
    if kept:
        await run.note(f"{len(kept)} slots stay where they are, for a key that is too large to move: {as_ranges(kept)}")


def _whole(seen: Seen) -> bool:
    """All slots have an owner among the shards, as far as it can be seen: nothing is planned on half of a picture."""
    return sum(len(slots_in(ranges)) for ranges in seen.owned.values()) == SLOTS


async def _pause(run: Run, failures: int) -> int:
    """After a round that came to nothing; how many there were in a row. Raises NotNow when there were too many."""
    if failures >= FAILURES:
        raise NotNow("no slot can be moved at the moment")
    await run.wait(PAUSE)
    return failures + 1


async def until_agreed_but_open(run: Run) -> None:
    """All members agree, but for slots that are half-way: those are finished first. Raises NotNow."""
    deadline = asyncio.get_running_loop().time() + AGREE_LIMIT
    while True:
        try:
            await until_agreed(run, cluster_members(run), 1.0)
        except NotNow:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await finish_open_slots(run, await see(run), Pace.GENTLE)
        else:
            return


async def _round(run: Run, seen: Seen, todo: Sequence[Shift], pace: Pace) -> list[ServerFacts]:
    """One order to each source, or to one of them. What they say after it; nothing of those that failed."""
    first = slots.pairs(todo)[0]
    few = first if pace is Pace.FAST else first[:1]
    found = await asyncio.gather(*(_move(run, seen, one, pace) for one in few))
    return [facts for facts in found if facts is not None]


async def _move(run: Run, seen: Seen, one: Shift, pace: Pace) -> ServerFacts | None:
    source, target = seen.primaries.get(one.source), seen.primaries.get(one.target)
    if source is None or target is None or target.address is None:
        return None
    order = MoveSlots(
        source.id,
        run.group.id,
        run.group.epoch,
        slots=tuple(slots_in(one.ranges)[:AT_ONCE]),
        target_node_id=seen.node_id(target),
        target=target.address,
        pace=pace,
        budget=BUDGET[pace],
    )
    telling = asyncio.create_task(run.tell(source, order, timeout=30))
    hurry = asyncio.create_task(run.overtaken.wait())
    try:
        await asyncio.wait((telling, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not telling.done():
            raise Overtaken  # the agent ends its order by itself: nobody who is in a hurry waits for that
        return telling.result()
    except StaleEpoch:
        raise
    except RedkeepError as error:
        log.info("slots of %s do not move: %s", source.name, error)
        return None
    finally:
        telling.cancel()
        hurry.cancel()
        await asyncio.gather(telling, hurry, return_exceptions=True)


def _note_progress(run: Run, todo: Sequence[Shift]) -> None:
    """In slots, and in keys that were moved by orders that answered. The total is that of the first plan."""
    left = slots.size(todo)
    choice = run.operation.choice
    total = max(int(choice.get("slots", left)), left)
    progress = 1.0 if not total else (total - left) / total
    told = {**choice, "slots": total, "slots_moved": total - left, "keys_moved": int(choice.get("keys_moved", 0))}
    run.operation = replace(run.operation, choice=told, progress=progress)


def _count_keys(run: Run, moved: Sequence[ServerFacts]) -> None:
    keys = sum(one.cluster.moved_keys for one in moved if one.cluster)
    told = {**run.operation.choice, "keys_moved": int(run.operation.choice.get("keys_moved", 0)) + keys}
    run.operation = replace(run.operation, choice=told)


def _without(shifts: Sequence[Shift], kept: Collection[int]) -> tuple[Shift, ...]:
    left = (replace(one, ranges=as_ranges(set(slots_in(one.ranges)) - set(kept))) for one in shifts)
    return tuple(one for one in left if one.ranges)


def _weight(run: Run, shard: str, weights: Mapping[str, float]) -> float:
    return next((weights[one.id] for one in run.instances if one.shard == shard and one.id in weights), 1.0)


def _leads(run: Run, instance_id: str) -> bool:
    """Its whole shard goes with it: it is primary there, by its row, which follows what Redis elected."""
    one = run.instance(instance_id)
    shard = {each.id for each in run.instances if each.shard == one.shard}
    return one.role == "primary" or len(shard) == 1

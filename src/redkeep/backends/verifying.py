"""Whether groups are in step at a site: what must be seen of every one before any of them moves there in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from redkeep.decide.promotion import unfitness
from redkeep.decide.topology import members
from redkeep.errors import RedkeepError
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Instance
from redkeep.model.orders import SampleKeys
from redkeep.ports import BackendContext, WholeGroup

PARALLEL = 8
PATIENCE = 5.0
"""Seconds within which a replica must have applied what its primary had at the first look."""
POLL = 0.05
LOOK_LIMIT = 5.0
BUSY_PAUSE = 0.2
SAMPLE = 20
"""Keys that are compared of each group."""


async def out_of_step(context: BackendContext, groups: Sequence[str], site: str) -> list[str]:
    """Why not, for each group that has a member at the site and does not have its primary there."""
    room = asyncio.Semaphore(PARALLEL)

    async def look(group_id: str) -> str | None:
        async with room:
            return await _look(context, group_id, site)

    found = await asyncio.gather(*(look(one) for one in groups))
    return [one for one in found if one is not None]


async def _look(context: BackendContext, group_id: str, site: str) -> str | None:
    async with context.store.read() as tx:
        found = await tx.whole_group(group_id)
    if found is None:
        return None
    primary = next((one for one in found.instances if one.id == found.group.primary_id), None)
    there = [one for one in members(found.instances) if one.site == site]
    if primary is None or primary.site == site or not there or _is_on_its_way(found, site):
        return None
    reasons = [await _compare(context, primary, one) for one in there]
    return None if None in reasons else f"{primary.name}: {reasons[0]}"


def _is_on_its_way(found: WholeGroup, site: str) -> bool:
    """An operation moves it already, and sees to that by itself."""
    successor = next((one for one in found.instances if one.id == found.group.successor_id), None)
    return any(one.args.get("site") == site for one in found.operations) or (
        successor is not None and successor.site == site
    )


async def _compare(context: BackendContext, primary: Instance, replica: Instance) -> str | None:
    """In step, and the same values under some keys. Those that change meanwhile say nothing."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            before = await _sample(context, primary, ())
            if reason := await in_step(context, primary, replica):
                return reason
            keys = tuple(before)
            there = await _sample(context, replica, keys)
            after = await _sample(context, primary, keys)
        except RedkeepError as error:
            if asyncio.get_running_loop().time() > deadline:
                return f"{replica.name} cannot be compared: {error}"
            await asyncio.sleep(BUSY_PAUSE)
        else:
            return differing(replica.name, before, there, after)


def differing(name: str, before: Mapping[str, str], there: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Of keys whose value was the same before and after the replica's was looked at."""
    wrong = [key for key, value in before.items() if after.get(key) == value and there.get(key) != value]
    if not wrong:
        return None
    return f"{name} has other values under {len(wrong)} of {len(before)} keys, 0x{wrong[0][:64]} among them"


async def _sample(context: BackendContext, one: Instance, keys: tuple[str, ...]) -> dict[str, str]:
    """Raises what the agent raises; StaleEpoch when somebody has just begun to work on the group."""
    async with context.store.read() as tx:
        group = await tx.group(one.group_id)
    order = SampleKeys(one.id, one.group_id, group.epoch if group else 0, keys, SAMPLE)
    return dict((await context.agents.tell(one.host_id or "", order, timeout=LOOK_LIMIT)).sample)


async def in_step(context: BackendContext, primary: Instance, replica: Instance) -> str | None:
    """Why a replica is not in step with its primary, or None."""
    deadline, mark = asyncio.get_running_loop().time() + PATIENCE, -1
    while True:
        source, mine = await asyncio.gather(_facts(context, primary), _facts(context, replica))
        if source is not None and mark < 0:
            mark = source.offset
        reason = _not_in_step(source, mine, mark)
        if reason is None or asyncio.get_running_loop().time() > deadline:
            return reason and f"{replica.name} {reason}"
        await asyncio.sleep(POLL)


def _not_in_step(source: ServerFacts | None, mine: ServerFacts | None, mark: int) -> str | None:
    if source is None or not source.alive:
        return "cannot be compared: the primary does not answer"
    if mine is None:
        return "does not answer"
    if reason := unfitness(mine, source.replication_id):
        return f"is not fit: {reason}"
    if mine.upstream is None or not mine.upstream.link_up:
        return "has lost its primary"
    if mine.offset < mark:
        return f"lacks {mark - mine.offset} bytes"
    return None


async def _facts(context: BackendContext, one: Instance) -> ServerFacts | None:
    try:
        (found,) = await context.agents.look(one.host_id or "", [one.id], timeout=LOOK_LIMIT)
    except RedkeepError:
        return None
    return found

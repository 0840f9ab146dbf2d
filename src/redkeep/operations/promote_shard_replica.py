"""Promote a replica of a shard while its primary lives, losing nothing: the planned change of a cluster's primary.

Redis' own CLUSTER FAILOVER must not be asked: a replica that won an election less than two node time-outs ago "wins"
the next one at once with its old votes, takes writes as a false primary, and stalls the real one for five seconds. Here
nobody votes: writers wait on the old primary, the replica applies the last byte and claims the slots under a new epoch,
and nobody is told that it is done before every member names it under that epoch.

`args`: `instance`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from redkeep.decide.promotion import lag_bytes, unfitness
from redkeep.errors import NotNow, RedkeepError, Refused
from redkeep.model.cluster import ClusterTask
from redkeep.model.cluster_orders import ClusterTakeOver, ClusterYield
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.orders import HoldWrites, ReleaseWrites
from redkeep.model.topology import Role
from redkeep.operations.context import Run
from redkeep.operations.forming import until_agreed
from redkeep.operations.membership import fail, finish
from redkeep.operations.shards import AGREE_LIMIT, Seen, adopt, cluster_members, see

TASK = ClusterTask.UPDATING_CLUSTER
FIT_LIMIT = 5.0
"""Seconds that the replica gets to become fit, before anybody has been disturbed."""
CATCH_UP = 1.0
"""Seconds that writers wait at the most for it to apply what is left."""


async def run(run: Run) -> None:
    new = run.instance(run.arg("instance"))
    await promote(run, new)
    await _settle(run)
    await finish(run, TASK, f"{new.name} was promoted")


async def promote(run: Run, new: Instance) -> None:
    """All of it but giving the members back, for other runbooks too; safe to call again."""
    run.mark("look", 0.1)
    old = await _until_fit(run, new)
    if old is not None:
        await _switch(run, old, new)

    run.mark("agree", 0.9)
    await until_agreed(run, cluster_members(run), AGREE_LIMIT)
    run.mark("record", 1.0)
    seen = await see(run)
    lead = seen.primaries.get(new.shard or "")
    if lead is None or lead.id != new.id:
        raise NotNow(f"{new.name} is not the primary of its shard")
    await adopt(run, seen, f"{new.name} is primary of shard {new.shard}; nothing was lost")


async def give_up(run: Run, reason: str) -> None:
    """Writers go on where they can: a primary that was held and has not yielded is released."""
    await release_held(run)
    await _settle(run, reason)
    await fail(run, TASK, f"It was not promoted: {reason}")


async def _switch(run: Run, old: Instance, new: Instance) -> None:
    """Once the old primary's last offset is known nothing is written anywhere until the new one has it."""
    run.operation = replace(run.operation, choice={**run.operation.choice, "old": old.id})
    run.mark("choose", 0.3)
    await run.note(f"{new.name} was chosen to be promoted")

    run.mark("hold writes", 0.5)
    final = await run.tell(old, HoldWrites(old.id, run.group.id, run.group.epoch, patience=2 * CATCH_UP))

    run.mark("take over", 0.6)
    # told now, so that no hop lies between the claim and the answer to those who wait
    order = ClusterYield(old.id, run.group.id, run.group.epoch, patience=2 * CATCH_UP)
    yielding = asyncio.create_task(run.tell(old, order))
    try:
        await _claim(run, old, new, final, yielding)
        run.mark("yield", 0.7)
        await yielding
    finally:
        yielding.cancel()
        await asyncio.gather(yielding, return_exceptions=True)


async def _claim(
    run: Run, old: Instance, new: Instance, final: ServerFacts, yielding: asyncio.Task[ServerFacts]
) -> None:
    """Raises Refused, with the hold taken back, when the replica does not get there."""
    try:
        await run.tell(new, _order(run, old, new, final))
    except (NotNow, Refused) as error:
        await asyncio.gather(yielding, return_exceptions=True)
        await run.try_tell(old, ReleaseWrites(old.id, run.group.id, run.group.epoch))
        raise Refused(f"{new.name} was not promoted: {error}", kind="busy") from error


def _order(run: Run, old: Instance, new: Instance, final: ServerFacts) -> ClusterTakeOver:
    said = final.cluster
    return ClusterTakeOver(
        new.id,
        run.group.id,
        run.group.epoch,
        former_node_id=old.node_id or "",
        ranges=said.ranges if said is not None else (),
        migrating=said.migrating if said is not None else (),
        importing=said.importing if said is not None else (),
        replication_id=final.replication_id,
        at_least=final.offset,
        patience=CATCH_UP,
    )


async def _until_fit(run: Run, new: Instance) -> Instance | None:
    """The present primary of its shard, once the replica is close behind it; None when it is that itself, as after an
    attempt that came so far. Raises Refused when it does not get there, NotNow when the shard cannot be seen."""
    clock = asyncio.get_running_loop().time
    deadline, mark = clock() + FIT_LIMIT, -1
    while True:
        seen = await see(run)
        old = seen.primaries.get(new.shard or "")
        if old is not None and old.id == new.id:
            await _finish_yield(run, new)
            return None
        if old is None or new.id not in seen.facts or old.id not in seen.facts:
            raise NotNow(f"the primary of shard {new.shard} and {new.name} must both be reachable")
        mark = seen.facts[old.id].offset if mark < 0 else mark
        reason = _unfit(run, seen, old, new, mark)
        if reason is None:
            return old
        if clock() > deadline:
            raise Refused(f"{new.name} cannot be promoted: {reason}", kind="busy")
        await run.wait(0.02)


def _unfit(run: Run, seen: Seen, old: Instance, new: Instance, mark: int) -> str | None:
    mine, primary = seen.facts[new.id], seen.facts[old.id]
    if mine.cluster is None or mine.cluster.primary_id != seen.node_id(old):
        return f"it does not follow {old.name}"
    if reason := unfitness(mine, primary.replication_id):
        return reason
    if mine.upstream is not None and not mine.upstream.link_up:
        return "its link to the primary is down"
    if (lag := lag_bytes(mine, primary)) > run.tools.lag_limit_bytes:
        return f"it lags {lag} bytes behind; the limit is {run.tools.lag_limit_bytes}"
    return f"it lacks {mark - mine.offset} bytes of a while ago" if mine.offset < mark else None


async def _finish_yield(run: Run, new: Instance) -> None:
    """An attempt before this one may have died between the two."""
    old = run.find(run.operation.choice.get("old"))
    if old is not None and old.id != new.id:
        await run.tell(old, ClusterYield(old.id, run.group.id, run.group.epoch, patience=2 * CATCH_UP))


async def release_held(run: Run) -> None:
    old = run.find(run.operation.choice.get("old"))
    if old is None:
        return
    try:
        facts = (await run.look([old])).get(old.id)
        if facts is not None and facts.role is Role.PRIMARY:
            await run.tell(old, ReleaseWrites(old.id, run.group.id, run.group.epoch))
        elif facts is not None:
            await run.tell(old, ClusterYield(old.id, run.group.id, run.group.epoch))
    except RedkeepError as error:
        await run.note(f"{old.name} may still hold its writers: {error}", old.id)


async def _settle(run: Run, reason: str | None = None) -> None:
    await run.settle([one.id for one in run.instances if one.status is Status.PROMOTE], Status.ACTIVE, reason)

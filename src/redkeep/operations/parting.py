"""Members leave a cluster: not while anybody sees slots with them, or follows them.

`choice` of the operation: `forget`, what Redis calls those who leave; saved before anybody is told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from redkeep.decide.clusters import slots_held
from redkeep.errors import Refused
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Fault, Instance, Status
from redkeep.operations.context import Run
from redkeep.operations.forming import until_agreed
from redkeep.operations.membership import in_cluster, require_nobody_follows, take_out

AGREE_LIMIT = 30.0
"""Seconds that those who stay get to agree with each other before it is tried anew."""


async def part(run: Run, names: Collection[str]) -> None:
    """Safe to call again. Raises Refused when one of them has slots, NotNow while it cannot be known."""
    leaving = [one for one in run.instances if one.id in set(names)]
    if not leaving:
        return
    if "forget" not in run.operation.choice:
        run.mark("check", 0.6)
        node_ids = await _require_idle(run, leaving)
        run.operation = replace(run.operation, choice={**run.operation.choice, "forget": sorted(node_ids)})
        await run.alter(instances=lambda one: replace(one, status=Status.SHUTDOWN) if one.id in set(names) else one)

    await run.step("leave", 0.8)
    leaving = [one for one in run.instances if one.id in set(names)]
    lost = await take_out(run, leaving, run.operation.choice["forget"])

    run.mark("left", 0.9)
    await _record(run, {one.id for one in leaving}, lost)


async def _record(run: Run, gone: Collection[str], lost: Collection[str]) -> None:
    """Those whose files are gone are deleted; the others are no members any more, and stay to be removed later."""
    async with run.change() as tx:
        now = await tx.now()
        told = Fault("It has left the cluster, but its host does not answer: shrink the cluster by it again.", now)
        left = [one for one in run.instances if one.id in gone]
        await tx.save(
            *(replace(one, deleted=True, fault=None, updated=now) for one in left if one.id not in lost),
            *(
                replace(one, status=Status.ERROR, node_id=None, fault=told, updated=now)
                for one in left
                if one.id in lost
            ),
        )


async def stay_after_all(run: Run, names: Collection[str], reason: str) -> None:
    """Whoever has not been told to go stays as it was; the others cannot be brought back."""
    async with run.change() as tx:
        now = await tx.now()
        told = Fault(f"{reason} Shrink the cluster again.", now)
        half = [one for one in run.instances if one.id in set(names) and one.status is Status.SHUTDOWN]
        await tx.save(*(replace(one, status=Status.ERROR, fault=told, updated=now) for one in half))


async def _require_idle(run: Run, leaving: list[Instance]) -> set[str]:
    """What Redis calls them, once nobody sees a slot with one of them."""
    gone = {one.id for one in leaving}
    staying = [one for one in in_cluster(run) if one.id not in gone]
    present = await run.look([one for one in leaving if one.host_id])
    node_ids = _node_ids(leaving, present)
    facts = {**await _agreeing(run, staying, node_ids), **present}
    held = slots_held(run.instances, facts)
    if holders := [one.name for one in leaving if held.get(one.id)]:
        raise Refused(f"One or more nodes have data slots assigned: {', '.join(holders)}.", kind="forbidden")
    require_nobody_follows(staying, facts, node_ids)
    return node_ids


async def _agreeing(run: Run, staying: list[Instance], gone: set[str]) -> Mapping[str, ServerFacts]:
    if not staying:
        raise Refused("The last shard cannot be removed: delete the cluster instead.", kind="forbidden")
    return await until_agreed(run, staying, AGREE_LIMIT, gone=gone)


def _node_ids(leaving: list[Instance], facts: Mapping[str, ServerFacts]) -> set[str]:
    """By their own word, or by their rows; one that never joined may have none."""
    said = {one.cluster.node_id for one in facts.values() if one.cluster}
    return said | {one.node_id for one in leaving if one.node_id}

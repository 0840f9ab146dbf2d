"""Servers become one cluster: look, tell each what it lacks, look again, until all of them agree.

Called by the runbooks that make or mend clusters; safe to call again, whatever came of it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from redkeep.decide.agreement import disagreement
from redkeep.decide.forming import (
    FORMING_TIMEOUT_MS,
    PATIENT_TIMEOUT_MS,
    Place,
    adjustments,
    introductions,
    preparations,
)
from redkeep.errors import NotNow, RedkeepError, StaleEpoch
from redkeep.model.cluster_orders import ClusterComplete, ClusterOrder
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Instance
from redkeep.operations.context import Run

LOOK_AGAIN = 0.03
"""Seconds between two looks at members that do not agree yet."""
INTRODUCE_AGAIN = 1.0
"""Seconds after which an introduction that has not led to acquaintance is repeated: as long as a handshake may take."""
SHOULD_TAKE = 4.0
"""Seconds within which members agree on a machine that is not starved."""


async def form(run: Run, places: Sequence[Place], *, joining: Collection[str] | None = None) -> dict[str, ServerFacts]:
    """The servers at these places are one cluster, and every member says so; the last look at them.

    All of the cluster's members are among the places. With `joining` only these are new: the others are left as they
    are, but for being introduced. Goes on until the operation's deadline. Raises NotNow when a server refuses.
    """
    new = frozenset(one.instance_id for one in places) if joining is None else frozenset(joining)
    fresh = [one for one in places if one.instance_id in new]
    run.mark("prepare")
    await _tell_all(run, preparations(fresh, run.group.epoch, FORMING_TIMEOUT_MS))
    run.mark("meet")
    facts = await _until_they_agree(run, places, new)
    run.mark("complete")
    await _tell_all(run, [ClusterComplete(one.instance_id, one.group_id, run.group.epoch) for one in fresh])
    return facts


async def until_agreed(
    run: Run, instances: Iterable[Instance], limit: float, *, gone: Collection[str] = ()
) -> dict[str, ServerFacts]:
    """Wait until these are one cluster of one mind; the look that showed it. Raises NotNow after `limit` seconds."""
    members = list(instances)
    deadline = asyncio.get_running_loop().time() + limit
    while True:
        facts = await run.look(members)
        reason = disagreement(_named(run, facts), [one.name for one in members], gone=gone)
        if reason is None:
            return facts
        if asyncio.get_running_loop().time() > deadline:
            raise NotNow(f"the members do not agree after {limit:g} s: {reason}")
        await run.wait(LOOK_AGAIN)


async def _until_they_agree(run: Run, places: Sequence[Place], new: frozenset[str]) -> dict[str, ServerFacts]:
    clock = asyncio.get_running_loop().time
    began, introduced, members = clock(), float("-inf"), [run.instance(one.instance_id) for one in places]
    patient = False
    while True:
        facts = await run.look(members)
        reason = disagreement(_named(run, facts), [one.name for one in members])
        if reason is None:
            return facts
        run.operation = replace(run.operation, error=reason)  # what the operator reads when it is given up
        orders: list[ClusterOrder] = []
        if clock() > introduced + INTRODUCE_AGAIN:
            introduced = clock()
            orders += introductions(places, facts, run.group.epoch, new)
        orders += adjustments([one for one in places if one.instance_id in new], facts, run.group.epoch)
        if not patient and clock() > began + SHOULD_TAKE:
            patient = True
            fresh = [one for one in places if one.instance_id in new]
            orders += preparations(fresh, run.group.epoch, PATIENT_TIMEOUT_MS)
        await _tell_all(run, orders)
        await run.wait(LOOK_AGAIN)


def _named(run: Run, facts: Mapping[str, ServerFacts]) -> dict[str, ServerFacts]:
    """By the names that people know."""
    return {run.instance(name).name: one for name, one in facts.items()}


async def _tell_all(run: Run, orders: Iterable[ClusterOrder]) -> None:
    """All at once. One that is out of reach, or not ready, is told again after the next look."""
    await asyncio.gather(*(_tell(run, order) for order in orders))


async def _tell(run: Run, order: ClusterOrder) -> None:
    try:
        await run.tell(run.instance(order.instance_id), order)
    except StaleEpoch:
        raise
    except NotNow:
        return
    except RedkeepError as error:
        raise NotNow(str(error)) from error

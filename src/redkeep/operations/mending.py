"""Slots that were left half-way are finished: at every look, not only after errors."""

from __future__ import annotations

import asyncio
import logging

from redkeep.decide.open_slots import Await, Close, Finish, to_finish
from redkeep.errors import RedkeepError, StaleEpoch
from redkeep.model.cluster_orders import CloseSlots, MoveSlots
from redkeep.model.slots import Pace
from redkeep.operations.context import Run
from redkeep.operations.shards import Seen

log = logging.getLogger(__name__)

BUDGET = 5.0
"""Seconds for the slots that were half-way between two members: few, but they may hold many keys."""


async def finish_open_slots(run: Run, seen: Seen, pace: Pace) -> bool:
    """Finish what can be finished; whether there was anything that can be. Then look again: it may not all be done."""
    todo = to_finish(seen.facts, seen.truth, seen.shards)
    if waiting := [one for one in todo if isinstance(one, Await)]:
        log.info(
            "cluster %s: %d slots wait for a member that is away", run.group.id, sum(len(w.slots) for w in waiting)
        )
    orders = [order for one in todo if (order := _order(run, seen, one, pace)) is not None]
    done = await asyncio.gather(*(_tell(run, order) for order in orders))
    return any(done)


def _order(run: Run, seen: Seen, todo: Finish | Close | Await, pace: Pace) -> CloseSlots | MoveSlots | None:
    match todo:
        case Finish(source, target, slots):
            there = run.instance(target)
            if there.address is None:
                return None
            return MoveSlots(
                source,
                run.group.id,
                run.group.epoch,
                slots,
                seen.node_id(there),
                there.address,
                pace,
                BUDGET,
                largest_key=1 << 40,  # it cannot stay where it is: the rest of its slot is on the other side
            )
        case Close(instance_id, slots):
            return CloseSlots(instance_id, run.group.id, run.group.epoch, slots)
        case _:
            return None


async def _tell(run: Run, order: CloseSlots | MoveSlots) -> bool:
    try:
        await run.tell(run.instance(order.instance_id), order, timeout=30)
    except StaleEpoch:
        raise
    except RedkeepError as error:
        log.info("open slots of %s: %s", run.instance(order.instance_id).name, error)
        return False
    return True

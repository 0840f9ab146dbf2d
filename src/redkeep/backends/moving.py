"""Groups on their way to another site: an ordinary operation for each, so many at a time, until each has ended.

Whoever asks again finds what is done, and what is under way: an operation that waits for the group already is adopted,
and a group whose primary is there is left alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redkeep.errors import RedkeepError
from redkeep.model.instance import Event, Instance, Status
from redkeep.model.operation import Kind, Operation, State
from redkeep.orders import HINTS, hint
from redkeep.ports import BackendContext, Transaction, WholeGroup

POLL = 0.05
"""Seconds between two looks at which operations are open still."""
BUSY_PAUSE = 0.3
"""Seconds before a group is asked again that something else is being done with."""
IN_ORDER_LIMIT = 60.0
"""Seconds for one group that is to lose nothing."""
FORCED_LIMIT = 90.0
"""Seconds for one group of a forced failover, the wait for the old site's word counted."""


@dataclass(frozen=True, slots=True)
class Journey:
    """Where all groups of a backend go."""

    site: str
    forced: bool
    failover_id: str
    denied_since: float
    """Store time at which the old site was seen to be denied; of no account when it goes in order."""
    parallel: int
    requested_by: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """Its primary is at the site. `lost`: what may be lost, in words; empty when it is nothing."""

    lost: str = ""
    moved: bool = True
    """False when it was there before."""


@dataclass(frozen=True, slots=True)
class Stayed:
    """It is not there, and why."""

    reason: str
    replicated: bool = True
    """False when it has no replica at the site."""


Outcome = Arrived | Stayed


async def move(
    context: BackendContext, journey: Journey, groups: Sequence[str], tell: Callable[[float], None]
) -> dict[str, Outcome]:
    """What became of each group. Raises what the store raises."""
    room, outcomes = asyncio.Semaphore(journey.parallel), dict[str, Outcome]()
    open_ = _Open(context)

    async def one(group_id: str) -> None:
        async with room:
            outcomes[group_id] = await _move_one(context, journey, group_id, open_)
        tell(len(outcomes) / len(groups))

    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(open_.watch())
            movers = [tasks.create_task(one(group_id)) for group_id in groups]
            await asyncio.wait(movers) if movers else None
            watch.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    return outcomes


async def _move_one(context: BackendContext, journey: Journey, group_id: str, open_: _Open) -> Outcome:
    limit = FORCED_LIMIT if journey.forced else IN_ORDER_LIMIT
    deadline = asyncio.get_running_loop().time() + limit
    while True:
        asked = await _ask(context, journey, group_id, limit)
        if isinstance(asked, Arrived | Stayed):
            return asked
        if asked is not None:
            await _poke(context, group_id, urgent=journey.forced)
            ended = await open_.until_ended(asked)
            if ended is None or ended.state is State.DONE:
                return Arrived(str(ended.choice.get("lost", "")) if ended else "")
            if asyncio.get_running_loop().time() > deadline or journey.forced:
                return Stayed(ended.error or "it was given up")
        elif asyncio.get_running_loop().time() > deadline:
            return Stayed(f"something else was being done with it for {limit:g} s")
        await asyncio.sleep(BUSY_PAUSE)


async def _ask(context: BackendContext, journey: Journey, group_id: str, limit: float) -> Outcome | str | None:
    """Record the operation, or find the one that is recorded: its id. None: the group is busy."""
    async with context.store.begin() as tx:
        found = await tx.whole_group(group_id, lock=True)
        if found is None or not found.instances:
            return Arrived(moved=False)
        primary = next((one for one in found.instances if one.id == found.group.primary_id), None)
        if primary is None:
            return Stayed("it has no primary", replicated=False)
        if primary.site == journey.site and found.group.successor_id is None:
            return Arrived(moved=False)
        if known := next((one for one in found.operations if _is_ours(one, journey)), None):
            return known.id
        at_site = [one for one in found.instances if one.site == journey.site]
        there = [one for one in at_site if one.address is not None and one.status is not Status.BUILD]
        unmade = any(one.status is Status.BUILD for one in (primary, *at_site))
        if at_site and unmade and not journey.forced:
            return None  # in a moment it is there; left behind, it could not write any more
        if not there and primary.site != journey.site:
            return Stayed(f"it has no replica at site {journey.site}", replicated=False)
        operation = _forced(journey, found) if journey.forced else _in_order(journey, found, there)
        if operation is None:
            return None
        operation = replace(operation, deadline=found.now + limit)
        await _record(tx, journey, found, operation, primary)
        return operation.id


def _is_ours(operation: Operation, journey: Journey) -> bool:
    if operation.args.get("site") != journey.site:
        return False
    return not journey.forced or operation.args.get("failover") == journey.failover_id


def _forced(journey: Journey, found: WholeGroup) -> Operation:
    args = {
        "reason": f"failover of the backend to site {journey.site}",
        "proven": False,
        "history": "",
        "site": journey.site,
        "failover": journey.failover_id,
        "denied_since": journey.denied_since,
    }
    return _operation(journey, found, Kind.FAIL_OVER, args)


def _in_order(journey: Journey, found: WholeGroup, there: Sequence[Instance]) -> Operation | None:
    fit = sorted(one.id for one in there if one.status is Status.ACTIVE)
    if not fit or any(not one.status.settled for one in found.instances):
        return None
    return _operation(journey, found, Kind.PROMOTE_REPLICA, {"instance": fit[0], "site": journey.site})


def _operation(journey: Journey, found: WholeGroup, kind: Kind, args: dict[str, Any]) -> Operation:
    return Operation(
        id=str(uuid.uuid4()),
        group_id=found.group.id,
        kind=kind,
        created=found.now,
        args=args,
        requested_by=journey.requested_by,
    )


async def _record(
    tx: Transaction, journey: Journey, found: WholeGroup, operation: Operation, primary: Instance
) -> None:
    planned = operation.kind is Kind.PROMOTE_REPLICA
    taken = [one for one in found.instances if planned and one.status is Status.ACTIVE]
    await tx.save(*(replace(one, status=Status.PROMOTE, updated=found.now) for one in taken), operation)
    await tx.record(
        Event(
            at=found.now,
            kind=f"{operation.kind}.requested",
            text=f"{'forced ' if journey.forced else ''}failover of the backend: {primary.name} goes to {journey.site}",
            project_id=primary.project_id,
            group_id=found.group.id,
            instance_id=primary.id,
            operation_id=operation.id,
            actor=journey.requested_by,
        )
    )


async def _poke(context: BackendContext, group_id: str, *, urgent: bool) -> None:
    """A hint: its loss costs a second."""
    try:
        await context.bus.publish(HINTS, {**hint(group_id), "urgent": urgent})
    except RedkeepError:
        return


class _Open:
    """One look at all open operations tells everybody who waits for one of them."""

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._waiting: dict[str, asyncio.Event] = {}

    async def watch(self) -> None:
        while True:
            if self._waiting:
                async with self._context.store.read() as tx:
                    open_ = {one.id for one in await tx.open_operations()}
                for name, event in self._waiting.items():
                    if name not in open_:
                        event.set()
            await asyncio.sleep(POLL)

    async def until_ended(self, operation_id: str) -> Operation | None:
        """The operation as it ended; None when nobody remembers it any more."""
        event = self._waiting.setdefault(operation_id, asyncio.Event())
        try:
            await event.wait()
        finally:
            self._waiting.pop(operation_id, None)
        async with self._context.store.read() as tx:
            return await tx.operation(operation_id)

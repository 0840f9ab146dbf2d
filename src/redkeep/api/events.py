"""What happened to an instance and its group: who asked for what, what was decided and why. Redkeep's own resource."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel

from redkeep.api.call import InstanceId, ThisCall
from redkeep.api.record import owned
from redkeep.api.views import timestamp
from redkeep.errors import Refused
from redkeep.model.instance import Event

Limit = Annotated[int, Query(ge=1, le=1000, description="How many, the newest first")]


class EventView(BaseModel):
    """One line of the audit."""

    at: str
    kind: str
    text: str
    actor: str
    """Who asked, or which manager acted."""
    instance_id: str | None = None
    operation_id: str | None = None


class EventList(BaseModel):
    events: list[EventView]


async def index(
    call: ThisCall,
    instance_id: InstanceId,
    limit: Limit = 100,
) -> EventList:
    """The newest events of an instance's group, newest first."""
    async with call.context.store.read() as tx:
        instance = await owned(tx, call, instance_id)
        found = await tx.events(group_id=instance.group_id, limit=limit)
    return _views(found)


async def index_of_all(call: ThisCall, limit: Limit = 100) -> EventList:
    """The newest events of the whole installation, newest first: those of managers, sites and freezes as well. For the
    administrator."""
    if not call.caller.is_admin:
        raise Refused("Only the administrator may read all events.", kind="forbidden")
    async with call.context.store.read() as tx:
        return _views(await tx.events(limit=limit))


def _views(found: Iterable[Event]) -> EventList:
    return EventList(
        events=[
            EventView(
                at=timestamp(one.at),
                kind=one.kind,
                text=one.text,
                actor=one.actor,
                instance_id=one.instance_id,
                operation_id=one.operation_id,
            )
            for one in found
        ]
    )

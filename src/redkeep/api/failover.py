"""The operator's switch for automatic failover of all groups. Redkeep's own resource; the administrator's alone."""

from __future__ import annotations

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from redkeep.api.call import ThisCall, accepted
from redkeep.errors import Refused
from redkeep.model.instance import FAILOVER_PAUSED, Event


class Failover(BaseModel):
    """Whether automatic failover is paused, of every group. Those that are paused one by one stay so."""

    model_config = ConfigDict(extra="forbid")

    paused: bool = Field(strict=True)


async def show(call: ThisCall) -> Failover:
    """How the switch stands."""
    async with call.context.store.read() as tx:
        return Failover(paused=await tx.switch(FAILOVER_PAUSED))


async def update(call: ThisCall, body: Failover) -> Response:
    """Pause automatic failover of all groups, or resume it. Saying it twice changes nothing."""
    if not call.caller.is_admin:
        raise Refused("Only the administrator may pause failover of all groups.", kind="forbidden")
    async with call.context.store.begin() as tx:
        if await tx.switch(FAILOVER_PAUSED) != body.paused:
            await tx.set_switch(FAILOVER_PAUSED, body.paused)
            text = f"automatic failover of all groups is {'paused' if body.paused else 'on again'}"
            kind = "failover.paused" if body.paused else "failover.resumed"
            await tx.record(Event(at=await tx.now(), kind=kind, text=text, actor=call.caller.name))
    return accepted()

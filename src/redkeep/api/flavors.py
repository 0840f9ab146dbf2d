"""Flavors: the sizes to order by."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from redkeep.api import views
from redkeep.api.call import ThisCall
from redkeep.api.schemas import FlavorList, FlavorReply
from redkeep.errors import Refused


async def index(call: ThisCall) -> FlavorList:
    """All flavors."""
    return FlavorList(flavors=[views.flavor_view(flavor, call) for flavor in call.context.settings.flavors])


async def show(call: ThisCall, flavor_id: Annotated[str, Path(examples=["2"])]) -> FlavorReply:
    """One flavor."""
    flavor = call.context.settings.flavor(flavor_id)
    if flavor is None:
        raise Refused(f"Flavor {flavor_id[:64]} cannot be found.", kind="missing")
    return FlavorReply(flavor=views.flavor_view(flavor, call))

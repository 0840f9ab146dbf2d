"""Limits: what a project may have. There are no rate limits to list."""

from __future__ import annotations

from redkeep.api.call import ThisCall
from redkeep.api.schemas import AbsoluteLimits, LimitList


async def index(call: ThisCall) -> LimitList:
    """The project's quotas. Clients count on this first entry."""
    settings = call.context.settings
    return LimitList(
        limits=[
            AbsoluteLimits(
                max_instances=settings.max_instances,
                max_ram=settings.max_ram_mb,
                max_volumes=settings.max_volume_gb,
                max_backups=settings.max_backups,
            )
        ]
    )

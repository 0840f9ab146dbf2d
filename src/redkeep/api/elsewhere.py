"""What Trove's clients can ask for and Redkeep does not offer: said in words that they can show."""

from __future__ import annotations

from fastapi import Response
from starlette.exceptions import HTTPException

from redkeep.api.call import ThisCall
from redkeep.errors import Refused

NOT_OFFERED = {
    "backup_strategies": "backup strategies",
    "databases": "several databases in one instance",
    "log": "logs of the servers",
    "modules": "modules",
}


async def not_offered(_: ThisCall, noun: str) -> Response:
    """501 for what Trove has, 404 for what nobody has."""
    if noun not in NOT_OFFERED:
        raise HTTPException(404)
    raise Refused(f"Redkeep does not offer {NOT_OFFERED[noun]}.", kind="unsupported")

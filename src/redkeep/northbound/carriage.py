"""How bodies and answers are written down to travel: JSON, and errors by their class."""

from __future__ import annotations

import json
import logging
from typing import Any

from redkeep.errors import NotNow, OutcomeUnknown, RedkeepError, Refused, StaleEpoch, Unavailable
from redkeep.ports import Body, Handler

log = logging.getLogger(__name__)

_TRAVEL: tuple[type[RedkeepError], ...] = (Refused, NotNow, Unavailable, OutcomeUnknown, StaleEpoch)


def pack(body: Body) -> str:
    """A body as text. Raises TypeError or ValueError on what JSON cannot say."""
    return json.dumps(body, separators=(",", ":"), allow_nan=False)


def unpack(text: str | bytes) -> dict[str, Any]:
    """The inverse of `pack`. Raises ValueError on anything else."""
    body = json.loads(text)
    if not isinstance(body, dict):
        raise ValueError(f"not a body: {text!r}")
    return body


def pack_answer(body: Body) -> str:
    """What a handler returned."""
    return pack({"ok": dict(body)})


async def answer_of(handler: Handler, body: Body, what: str) -> str:
    """What a handler returns or raises, packed: it is not ours, and whatever it does, the caller gets an answer."""
    try:
        return pack_answer(await handler(body))
    except Exception as error:  # the supervisor of handlers: logs what nobody foresaw, and goes on
        if not isinstance(error, _TRAVEL):
            log.exception("the handler of %s failed", what)
        return pack_error(error)


def pack_error(error: Exception) -> str:
    """What a handler raised. Of anything but our own errors the caller learns no more than that."""
    named = next((kind for kind in _TRAVEL if isinstance(error, kind)), None)
    if named is None:
        return pack({"error": "OutcomeUnknown", "message": f"the handler failed: {type(error).__name__}"})
    said: dict[str, Any] = {"error": named.__name__, "message": str(error)}
    if isinstance(error, Refused):
        said["kind"] = error.kind
    if isinstance(error, StaleEpoch):
        said["seen"] = error.seen
    return pack(said)


def unpack_answer(text: str | bytes) -> dict[str, Any]:
    """What the handler returned; or raises what it raised. Raises OutcomeUnknown on what cannot be read."""
    try:
        answer = unpack(text)
        if "ok" in answer:
            return dict(answer["ok"])
    except (ValueError, TypeError) as error:
        raise OutcomeUnknown(f"the reply cannot be read: {text!r}") from error
    raise _error(answer)


def _error(answer: dict[str, Any]) -> RedkeepError:
    message = str(answer.get("message", ""))
    match answer.get("error"):
        case "Refused":
            return Refused(message, kind=str(answer.get("kind", "invalid")))
        case "StaleEpoch":
            return StaleEpoch(message, seen=int(answer.get("seen", 0)))
        case "NotNow":
            return NotNow(message)
        case "Unavailable":
            return Unavailable(message)
        case _:
            return OutcomeUnknown(message)

"""Errors as answers: one table from what went wrong to the shape that Trove's clients understand.

The shape is `{"<name>": {"code": <status>, "message": "<text>"}}` and nothing else: the clients take the first value of
the object and call `.get` on it, so FastAPI's own `{"detail": ...}` would break them. None of them carries
`Retry-After`, on which they break as well (except with 413).

This is the only place of the API that catches everything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redkeep.errors import NotNow, OutcomeUnknown, RedkeepError, Refused, StaleEpoch, Unavailable

log = logging.getLogger(__name__)

NAMES: Mapping[int, str] = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflict",
    413: "overLimit",
    415: "badMediaType",
    422: "unprocessableEntity",
    500: "instanceFault",
    501: "notImplemented",
    503: "serviceUnavailable",
}

OF_BLOCK_STORAGE: Mapping[int, str] = {**NAMES, 406: "computeFault", 409: "conflictingRequest", 500: "computeFault"}
"""What the block storage API calls some of them."""


def names_at(path: str) -> Mapping[int, str]:
    """The names of the API that is spoken at a path."""
    return OF_BLOCK_STORAGE if path == "/v3" or path.startswith("/v3/") else NAMES


BY_KIND: Mapping[str, int] = {
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "missing": 404,
    "conflict": 409,
    "too_large": 413,
    "busy": 422,
    "unsupported": 501,
}

BY_CLASS: Mapping[type[RedkeepError], int] = {NotNow: 409, StaleEpoch: 409, Unavailable: 503, OutcomeUnknown: 503}

CHALLENGE = {"WWW-Authenticate": 'Basic realm="redkeep"'}

MOST_REASONS = 5
"""How many wrong fields one message names."""


def _schema(code: int, name: str) -> dict[str, Any]:
    detail = {
        "type": "object",
        "required": ["code", "message"],
        "properties": {
            "code": {"type": "integer", "const": code},
            "message": {"type": "string", "description": "What happened, to what, and what can be done"},
        },
    }
    return {"type": "object", "required": [name], "properties": {name: detail}, "additionalProperties": False}


def _schema_name(code: int, name: str) -> str:
    return f"{name}{code}Fault" if name == "computeFault" else f"{name}Fault"


SCHEMAS: Mapping[str, dict[str, Any]] = {
    _schema_name(code, name): _schema(code, name) for code, name in (*NAMES.items(), *OF_BLOCK_STORAGE.items())
}
"""By name, for the components of the OpenAPI document."""


def documented(codes: Iterable[int], path: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route, for the OpenAPI document."""
    names = names_at(path)
    return {
        code: {
            "description": HTTPStatus(code).phrase,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{_schema_name(code, names[code])}"}}
            },
        }
        for code in sorted(codes)
    }


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the faults in it, and without the answer that FastAPI would give to a wrong request."""
    schemas = document["components"]["schemas"]
    schemas.update(SCHEMAS)
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    return document


def fault(code: int, message: str, path: str = "") -> JSONResponse:
    """An error as an answer to a request for this path."""
    body = {names_at(path)[code]: {"code": code, "message": message}}
    return JSONResponse(body, status_code=code, headers=CHALLENGE if code == 401 else None)


def status_of(error: RedkeepError) -> int:
    """The HTTP status of an error that was raised on purpose."""
    if isinstance(error, Refused):
        return BY_KIND.get(error.kind, 400)
    return next((code for cls, code in BY_CLASS.items() if isinstance(error, cls)), 500)


def message_of(error: RedkeepError) -> str:
    """What to tell the caller; whether the request ran is part of it."""
    if isinstance(error, OutcomeUnknown):
        return f"{error} (The request may have run, or not: look before you repeat it.)"
    return str(error)


def reasons_of(error: RequestValidationError) -> str:
    """Which fields are wrong and why. The values stay out: one of them may be a password."""
    reasons = [_reason(one["type"], one["loc"], one["msg"].removeprefix("Value error, ")) for one in error.errors()]
    more = f" (and {len(reasons) - MOST_REASONS} more)" if len(reasons) > MOST_REASONS else ""
    return "; ".join(reasons[:MOST_REASONS]) + more


def _reason(kind: str, location: tuple[int | str, ...], message: str) -> str:
    """`instance.name: ...` for `('body', 'instance', 'name')`; parts that the caller chose are cut short."""
    if kind == "json_invalid":
        return f"the body is no JSON from character {location[-1]} on"
    field = ".".join(str(part)[:64] for part in location[1:])
    return f"{field or 'the body'}: {message}"


async def _on_purpose(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RedkeepError)  # noqa: S101 (for the type checker: registered for this class alone)
    if status_of(error) >= 500 and not isinstance(error, Refused):
        log.warning("answered %s: %s", status_of(error), error)
    return fault(status_of(error), message_of(error), request.url.path)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return fault(400, reasons_of(error), request.url.path)


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses. A wrong method is 404, as upstream: the clients know nothing of 405 here."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code in (404, 405):
        return fault(404, f"There is nothing at {request.method} {request.url.path[:200]}", request.url.path)
    return fault(error.status_code if error.status_code in NAMES else 400, str(error.detail), request.url.path)


class LastResort:
    """Whatever nobody foresaw: a traceback for the log, a generic answer for the caller."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            if scope["type"] != "http" or started:
                raise
            log.exception("%s: %s %r failed", scope.get("request_id"), scope["method"], scope["path"])
            text = "Something went wrong here; the log of the API says what."
            await fault(500, text, scope["path"])(scope, receive, send)


def install(app: FastAPI) -> None:
    """Have the application answer every error from this table."""
    app.add_exception_handler(RedkeepError, _on_purpose)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)

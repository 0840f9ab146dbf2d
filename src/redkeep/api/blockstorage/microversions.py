"""Which microversion a request to /v3 is in: asked for by a header, settled before anything else is looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redkeep.api.faults import fault

HEADER = "OpenStack-API-Version"
PREFIX = "/v3"
DOCUMENTS = ("/v3", "/v3/")

Version = tuple[int, int]

LEAST: Version = (3, 0)
MOST: Version = (3, 26)
"""Clients settle on it by themselves; more would promise logs and backend states."""
CLUSTERS: Version = (3, 7)
REPLICATION: Version = (3, 26)

_FORM = re.compile(r"^[1-9]\d*\.([1-9]\d*|0)$")


def text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asked for."""

    version: Version = LEAST
    said: bool = False
    """It said so; without a word it is 3.0."""


@dataclass(frozen=True, slots=True)
class Impossible:
    """It cannot be answered."""

    code: int
    message: str
    version: str = ""
    """What it asked for, if that can be told."""


def negotiate(header: str | None) -> Asked | Impossible:
    """What a header means (contract, section 1.3)."""
    if header is None:
        return Asked()
    ours = next((part for part in header.split(",") if "volume" in part), None)
    words = ours.split() if ours else []
    if not words or len(words) > 2:
        return Impossible(400, f"The header {HEADER} must look like 'volume 3.26'.")
    wanted = words[1] if len(words) == 2 else ""
    if wanted == "latest":
        return Asked(MOST, said=True)
    if not _FORM.fullmatch(wanted):
        return Impossible(
            400, f"API Version String {wanted} is of invalid format. Must be of format MajorNum.MinorNum."
        )
    major, minor = (int(number) for number in wanted.split("."))
    if not LEAST <= (major, minor) <= MOST:
        limits = f"Minimum is {text(LEAST)} and maximum is {text(MOST)}."
        return Impossible(406, f"Version {wanted} is not supported by the API. {limits}", wanted)
    return Asked((major, minor), said=True)


def asked_of(request: Request) -> Asked:
    """What `Negotiation` has settled."""
    asked = request.state.asked
    assert isinstance(asked, Asked)  # noqa: S101 (for the type checker)
    return asked


class Negotiation:
    """Settles the version of every request to /v3, and says on every answer which one it was."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PREFIX or path.startswith(f"{PREFIX}/")):
            await self._app(scope, receive, send)
            return
        asked = negotiate(Headers(scope=scope).get(HEADER))
        if path in DOCUMENTS:
            asked = Asked()  # they say what there is, to whoever asks for whatever
        request_id = scope.get("request_id", "")
        shown = text(asked.version) if isinstance(asked, Asked) else asked.version

        async def stamp(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-compute-request-id"] = request_id
                if shown:
                    headers[HEADER] = f"volume {shown}"
                    headers.add_vary_header(HEADER)
            await send(message)

        if isinstance(asked, Impossible):
            await fault(asked.code, asked.message, path)(scope, receive, stamp)
            return
        state = {**scope.get("state", {}), "asked": asked}
        await self._app({**scope, "state": state}, receive, stamp)

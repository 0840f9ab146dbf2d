"""What every request and every answer goes through, whatever it is about: its id, its size, its trailing slash."""

from __future__ import annotations

from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Envelope:
    """Names each request, and takes a path with a trailing slash for the one without, in place of a redirect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req-{uuid4()}"

        async def stamp(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-openstack-request-id"] = request_id
            await send(message)

        path = scope["path"]
        if not path.startswith("/v3/"):  # there a slash at the end means something else: nothing, or the versions
            path = path.rstrip("/") or "/"
        await self._app({**scope, "path": path, "request_id": request_id}, receive, stamp)


class BodyLimit:
    """Refuses a request that is longer than it may be: by its own account at once, else as soon as it shows."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        announced = int(declared) if declared.isdecimal() else 0
        seen = 0

        async def count() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if max(seen, announced) > self._most:
                # An HTTPException, since it is the one error that the framework lets through while it reads a body.
                raise HTTPException(413, f"The request is larger than {self._most} bytes.")
            return message

        await self._app(scope, count, send)

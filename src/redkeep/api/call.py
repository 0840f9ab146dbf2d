"""What a handler is given: the process' doors, who is calling, and for which project."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import URL
from starlette.exceptions import HTTPException

from redkeep.api.auth import Caller, Gate
from redkeep.api.settings import ApiSettings
from redkeep.errors import Refused
from redkeep.ports import Bus, Store
from redkeep.vault import Vault

if TYPE_CHECKING:
    from redkeep.api.cluster_strategy import ApiStrategy

_WITH_BODY = ("POST", "PUT", "PATCH")
_JSON = re.compile(r"application/json\s*(;.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Context:
    """The doors of this process, made once by `create_app`."""

    settings: ApiSettings
    store: Store
    bus: Bus
    vault: Vault
    gate: Gate
    clusters: ApiStrategy


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request about one project."""

    context: Context
    caller: Caller
    project_id: str
    url: URL
    base_url: str
    """Where this API is reached, without a slash at the end."""

    @property
    def root(self) -> str:
        """The project's own URL."""
        return f"{self.base_url}/v1.0/{self.project_id}"


def context_of(request: Request) -> Context:
    """The doors of the application that serves this request."""
    context = request.app.state.context
    assert isinstance(context, Context)  # noqa: S101 (for the type checker)
    return context


def base_url_of(request: Request) -> str:
    """Where this API is reached, without a slash at the end."""
    return (context_of(request).settings.public_url or str(request.base_url)).rstrip("/")


async def _call(
    request: Request, project: Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$", examples=["admin"])]
) -> Call:
    return Call(context_of(request), request.state.caller, project, request.url, base_url_of(request))


ThisCall = Annotated[Call, Depends(_call)]
InstanceId = Annotated[str, Path(alias="instance_id", min_length=1, description="The id of an instance")]


class Guarded(APIRoute):
    """A route that looks at credentials and at the content type before it reads anything of the body."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            caller = await context_of(request).gate.caller(request.headers)
            project = request.path_params.get("project")
            if project is not None and not caller.may_use(project):
                raise Refused(f"User {caller.name} may not use this project.", kind="forbidden")
            require_json(request)
            request.state.caller = caller
            return await handle(request)

        return guarded


class Open(APIRoute):
    """A route that anybody may call."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def opened(request: Request) -> Response:
            require_json(request)
            return await handle(request)

        return opened


def require_json(request: Request) -> None:
    """A body is one of JSON. Raises HTTPException.

    One without a type is refused too: a browser can be made to send that from a foreign page, with credentials.
    """
    if not is_json(request):
        raise HTTPException(415, "The body must be of Content-Type application/json.")


def is_json(request: Request) -> bool:
    """Its body is one of JSON, or it has none."""
    headers = request.headers
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return request.method not in _WITH_BODY or not has_body or bool(_JSON.fullmatch(headers.get("content-type", "")))


def accepted() -> Response:
    """202, and nothing more to say."""
    return Response(status_code=202)

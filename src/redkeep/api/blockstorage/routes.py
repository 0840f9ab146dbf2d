"""The routes under /v3: each with a project in its path and without, since clients use both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from redkeep.api.blockstorage import clusters, failover, services, versions
from redkeep.api.blockstorage.bodies import Form, schema_of
from redkeep.api.call import context_of, is_json
from redkeep.api.route import Route
from redkeep.errors import Refused

TAGS = {"clusters": "service clusters", "services": "services", "failover": "site failover"}
"""By module."""

READ = (400, 401, 403, 404, 406, 500, 503)
CHANGE = (*READ, 413, 415)


class Administrators(APIRoute):
    """A route for administrators alone, who are known before anything of the body is read. Its name is that of the
    policy which Cinder has for it, and stands in the refusal."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            caller = await context_of(request).gate.caller(request.headers)
            project = request.path_params.get("project")
            if not caller.is_admin or (project is not None and not caller.may_use(project)):
                raise Refused(f"Policy doesn't allow {self.name} to be performed.", kind="forbidden")
            if not is_json(request):
                raise HTTPException(415, "Unsupported Content-Type")
            request.state.caller = caller
            return await handle(request)

        return guarded


def _body(form: Form) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(form)}}}}


def _query(*names: str) -> dict[str, Any]:
    return {"parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]}


_PROJECT = {"name": "project", "in": "path", "required": True, "schema": {"type": "string"}}


_FILTERED = _query(*clusters.FILTERS)

_TABLE: tuple[tuple[str, str, Callable[..., Any], str, dict[str, Any]], ...] = (
    ("GET", "/clusters", clusters.index, "clusters:get_all", _FILTERED),
    ("GET", "/clusters/detail", clusters.index_detail, "clusters:get_all", _FILTERED),
    ("GET", "/clusters/{name}", clusters.show, "clusters:get", _query("binary")),
    ("PUT", "/clusters/enable", clusters.enable, "clusters:update", _body(clusters.ENABLE)),
    ("PUT", "/clusters/disable", clusters.disable, "clusters:update", _body(clusters.DISABLE)),
    ("GET", "/os-services", services.index, "volume_extension:services:index", _query("host", "binary")),
    ("PUT", "/os-services/enable", services.enable, "volume_extension:services:update", _body(services.SWITCH)),
    ("PUT", "/os-services/disable", services.disable, "volume_extension:services:update", _body(services.SWITCH)),
    (
        "PUT",
        "/os-services/disable-log-reason",
        services.disable_with_reason,
        "volume_extension:services:update",
        _body(services.SWITCH_WITH_REASON),
    ),
    ("PUT", "/os-services/freeze", failover.freeze, "volume:freeze_host", _body(failover.FREEZE)),
    ("PUT", "/os-services/thaw", failover.thaw, "volume:thaw_host", _body(failover.FREEZE)),
    ("PUT", "/os-services/failover", failover.fail_over, "volume:failover_host", _body(failover.FAILOVER)),
    ("PUT", "/os-services/failover_host", failover.fail_over_host, "volume:failover_host", _body(failover.FAILOVER)),
)
"""Method, path, handler, policy, and what the document says of the request."""


def _route(
    prefix: str, method: str, path: str, handler: Callable[..., Any], policy: str, said: dict[str, Any]
) -> Route:
    moves = handler in (failover.fail_over, failover.fail_over_host)
    empty = moves or handler in (failover.freeze, failover.thaw)
    return Route(
        method,
        prefix + path,
        handler,
        READ if method == "GET" else CHANGE,
        202 if moves else 200,
        has_body=not empty,
        documented=prefix != "/v3",
        route_class=Administrators,
        name=policy,
        tag=TAGS[handler.__module__.rpartition(".")[2]],
        extra={**said, "parameters": [*said.get("parameters", ()), _PROJECT]},
    )


def _routes() -> tuple[Route, ...]:
    found = [
        Route("GET", "/v3", versions.show, (500, 503), guarded=False, tag="block storage"),
        Route("GET", "/v3/", versions.show, (500, 503), guarded=False, documented=False),
        Route("GET", "/healthcheck", versions.healthcheck, (500, 503), guarded=False, documented=False),
    ]
    for line in _TABLE:
        found.extend(_route(prefix, *line) for prefix in ("/v3", "/v3/{project}"))
    return tuple(found)


ROUTES = _routes()

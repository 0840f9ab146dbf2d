"""The application: one table of routes, and what all of them have in common."""

from __future__ import annotations

import time
from typing import Any

from fastapi import Depends, FastAPI, Response
from fastapi.datastructures import Default
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBasic
from starlette.middleware import Middleware

from redkeep.api import (
    actions,
    backups,
    clusters,
    configurations,
    datastores,
    elsewhere,
    events,
    failover,
    faults,
    flavors,
    identity,
    instances,
    limits,
    sites,
    status,
    users,
    versions,
)
from redkeep.api.auth import Gate
from redkeep.api.blockstorage.microversions import Negotiation
from redkeep.api.blockstorage.routes import ROUTES as BLOCK_STORAGE
from redkeep.api.call import Context, Guarded, Open
from redkeep.api.cluster_strategy import METHODS
from redkeep.api.envelope import BodyLimit, Envelope
from redkeep.api.route import ANYBODY, CHANGE, Route
from redkeep.api.settings import ApiSettings
from redkeep.ports import Bus, Store
from redkeep.strategies import load_class
from redkeep.vault import Vault

PLAIN_TEXT = {"responses": {"200": {"content": {"text/plain": {"schema": {"type": "string"}}}}}}
"""For the document: its answer is no JSON."""

ANY_METHOD = "GET POST PUT PATCH DELETE"
PROJECT = "/v1.0/{project}"
INSTANCE = PROJECT + "/instances/{instance_id}"
CLUSTER = PROJECT + "/clusters/{cluster_id}"
DATASTORE = PROJECT + "/datastores/{datastore}"
CONFIGURATION = PROJECT + "/configurations/{configuration_id}"

ROUTES = (
    Route("GET", "/", versions.index, ANYBODY, 300, guarded=False),
    Route("GET", "/v1.0", versions.show, ANYBODY, guarded=False),
    Route("GET", "/healthz", versions.health, ANYBODY, guarded=False),
    Route("GET", "/identity", identity.index, ANYBODY, 300, guarded=False),
    Route("GET", "/identity/v3", identity.show, ANYBODY, guarded=False),
    Route("POST", "/identity/v3/auth/tokens", identity.log_in, (400, 401, 413, 415, *ANYBODY), 201, guarded=False),
    Route("GET", "/identity/v3/auth/tokens", identity.validate),
    Route("GET", PROJECT + "/flavors", flavors.index),
    Route("GET", PROJECT + "/flavors/{flavor_id}", flavors.show),
    Route("GET", PROJECT + "/datastores", datastores.index),
    Route("GET", PROJECT + "/datastores/versions/{version}", datastores.version_by_id),
    Route("GET", DATASTORE, datastores.show),
    Route("GET", DATASTORE + "/versions", datastores.versions),
    Route("GET", DATASTORE + "/versions/{version}", datastores.version),
    Route("GET", DATASTORE + "/versions/{version}/flavors", datastores.version_flavors),
    Route("GET", PROJECT + "/datastores/versions/{version}/parameters", configurations.parameters_by_version),
    Route(
        "GET", PROJECT + "/datastores/versions/{version}/parameters/{parameter}", configurations.parameter_by_version
    ),
    Route("GET", DATASTORE + "/versions/{version}/parameters", configurations.parameters),
    Route("GET", DATASTORE + "/versions/{version}/parameters/{parameter}", configurations.parameter),
    Route("GET", PROJECT + "/configurations", configurations.index),
    Route("POST", PROJECT + "/configurations", configurations.create, CHANGE),
    Route("GET", CONFIGURATION, configurations.show),
    Route("PATCH", CONFIGURATION, configurations.merge, CHANGE, has_body=False),
    Route("PUT", CONFIGURATION, configurations.update, CHANGE, 202, has_body=False),
    Route("DELETE", CONFIGURATION, configurations.delete, CHANGE, 202, has_body=False),
    Route("GET", CONFIGURATION + "/instances", configurations.instances),
    Route("GET", INSTANCE + "/configuration", configurations.defaults),
    Route("GET", PROJECT + "/limits", limits.index),
    Route("GET", PROJECT + "/status", status.index),
    Route("GET", PROJECT + "/failover", failover.show),
    Route("GET", PROJECT + "/sites", sites.index),
    Route("GET", PROJECT + "/sites/metrics", sites.metrics, has_body=False, extra=PLAIN_TEXT),
    Route("GET", PROJECT + "/sites/{target}", sites.rehearse),
    Route("PUT", PROJECT + "/failover", failover.update, CHANGE, 202, has_body=False),
    Route("GET", PROJECT + "/instances", instances.index),
    Route("POST", PROJECT + "/instances", instances.create, CHANGE),
    Route("GET", PROJECT + "/instances/detail", instances.index_detail),
    Route("GET", INSTANCE, instances.show),
    Route("PUT", INSTANCE, instances.update, CHANGE, 202, has_body=False),
    Route("PATCH", INSTANCE, instances.update, CHANGE, 202, has_body=False),
    Route("DELETE", INSTANCE, instances.delete, CHANGE, 202, has_body=False),
    Route("POST", INSTANCE + "/action", actions.act, CHANGE, 202, has_body=False),
    Route("GET", INSTANCE + "/events", events.index),
    Route("GET", PROJECT + "/events", events.index_of_all),
    Route("GET", INSTANCE + "/users", users.index),
    Route("POST", INSTANCE + "/users", users.create, CHANGE, 202),
    Route("PUT", INSTANCE + "/users", users.change_passwords, CHANGE, 202, has_body=False),
    Route("GET", INSTANCE + "/users/{user}", users.show),
    Route("DELETE", INSTANCE + "/users/{user}", users.delete, CHANGE, 202, has_body=False),
    Route("GET", INSTANCE + "/backups", backups.index_of_instance),
    Route("GET", INSTANCE + "/root", users.root_status),
    Route("POST", INSTANCE + "/root", users.enable_root, CHANGE),
    Route("DELETE", INSTANCE + "/root", users.disable_root, CHANGE, 202, has_body=False),
    Route("GET", PROJECT + "/backups", backups.index),
    Route("POST", PROJECT + "/backups", backups.create, CHANGE, 202),
    Route("GET", PROJECT + "/backups/{backup_id}", backups.show),
    Route("DELETE", PROJECT + "/backups/{backup_id}", backups.delete, CHANGE, 202, has_body=False),
    Route("GET", PROJECT + "/clusters", clusters.index),
    Route("POST", PROJECT + "/clusters", clusters.create, CHANGE, 202),
    Route("GET", CLUSTER, clusters.show),
    Route("POST", CLUSTER, clusters.act, CHANGE, 202),
    Route("POST", CLUSTER + "/action", clusters.action, CHANGE, 202),
    Route("DELETE", CLUSTER, clusters.delete, CHANGE, 202, has_body=False),
    Route("GET", CLUSTER + "/instances/{instance_id}", clusters.show_member),
    Route("GET", CLUSTER + "/root", clusters.root_status),
    Route("POST", CLUSTER + "/root", clusters.enable_root, CHANGE),
    Route("DELETE", CLUSTER + "/root", clusters.disable_root, CHANGE, 202, has_body=False),
    *(
        Route(ANY_METHOD, f"{path}{rest}", elsewhere.not_offered, documented=False)
        for path in (INSTANCE + "/users/{user}/{noun}", INSTANCE + "/{noun}", CLUSTER + "/{noun}", PROJECT + "/{noun}")
        for rest in ("", "/{rest:path}")
    ),
)
"""Everything that is served, first match first."""

_BASIC = HTTPBasic(scheme_name="basic", realm="redkeep", auto_error=False)
_TOKEN = APIKeyHeader(scheme_name="token", name="X-Auth-Token", auto_error=False)


class Api(FastAPI):
    """FastAPI, whose document tells of our faults in place of its own."""

    def openapi(self) -> dict[str, Any]:
        return faults.describe(super().openapi())


def create_app(settings: ApiSettings, store: Store, bus: Bus, vault: Vault) -> FastAPI:
    """The REST API over these doors. It neither opens nor closes them. Raises Refused when a strategy is not there."""
    gate = Gate(settings, vault, clock=time.time)
    app = Api(
        title="Redkeep",
        summary="Managed Redis: the database API v1.0 that Trove's clients speak.",
        version="1.0",
        # The pages at /docs load their scripts from strangers.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Envelope),
            Middleware(Negotiation),
            Middleware(faults.LastResort),
            Middleware(BodyLimit, most_bytes=settings.max_body_bytes),
        ],
    )
    strategy = load_class(settings.cluster_strategy, needs=METHODS)()
    app.state.context = Context(settings, store, bus, vault, gate, strategy)
    faults.install(app)
    for route in (*BLOCK_STORAGE, *ROUTES):
        _add(app, route)
    return app


def _add(app: FastAPI, route: Route) -> None:
    """The security dependencies only document: the route's class has looked already."""
    tag = route.tag or route.handler.__module__.rpartition(".")[2]
    app.router.add_api_route(
        route.path,
        route.handler,
        methods=route.method.split(),
        status_code=route.status,
        responses=faults.documented(route.faults, route.path),
        response_model_exclude_none=True,
        include_in_schema=route.documented,
        tags=[tag],
        operation_id=f"{route.method.lower()}_{tag.replace(' ', '_')}_{route.handler.__name__}",
        name=route.name,
        openapi_extra=route.extra or None,
        dependencies=[Depends(_BASIC), Depends(_TOKEN)] if route.guarded else [],
        route_class_override=route.route_class or (Guarded if route.guarded else Open),
        response_class=Default(JSONResponse) if route.has_body else Response,
    )

"""Service clusters: /v3/clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from redkeep.api.blockstorage.bodies import BINARY as BINARY_FIELD
from redkeep.api.blockstorage.bodies import Field, Form, body_of
from redkeep.api.blockstorage.finding import all_teams, locked, means, the_cluster
from redkeep.api.blockstorage.microversions import CLUSTERS, REPLICATION, Version, asked_of
from redkeep.api.blockstorage.views import Team, detail, summary
from redkeep.api.call import context_of
from redkeep.errors import Refused
from redkeep.model.instance import Event
from redkeep.model.site import BINARY

NAME = Field(required=True, least=1, blank=False)
ENABLE: Form = {"name": NAME, "binary": BINARY_FIELD}
DISABLE: Form = {**ENABLE, "disabled_reason": Field(nullable=True)}

Filter = Callable[[Team], bool]

_TRUE = ("1", "t", "true", "on", "y", "yes")
_FALSE = ("0", "f", "false", "off", "n", "no")


def _boolean(name: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise Refused(f"Value '{value[:300]}' for '{name}' is not a boolean.")


def _number(name: str, value: str) -> int:
    if not value.isdecimal() or len(value) > 9:
        raise Refused(f"Value '{value[:300]}' for '{name}' is not a number.")
    return int(value)


def _is(name: str, claim: Callable[[Team], bool]) -> Callable[[str], Filter]:
    def make(value: str) -> Filter:
        wanted = _boolean(name, value)
        return lambda team: claim(team) == wanted

    return make


def _counts(name: str, count: Callable[[Team], int]) -> Callable[[str], Filter]:
    def make(value: str) -> Filter:
        wanted = _number(name, value)
        return lambda team: count(team) == wanted

    return make


FILTERS: Mapping[str, tuple[Version, Callable[[str], Filter]]] = {
    "name": (CLUSTERS, lambda value: lambda team: means(value, team.cluster.id)),
    "binary": (CLUSTERS, lambda value: lambda _: value == BINARY),
    "is_up": (CLUSTERS, _is("is_up", lambda team: team.up)),
    "disabled": (CLUSTERS, _is("disabled", lambda team: team.cluster.disabled)),
    "num_hosts": (CLUSTERS, _counts("num_hosts", lambda team: len(team.services))),
    "num_down_hosts": (CLUSTERS, _counts("num_down_hosts", lambda team: team.down_hosts)),
    "replication_status": (REPLICATION, lambda value: lambda team: team.cluster.replication_status == value),
    "active_backend_id": (REPLICATION, lambda value: lambda team: (team.cluster.active_backend_id or "") == value),
    "frozen": (REPLICATION, _is("frozen", lambda team: team.cluster.frozen)),
}
"""By key: since which version, and what it lets through."""


def filters_of(query: Mapping[str, str], version: Version) -> list[Filter]:
    """What a query lets through. Raises Refused for a key that the version does not know."""
    unknown = [key for key in query if key not in FILTERS or version < FILTERS[key][0]]
    if unknown:
        raise Refused(f"Invalid input received: Invalid filter keys: {', '.join(sorted(unknown))[:300]}")
    return [FILTERS[key][1](value) for key, value in query.items()]


def _since(request: Request) -> Version:
    """The version of a request that is late enough to know clusters. Raises Refused."""
    version = asked_of(request).version
    if version < CLUSTERS:
        raise Refused(
            "The resource could not be found: clusters need OpenStack-API-Version: volume 3.7", kind="missing"
        )
    return version


async def index(request: Request) -> JSONResponse:
    """All service clusters."""
    return await _list(request, summary)


async def index_detail(request: Request) -> JSONResponse:
    """All service clusters, with members, states and, since 3.26, how the last failover went and who has followed."""
    return await _list(request, detail)


async def _list(request: Request, view: Callable[[Team, Version], dict[str, Any]]) -> JSONResponse:
    version = _since(request)
    passing = filters_of(dict(request.query_params), version)
    async with context_of(request).store.read() as tx:
        found = await all_teams(tx, context_of(request).settings)
    shown = [team for team in found if not team.cluster.solitary and all(one(team) for one in passing)]
    return JSONResponse({"clusters": [view(team, version) for team in shown]})


async def show(request: Request, name: str) -> JSONResponse:
    """One service cluster."""
    version = _since(request)
    async with context_of(request).store.read() as tx:
        found = await all_teams(tx, context_of(request).settings)
    team = the_cluster(found, name, request.query_params.get("binary"))
    return JSONResponse({"cluster": detail(team, version)})


async def enable(request: Request) -> JSONResponse:
    """Enable a service cluster. The members' own rows stay as they are."""
    return await _switch(request, ENABLE, disabled=False)


async def disable(request: Request) -> JSONResponse:
    """Disable a service cluster, with a reason or without: a note for operators, which keeps no manager from work."""
    return await _switch(request, DISABLE, disabled=True)


async def _switch(request: Request, form: Form, *, disabled: bool) -> JSONResponse:
    version, context = _since(request), context_of(request)
    body = await body_of(request, form)
    said = body.get("disabled_reason")
    reason = said.strip() if isinstance(said, str) else None
    async with context.store.begin() as tx:
        found = await all_teams(tx, context.settings)
        team = await locked(tx, the_cluster(found, body["name"].strip(), body.get("binary")))
        changed = replace(team.cluster, disabled=disabled, disabled_reason=reason, updated_at=team.now)
        await tx.save(changed)
        verb = "disabled" if disabled else "enabled"
        text = f"service cluster {changed.id} is {verb}{f': {reason}' if reason else ''}"
        await tx.record(Event(at=team.now, kind=f"site.cluster_{verb}", text=text, actor=request.state.caller.name))
    view = summary(replace(team, cluster=changed), version) | {"disabled_reason": reason}
    return JSONResponse({"cluster": view})

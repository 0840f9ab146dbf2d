"""The managers as services: /v3/os-services."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from redkeep.api.blockstorage.bodies import CLUSTER, HOST, REASON, Field, Form, body_of
from redkeep.api.blockstorage.finding import all_teams, locked, means
from redkeep.api.blockstorage.microversions import asked_of
from redkeep.api.blockstorage.views import service
from redkeep.api.call import context_of
from redkeep.errors import Refused
from redkeep.model.instance import Event
from redkeep.model.site import BINARY

_NAMED = Field(nullable=True)
SWITCH: Form = {"host": replace(HOST, nullable=True), "binary": _NAMED, "service": _NAMED, "cluster": CLUSTER}
SWITCH_WITH_REASON: Form = {**SWITCH, "disabled_reason": REASON}


async def index(request: Request) -> JSONResponse:
    """All managers; `host` and `binary` narrow it down, other keys of the query do nothing."""
    host, binary = request.query_params.get("host"), request.query_params.get("binary")
    async with context_of(request).store.read() as tx:
        found = await all_teams(tx, context_of(request).settings)
    version = asked_of(request).version
    shown = [
        service(team, one, version)
        for team in found
        for one in team.services
        if (host is None or means(host, one.id)) and binary in (None, BINARY)
    ]
    return JSONResponse({"services": sorted(shown, key=lambda view: str(view["host"]))})


async def enable(request: Request) -> JSONResponse:
    """Enable a manager's service, and forget why it was disabled."""
    return await _switch(request, await body_of(request, SWITCH), disabled=False)


async def disable(request: Request) -> JSONResponse:
    """Disable a manager's service: a note for operators, which keeps no manager from work."""
    return await _switch(request, await body_of(request, SWITCH), disabled=True)


async def disable_with_reason(request: Request) -> JSONResponse:
    """The same, with a reason."""
    return await _switch(request, await body_of(request, SWITCH_WITH_REASON), disabled=True)


async def _switch(request: Request, body: dict[str, Any], *, disabled: bool) -> JSONResponse:
    host, binary, legacy = body.get("host"), body.get("binary") or "", body.get("service") or ""
    if not host:
        raise Refused("Host field is missing.")
    if not (binary or legacy):
        raise Refused("Missing required element 'binary' in request body.")
    context, reason = context_of(request), body.get("disabled_reason")
    async with context.store.begin() as tx:
        found = await all_teams(tx, context.settings)
        meant = [team for team in found if any(one.id == host for one in team.services)]
        if not meant or (binary or legacy) != BINARY:
            raise Refused(f"Service {binary or legacy} could not be found on host {host}.", kind="missing")
        team = await locked(tx, meant[0])
        changed = tuple(
            replace(one, disabled=disabled, disabled_reason=reason, updated_at=team.now)
            for one in team.services
            if one.id == host
        )
        await tx.save(*changed)
        verb = "disabled" if disabled else "enabled"
        text = f"service {host} is {verb}{f': {reason}' if reason else ''}"
        await tx.record(Event(at=team.now, kind=f"site.service_{verb}", text=text, actor=request.state.caller.name))
    answer = {"host": host, "service": legacy, "binary": binary, "status": verb, "disabled": disabled}
    return JSONResponse(answer | ({"disabled_reason": reason} if reason is not None else {}))

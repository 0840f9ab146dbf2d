"""Failing over, freezing and thawing: /v3/os-services/failover, failover_host, freeze, thaw."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from fastapi import Request, Response

from redkeep.api.blockstorage.bodies import BACKEND_ID, CLUSTER, HOST, Field, Form, body_of
from redkeep.api.blockstorage.finding import all_teams, locked, the_team
from redkeep.api.blockstorage.microversions import REPLICATION, asked_of
from redkeep.api.blockstorage.views import Team
from redkeep.api.call import Context, context_of
from redkeep.decide import site
from redkeep.decide.lifecycle import Refusal
from redkeep.errors import OutcomeUnknown, RedkeepError, Refused, Unavailable
from redkeep.model.instance import Event
from redkeep.news import SITES, SiteNews, common_version, encode_freeze, encode_news, members_name

log = logging.getLogger(__name__)

_NULLABLE_HOST = Field(nullable=True, least=1, pattern=HOST.pattern)
FAILOVER: Form = {
    "host": _NULLABLE_HOST,
    "cluster": CLUSTER,
    "backend_id": BACKEND_ID,
    "forced": Field(boolean=True, nullable=True),
}
"""`forced` is our own: false does it in order or not at all, true does not ask the old site. Without it a failover is
in order when the old site answers."""
FREEZE: Form = {"host": _NULLABLE_HOST, "cluster": CLUSTER}

Names = tuple[str | None, str | None]
"""Host and cluster: one of them."""

_INPUT = "Invalid input received: "


async def fail_over(request: Request) -> Response:
    """Fail a whole backend over to another site, or back with `default`. Asked for a host, for the cluster of it.

    A client that says no version is at 3.0, where this is not; but what it asks for a host is what `failover_host` does
    at every version, so it gets that.
    """
    body, asked = await body_of(request, FAILOVER), asked_of(request)
    if asked.version >= REPLICATION:
        return await _fail_over(request, body, _one_of(body))
    if asked.said or body.get("cluster"):
        raise Refused(f"{_INPUT}Unknown action: failover needs OpenStack-API-Version: volume 3.26 or later.")
    return await _fail_over(request, body, _host_of(body))


async def fail_over_host(request: Request) -> Response:
    """The same, asked for a host. A cluster beside it says nothing."""
    body = await body_of(request, FAILOVER)
    return await _fail_over(request, body, _host_of(body))


async def freeze(request: Request) -> Response:
    """No instance of the backend may be changed any more, from now on, whichever manager or API is asked."""
    return await _freeze(request, frozen=True)


async def thaw(request: Request) -> Response:
    """They may again, once the backend's driver has said yes."""
    return await _freeze(request, frozen=False)


def _host_of(body: Mapping[str, Any]) -> Names:
    if not body.get("host"):
        raise Refused(f"{_INPUT}Host field is missing.")
    return body["host"], None


def _one_of(body: Mapping[str, Any]) -> Names:
    host, cluster = body.get("host") or None, body.get("cluster") or None
    if (host is None) == (cluster is None):
        raise Refused(f"{_INPUT}One and only one of cluster and host must be set.")
    return host, cluster


async def _fail_over(request: Request, body: Mapping[str, Any], names: Names) -> Response:
    """Record it, in one transaction; the members find it, sooner when they are told."""
    context, by = context_of(request), request.state.caller.name
    wish = site.Wish(
        id=str(uuid4()),
        target=body.get("backend_id"),
        forced=body.get("forced"),
        by=by,
        limit=context.settings.site_failover_limit_seconds,
    )
    async with context.store.begin() as tx:
        team = await locked(tx, _named(await all_teams(tx, context.settings), names))
        verdict = site.request_failover(team.cluster, team.services, wish, team.now, team.down_time)
        if isinstance(verdict, Refusal):
            raise Refused(f"{_INPUT}{verdict.message}", kind=verdict.kind)
        if isinstance(verdict, site.Change):
            failover = verdict.cluster.failover
            target = failover.target if failover else ""
            forced = {True: ", forced", False: ", in order", None: ""}[wish.forced]
            text = f"{team.cluster.id} is to fail over to {target}{forced}; it was {team.cluster.replication_status}"
            await tx.save(verdict.cluster, *verdict.services)
            await tx.record(Event(at=team.now, kind="site.failover_requested", text=text, actor=by))
    await _tell(context, team)
    return Response(status_code=202, media_type="text/html")


def _named(found: list[Team], names: Names) -> Team:
    return the_team(found, host=names[0], cluster=names[1])


async def _tell(context: Context, team: Team) -> None:
    """That it fails costs a second."""
    body = encode_news(
        SiteNews(team.cluster.id, team.cluster.epoch, team.cluster.site),
        common_version(one.object_version for one in team.services),
    )
    try:
        async with asyncio.timeout(context.settings.poke_timeout_seconds):
            await context.bus.publish(SITES, body)
    except (Unavailable, OutcomeUnknown, TimeoutError) as error:
        log.warning("no hint to %s: %r", team.cluster.id, error)


async def _freeze(request: Request, *, frozen: bool) -> Response:
    body, version = await body_of(request, FREEZE), asked_of(request).version
    names = _one_of(body) if version >= REPLICATION else _host_of(body)
    context, by = context_of(request), request.state.caller.name
    async with context.store.begin() as tx:
        team = await locked(tx, _named(await all_teams(tx, context.settings), names))
        verdict = site.freeze(team.cluster, team.services, team.now, frozen=frozen)
        if isinstance(verdict, Refusal):
            raise Refused(f"{_INPUT}{verdict.message}", kind=verdict.kind)
        if frozen:
            await tx.save(verdict.cluster, *verdict.services)
        text = f"{team.cluster.id} is to be {'frozen' if frozen else 'thawed'}"
        await tx.record(
            Event(at=team.now, kind=f"site.{'freeze' if frozen else 'thaw'}_requested", text=text, actor=by)
        )
    await (_tell_frozen(context, team) if frozen else _have_thawed(context, team))
    return Response(status_code=200, media_type="application/json")


async def _tell_frozen(context: Context, team: Team) -> None:
    """It holds already, whatever the driver says: the API refuses changes. A driver that could not be told now is told
    when its manager starts."""
    if not team.up:
        return
    try:
        answer = await _ask(context, team, frozen=True)
    except RedkeepError as error:
        log.warning("no driver of %s was told of the freeze: %s", team.cluster.id, error)
        return
    if complaint := answer.get("complaint"):
        async with context.store.begin() as tx:
            text = f"{team.cluster.id} is frozen; its driver complains: {complaint}"
            await tx.record(Event(at=await tx.now(), kind="site.frozen", text=text))


async def _have_thawed(context: Context, team: Team) -> None:
    """The manager that is asked thaws the rows when its driver has agreed. Raises Refused and Unavailable, and then it
    is frozen still."""
    still = f"{team.cluster.id} stays frozen"
    if not team.up:
        raise Unavailable(f"{still}: none of its managers is up to thaw its backend. Start one, then repeat it.")
    try:
        await _ask(context, team, frozen=False)
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"No manager of {team.cluster.id} has answered in time ({error}).") from error


async def _ask(context: Context, team: Team, *, frozen: bool) -> Mapping[str, Any]:
    """One member, whichever has time."""
    return await context.bus.request(
        members_name(team.cluster.id),
        encode_freeze(team.cluster.id, frozen=frozen),
        timeout=context.settings.hook_wait_seconds,
    )

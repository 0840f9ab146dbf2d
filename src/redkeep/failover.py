"""`redkeep failover`: rehearse the failover of a backend to another site, or do it and watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from redkeep.bootstrap import way_in
from redkeep.config import Config
from redkeep.errors import NotNow, Refused, Unavailable

POLL = 0.2
WATCH_LIMIT = 3600.0
"""Seconds after which watching ends; what was asked for goes on."""
VERSION = {"OpenStack-API-Version": "volume 3.26"}
PROGRESS = "redkeep:failover"
"""Our own key beside Cinder's, from 3.26 on."""
OPEN = "failing-over"
AT_THE_END = ("enabled", "failed-over")


async def rehearse(config: Config, target: str | None, *, as_json: bool) -> tuple[str, bool]:
    """A table, and whether every instance would survive. Raises Unavailable, Refused."""
    async with _client(config) as client:
        sites = await _get(client, f"/v1.0/{config.api.admin_user}/sites")
        wanted = target or _only_other(sites)
        found = await _get(client, f"/v1.0/{config.api.admin_user}/sites/{wanted}")
    canary = next((one.get("canary") for one in sites["sites"] if one["id"] == wanted), None)
    survives = all(one["survives"] for one in found["instances"])
    if as_json:
        return json.dumps({**found, "canary": canary, "survives": survives}, indent=2), survives
    return _table(found, canary), survives


async def fail_over(
    config: Config, target: str | None, *, forced: bool | None, as_json: bool, say: Callable[[str], None]
) -> tuple[str, bool]:
    """What became of it, and whether it did. Raises Unavailable, Refused."""
    async with _client(config) as client:
        sites = await _get(client, f"/v1.0/{config.api.admin_user}/sites")
        cluster = await _cluster(client, config, sites["backend"])
        body = {"cluster": cluster["name"], "backend_id": target or _only_other(sites)}
        body |= {} if forced is None else {"forced": forced}
        reply = await client.put(f"/v3/{config.api.admin_user}/os-services/failover", json=body, headers=VERSION)
        _require(reply)
        done = await _watch(client, config, sites["backend"], say)
    well = done["replication_status"] in AT_THE_END and not done[PROGRESS].get("error")
    if as_json:
        return json.dumps(done, indent=2), well
    return _told(done), well


async def _watch(
    client: httpx.AsyncClient, config: Config, backend: str, say: Callable[[str], None]
) -> Mapping[str, Any]:
    """Until the storage has moved and every manager that is up has followed."""
    deadline, before = asyncio.get_running_loop().time() + WATCH_LIMIT, ""
    while True:
        cluster = await _cluster(client, config, backend)
        progress = cluster[PROGRESS]
        line = (
            f"{cluster['replication_status']}: {progress.get('step') or 'asked for'}, "
            f"{progress.get('progress', 0):.0%} of {progress.get('volumes', 0)} instances; "
            f"{progress['followed']} of {progress['members']} managers have followed"
        )
        if line != before:
            say(line)
            before = line
        up = cluster["num_hosts"] - cluster["num_down_hosts"]
        if cluster["replication_status"] != OPEN and progress["followed"] + len(progress["failed"]) >= up:
            return cluster
        if asyncio.get_running_loop().time() > deadline:
            raise NotNow(f"it is still going on after {WATCH_LIMIT:g} s: {line}")
        await asyncio.sleep(POLL)


def _told(cluster: Mapping[str, Any]) -> str:
    progress = cluster[PROGRESS]
    where = cluster["active_backend_id"] or "default"
    lines = [f"{cluster['name']} is {cluster['replication_status']}, active at {where}."]
    if progress.get("error"):
        lines.append(f"It did not go as asked: {progress['error']}")
    lines += [
        f"  {one['volume_id']}: {one['replication_status']}, {one['detail']}"
        for one in progress.get("volume_updates", ())
    ]
    if progress["missing"]:
        lines.append(f"Managers that have not followed yet: {', '.join(progress['missing'])}")
    return "\n".join(lines)


def _table(found: Mapping[str, Any], canary: Mapping[str, Any] | None) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("NAME", "SITE", "SURVIVES", "IN ORDER", "LACKS NOW", "WHY"):
        table.add_column(name)
    for one in found["instances"]:
        lacks = f"{one['lacking_bytes']} bytes" if "lacking_bytes" in one else "not known"
        marks = ("yes" if one["survives"] else "NO", "yes" if one["in_order"] else "no")
        table.add_row(one["name"], one["site"], *marks, lacks, one["reason"])
    screen = Console(file=StringIO(), width=200)
    screen.print(table)
    dead = sum(not one["survives"] for one in found["instances"])
    screen.print(
        f"If the backend failed over to {found['target']} now, {len(found['instances']) - dead} of "
        f"{len(found['instances'])} instances would survive. Nothing was changed."
    )
    if canary:
        lag, rpo = (_seconds(canary.get(name)) for name in ("lag_seconds", "rpo_seconds"))
        screen.print(f"The canary measures a lag of {lag} and an RPO of {rpo} over {canary['groups']} of them.")
    assert isinstance(screen.file, StringIO)  # noqa: S101 (for the type checker)
    return "\n".join(line.rstrip() for line in screen.file.getvalue().splitlines())


def _seconds(value: float | None) -> str:
    return "unknown length" if value is None else f"{value * 1000:.0f} ms" if value < 10 else f"{value:.0f} s"


def _only_other(sites: Mapping[str, Any]) -> str:
    others = [str(one["id"]) for one in sites["sites"] if not one["active"]]
    if len(others) != 1:
        names = ", ".join(others)
        raise Refused(f"name the site with --to: there are {names}" if others else "this backend has one site only")
    return others[0]


async def _cluster(client: httpx.AsyncClient, config: Config, backend: str) -> Mapping[str, Any]:
    found = await _get(client, f"/v3/{config.api.admin_user}/clusters/detail", VERSION)
    for one in found["clusters"]:
        if str(one["name"]).endswith(f"@{backend}"):
            known: Mapping[str, Any] = one
            return known
    raise Refused(f"backend {backend} has no service cluster: set [backend] cluster, and start its managers")


@asynccontextmanager
async def _client(config: Config) -> AsyncIterator[httpx.AsyncClient]:
    api, auth = way_in(config)
    try:
        async with httpx.AsyncClient(base_url=api, timeout=15, trust_env=False, auth=auth) as client:
            yield client
    except httpx.HTTPError as error:
        raise Unavailable(f"nothing answers on {api}: is Redkeep's API running? ({error!r})") from error


async def _get(client: httpx.AsyncClient, path: str, headers: Mapping[str, str] | None = None) -> Any:
    return _require(await client.get(path, headers=headers)).json()


def _require(reply: httpx.Response) -> httpx.Response:
    """Raises Refused with what the API said."""
    if reply.is_success:
        return reply
    try:
        ((_, fault),) = reply.json().items()
        message = str(fault["message"])
    except (ValueError, AttributeError, KeyError, TypeError):
        message = reply.text[:200]
    raise Refused(f"the API answered {reply.status_code}: {message}")

"""The sites of a backend over REST: which is active, how far behind the others are, and the rehearsal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from redkeep.model.site import Backend, ReplicationStatus, ReplicationTarget, ServiceCluster
from redkeep.orders import CANARIES
from redkeep.ports import Body

from .api_world import World, fault, world

BACKEND = Backend(site="north", targets=(ReplicationTarget("dr1", "south"),))


@pytest.fixture
async def two_sites(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, sites=BACKEND) as found:
        for name, site in (("n", "north"), ("s", "south")):
            host = replace(await found.host(name), site=site)
            async with found.store.begin() as tx:
                await tx.save(host)
        yield found


async def test_the_sites_are_shown_with_what_is_there(two_sites: World) -> None:
    await two_sites.instance(site="north", host_id="n")

    shown = (await two_sites.call("GET", "/sites")).json()

    assert (shown["backend"], shown["status"]) == ("redis", "disabled")
    assert shown["sites"] == [
        {"id": "default", "label": "north", "active": True, "hosts": 1, "primaries": 1},
        {"id": "dr1", "label": "south", "active": False, "hosts": 1, "primaries": 0},
    ]


async def test_after_a_failover_another_one_is_active(two_sites: World) -> None:
    async with two_sites.store.begin() as tx:
        status = ReplicationStatus.FAILED_OVER
        row = ServiceCluster("managers@redis", 1.0, replication_status=status, active_backend_id="dr1")
        await tx.add(row)

    shown = (await two_sites.call("GET", "/sites")).json()
    assert shown["status"] == "failed-over"
    assert [one["active"] for one in shown["sites"]] == [False, True]


async def test_what_a_manager_has_measured_is_shown_and_exported(two_sites: World) -> None:
    figures = {
        "groups": 2,
        "lag_seconds": 0.25,
        "rpo_seconds": None,
        "not_arrived": ["cache"],
        "measured_seconds_ago": 1.0,
    }

    async def answer(_body: Body) -> Body:
        return {"manager": "m1", "targets": {"dr1": figures}}

    serving = asyncio.create_task(two_sites.bus.serve(CANARIES, answer))
    try:
        canary = (await two_sites.call("GET", "/sites")).json()["sites"][1]["canary"]
        said = (await two_sites.call("GET", "/sites/metrics")).text.splitlines()
    finally:
        serving.cancel()

    assert canary == {"manager": "m1"} | {name: value for name, value in figures.items() if value is not None}
    assert 'redkeep_site_lag_seconds{backend="redis",site="dr1"} 0.250000' in said
    assert 'redkeep_site_groups_not_arrived{backend="redis",site="dr1"} 1' in said
    assert not any(line.startswith("redkeep_site_rpo_seconds{") for line in said), "what is not known is not zero"
    assert [line.split()[2] for line in said if line.startswith("#")] == sorted(
        {line.split("{")[0] for line in said if line and not line.startswith("#")}
    )


async def test_a_rehearsal_says_of_each_instance_whether_it_would_survive(two_sites: World) -> None:
    alone = await two_sites.instance(site="north", host_id="n", name="alone")
    source = await two_sites.instance(site="north", host_id="n", name="pair")
    await two_sites.instance(of=source, site="south", host_id="s", name="pair-dr1")
    there = await two_sites.instance(site="south", host_id="s", name="there")

    reply = await two_sites.call("GET", "/sites/dr1")

    found = {one["id"]: one for one in reply.json()["instances"]}
    assert found.keys() == {alone.id, source.id, there.id}
    assert not found[alone.id]["survives"]
    assert "no replica there" in found[alone.id]["reason"]
    assert "does not answer" in found[source.id]["reason"]
    assert found[there.id]["survives"]
    assert not await two_sites.operations()


async def test_a_site_that_there_is_not_is_not_found(two_sites: World) -> None:
    code, _, message = fault(await two_sites.call("GET", "/sites/dr9"))

    assert code == 404
    assert "default, dr1" in message

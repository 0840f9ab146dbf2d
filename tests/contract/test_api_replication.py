"""Replicas at other sites, as an owner orders them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redkeep.model.instance import Instance, Status
from redkeep.model.operation import Kind
from redkeep.model.site import Backend, ReplicationTarget

from .api_world import World, fault, finish, world

BACKEND = Backend(site="north", targets=(ReplicationTarget("dr1", "south"), ReplicationTarget("dr2", "west")))
ORDER: dict[str, Any] = {"name": "cache", "flavorRef": 1, "volume": {"size": 1}}


@pytest.fixture
async def two_sites(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, sites=BACKEND) as found:
        for name, site in (("n", "north"), ("s", "south"), ("w", "west")):
            host = replace(await found.host(name), site=site)
            async with found.store.begin() as tx:
                await tx.save(host)
        yield found


async def rows(found: World) -> dict[str, Instance]:
    async with found.store.read() as tx:
        return {one.name: one for one in await tx.instances()}


async def test_an_order_may_ask_for_a_replica_at_every_other_site(two_sites: World) -> None:
    reply = await two_sites.call("POST", "/instances", {"instance": ORDER | {"replication": {"sites": "all"}}})

    assert reply.status_code == 200, reply.text
    shown = reply.json()["instance"]
    assert [one["site"] for one in shown["replication"]["sites"]] == ["dr1", "dr2"]
    made = await rows(two_sites)
    assert {name: one.site for name, one in made.items()} == {"cache": "", "cache-dr1": "south", "cache-dr2": "west"}
    assert [one.kind for one in await two_sites.operations()] == [Kind.CREATE_INSTANCE, Kind.ADD_REPLICAS]


async def test_a_site_that_there_is_not_is_refused_and_those_that_there_are_named(two_sites: World) -> None:
    reply = await two_sites.call("POST", "/instances", {"instance": ORDER | {"replication": {"sites": ["dr9"]}}})

    code, _, message = fault(reply)
    assert code == 400
    assert "dr9" in message
    assert "default, dr1, dr2" in message
    assert not await rows(two_sites)


async def test_a_backend_with_one_site_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        await found.host()
        reply = await found.call("POST", "/instances", {"instance": ORDER | {"replication": {"sites": "all"}}})

    assert fault(reply)[0] == 400
    assert "one site only" in reply.text


async def test_no_host_at_the_site_is_told_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, sites=BACKEND) as found:
        await found.host("n")
        reply = await found.call("POST", "/instances", {"instance": ORDER | {"replication": {"sites": ["dr1"]}}})

    assert fault(reply)[0] == 400
    assert "no host has reported from site dr1" in reply.text


async def test_replicas_elsewhere_come_and_go_later_too(two_sites: World) -> None:
    source = await two_sites.instance(site="north")
    path = f"/instances/{source.id}"

    assert (await two_sites.call("PUT", path, {"instance": {"replication": {"sites": ["dr1"]}}})).status_code == 202
    assert (await two_sites.the_operation()).kind is Kind.ADD_REPLICAS
    replica = (await rows(two_sites))["cache-dr1"]
    assert (replica.site, replica.replica_of, replica.status) == ("south", source.id, Status.BUILD)
    await finish(two_sites.store)
    async with two_sites.store.begin() as tx:
        await tx.save(replace(replica, status=Status.ACTIVE))

    assert (await two_sites.call("PUT", path, {"instance": {"replication": {"sites": ["dr1"]}}})).status_code == 202
    assert not await two_sites.operations(), "asking again changes nothing"

    assert (await two_sites.call("PUT", path, {"instance": {"replication": None}})).status_code == 202
    assert (await two_sites.the_operation()).kind is Kind.DELETE_INSTANCE
    assert (await rows(two_sites))["cache-dr1"].status is Status.SHUTDOWN


async def test_an_instance_shows_where_it_is_and_where_its_replicas_are(two_sites: World) -> None:
    source = await two_sites.instance(site="north")
    near = await two_sites.instance(of=source, site="north", name="near")
    far = await two_sites.instance(of=source, site="south", name="far")

    shown = (await two_sites.call("GET", f"/instances/{source.id}")).json()["instance"]
    assert shown["site"] == "north"
    assert [(one["site"], one["replica"]["id"]) for one in shown["replication"]["sites"]] == [("dr1", far.id)]
    assert {one["id"] for one in shown["replicas"]} == {near.id, far.id}


async def test_a_replica_elsewhere_is_not_promoted_by_its_owner(two_sites: World) -> None:
    source = await two_sites.instance(site="north")
    far = await two_sites.instance(of=source, site="south", name="far")

    reply = await two_sites.call("POST", f"/instances/{far.id}/action", {"promote_to_replica_source": {}})
    assert fault(reply)[0] == 400
    assert "failover of the whole backend" in reply.text


async def test_a_new_replica_of_an_instance_is_at_its_site(two_sites: World) -> None:
    source = await two_sites.instance(site="south")

    await two_sites.call("POST", "/instances", {"instance": {"name": "near", "replica_of": source.id}})
    assert (await rows(two_sites))["near"].site == "south"


async def test_replication_belongs_to_the_source(two_sites: World) -> None:
    source = await two_sites.instance(site="north")
    replica = await two_sites.instance(of=source, site="north", name="near")

    asked = {"instance": {"replication": {"sites": ["dr1"]}}}
    assert fault(await two_sites.call("PUT", f"/instances/{replica.id}", asked))[0] == 403
    order = {"name": "r", "replica_of": source.id, "replication": {"sites": "all"}}
    assert fault(await two_sites.call("POST", "/instances", {"instance": order}))[0] == 400

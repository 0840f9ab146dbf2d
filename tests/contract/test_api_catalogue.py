"""What can be ordered, what there is not, and which versions are spoken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.api_world import BASE, World, fault, world, write_htpasswd

from redkeep.model.instance import Event, Flavor


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.host("h1", "6.2")
        await made.host("h2", "7.0", "5.0")
        yield made


async def test_flavors_have_numbers_for_ids(keep: World) -> None:
    answer = (await keep.call("GET", "/flavors")).json()

    assert [one["id"] for one in answer["flavors"]] == [1, 2, 3, 4, 5, 6, 7]
    assert (await keep.call("GET", "/flavors/2")).json() == {"flavor": answer["flavors"][1]}
    assert answer["flavors"][1] | {"links": []} == {
        "id": 2,
        "str_id": "2",
        "name": "redis.512m",
        "ram": 512,
        "vcpus": 1,
        "disk": 0,
        "ephemeral": 0,
        "links": [],
    }


async def test_a_flavor_may_have_a_word_for_an_id(tmp_path: Path) -> None:
    async with world(tmp_path, flavors=(Flavor("tiny", "tiny", 64),)) as keep:
        shown = (await keep.call("GET", "/flavors/tiny")).json()["flavor"]

    assert (shown["id"], shown["str_id"]) == ("tiny", "tiny")


@pytest.mark.parametrize(
    "path", ["/flavors/99", "/flavors/redis.512m", "/datastores/mysql", "/datastores/mysql/versions"]
)
async def test_what_is_not_in_the_catalogue_is_not_found(keep: World, path: str) -> None:
    assert fault(await keep.call("GET", path))[:2] == (404, "itemNotFound")


async def test_the_datastore_is_found_by_name_and_by_id(keep: World) -> None:
    (redis,) = (await keep.call("GET", "/datastores")).json()["datastores"]

    by_name, by_id = await keep.call("GET", "/datastores/redis"), await keep.call("GET", f"/datastores/{redis['id']}")
    assert by_name.json() == by_id.json() == {"datastore": redis}
    assert [one["name"] for one in redis["versions"]] == ["7.0", "6.2", "5.0"]
    assert redis["default_version"] == redis["versions"][0]["id"]


async def test_a_version_is_found_by_name_and_by_id(keep: World) -> None:
    versions = (await keep.call("GET", "/datastores/redis/versions")).json()["versions"]
    (old,) = (one for one in versions if one["name"] == "6.2")

    for path in ("redis/versions/6.2", f"redis/versions/{old['id']}", f"versions/{old['id']}"):
        assert (await keep.call("GET", f"/datastores/{path}")).json() == {"version": old}
    flavors = await keep.call("GET", "/datastores/redis/versions/6.2/flavors")
    assert flavors.json() == (await keep.call("GET", "/flavors")).json()


async def test_only_what_some_host_has_is_offered(tmp_path: Path) -> None:
    async with world(tmp_path) as keep:
        nothing = (await keep.call("GET", "/datastores/redis")).json()["datastore"]
        await keep.host("h1", "6.2")
        something = (await keep.call("GET", "/datastores/redis")).json()["datastore"]
        unknown = await keep.call("GET", "/datastores/redis/versions/9.9")
        absent = await keep.call("GET", "/datastores/redis/versions/7.0")

    assert (nothing["versions"], "default_version" in nothing) == ([], False)
    assert something["default_version"] == something["versions"][0]["id"]
    assert fault(unknown)[0] == 400
    assert "redkeep doctor" in fault(absent)[2]


async def test_limits_begin_with_what_the_project_may_have(keep: World) -> None:
    assert (await keep.call("GET", "/limits")).json() == {
        "limits": [
            {"verb": "ABSOLUTE", "max_instances": 100, "max_ram": 262144, "max_volumes": 2048, "max_backups": 500}
        ]
    }


async def test_versions_are_told_to_everybody(keep: World) -> None:
    version = {
        "id": "v1.0",
        "status": "CURRENT",
        "updated": "2012-08-01T00:00:00Z",
        "links": [{"href": f"{BASE}/v1.0/", "rel": "self"}],
    }

    every = await keep.call("GET", "//")

    assert every.status_code == 300
    assert [one["id"] for one in every.json()["versions"]] == ["v3.0", "v1.0"]
    assert every.json()["versions"][1].items() >= version.items()
    assert (
        (await keep.call("GET", "//v1.0")).json() == (await keep.call("GET", "//v1.0/")).json() == {"version": version}
    )


async def test_links_lead_where_clients_reach_us(tmp_path: Path) -> None:
    async with world(tmp_path, public_url="https://redis.example/") as keep:
        shown = (await keep.call("GET", "/flavors/1")).json()["flavor"]

    assert shown["links"][0]["href"] == "https://redis.example/v1.0/demo/flavors/1"


async def test_what_trove_has_and_redkeep_has_not_is_said_so(keep: World) -> None:
    one = await keep.instance()

    for method, path in (
        ("GET", f"/instances/{one.id}/log"),
        ("GET", f"/instances/{one.id}/users/app/databases"),
    ):
        assert fault(await keep.call(method, path))[:2] == (501, "notImplemented"), path


async def test_all_events_are_for_the_administrator(tmp_path: Path) -> None:
    passwords = write_htpasswd(tmp_path / "passwords", {"admin": "x", "demo": "y"})
    async with world(tmp_path, auth="basic", htpasswd=passwords) as keep:
        async with keep.store.begin() as tx:
            await tx.record(*(Event(float(n), "site.frozen", f"line {n}") for n in range(3)))

        tenant = await keep.http.get("/v1.0/demo/events", auth=("demo", "y"))
        admin = await keep.http.get("/v1.0/admin/events?limit=2", auth=("admin", "x"))

    assert fault(tenant)[:2] == (403, "forbidden")
    assert [(one["kind"], one["text"]) for one in admin.json()["events"]] == [
        ("site.frozen", "line 2"),
        ("site.frozen", "line 1"),
    ]

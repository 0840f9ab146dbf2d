"""Configuration groups over REST: rows that are given, a call, the exact answer and what it left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.contract.api_world import BASE, World, fault, finish, world

from redkeep.api.catalogue import version_of
from redkeep.model.instance import Applied, Configuration, Instance, Status
from redkeep.model.operation import Kind

NOWHERE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.host()
        yield made


async def configuration(keep: World, version: str = "7.0", **more: Any) -> Configuration:
    """A row."""
    row = Configuration(
        str(uuid4()), keep.project, "mine", version, created=1.7e9, updated=1.7e9, values=(("hz", "50"),)
    )
    row = replace(row, **more)
    async with keep.store.begin() as tx:
        await tx.save(row)
    return row


async def order(keep: World, **values: Any) -> Any:
    body = {"configuration": {"name": "mine", "values": values}}
    return await keep.call("POST", "/configurations", body)


# --- The resource


async def test_a_configuration_is_made_and_shown_as_upstream_does(keep: World) -> None:
    body = {
        "name": "mine",
        "description": "for tests",
        "values": {"hz": "50", "activerehashing": False, "auto-aof-rewrite-min-size": "64mb", "save": ""},
        "datastore": {"type": "redis", "version": "6.2"},
    }

    made = await keep.call("POST", "/configurations", {"configuration": body})

    shown = made.json()["configuration"]
    assert made.status_code == 200
    assert shown == {
        "id": shown["id"],
        "name": "mine",
        "description": "for tests",
        "created": shown["created"],
        "updated": shown["created"],
        "datastore_name": "redis",
        "datastore_version_id": version_of("6.2").id,
        "datastore_version_name": "6.2",
        "datastore_version_number": "6.2",
        "values": {"activerehashing": "no", "auto-aof-rewrite-min-size": 67108864, "hz": 50, "save": ""},
        "instance_count": 0,
    }
    assert (await keep.call("GET", f"/configurations/{shown['id']}")).json() == made.json()
    (listed,) = (await keep.call("GET", "/configurations")).json()["configurations"]
    assert listed == {key: value for key, value in shown.items() if key not in ("values", "instance_count")}


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"appendonly": "no", "save": ""}, 400, "append-only file"),
        ({"min-replicas-to-write": 3}, 400, "durability"),
        ({"maxmemory": 1}, 400, "Resize the instance"),
        ({"colour": "red"}, 400, "colour is not offered"),
        ({"hz": 1.5}, 400, "configuration.values.hz"),
        ({"hz": None}, 400, "configuration.values.hz"),
        ({"hz": [1]}, 400, "configuration.values.hz"),
        ({"hz": "5\nport 1"}, 400, "hz must be a whole number"),
    ],
)
async def test_a_wrong_value_is_refused_by_name_and_leaves_no_trace(
    keep: World, values: dict[str, Any], code: int, words: str
) -> None:
    answer = await order(keep, **values)

    assert fault(answer)[0] == code
    assert words in fault(answer)[2]
    assert (await keep.call("GET", "/configurations")).json() == {"configurations": []}


async def test_the_configurations_of_others_are_not_there(keep: World) -> None:
    foreign = await configuration(keep, project_id="other")
    gone = await configuration(keep, deleted=True)

    for key in (foreign.id, gone.id, NOWHERE, "mine"):
        for method, body in (("GET", None), ("PATCH", {"configuration": {}}), ("DELETE", None)):
            assert fault(await keep.call(method, f"/configurations/{key}", body))[0] == 404


async def test_lists_come_in_pages(keep: World) -> None:
    ids = sorted([(await configuration(keep)).id for _ in range(3)])

    first = (await keep.call("GET", "/configurations?limit=2")).json()
    rest = (await keep.call("GET", first["links"][0]["href"].removeprefix(BASE + "/v1.0/demo"))).json()

    assert [one["id"] for page in (first, rest) for one in page["configurations"]] == ids
    assert "links" not in rest


async def test_a_patch_keeps_what_it_does_not_name_and_a_put_does_not(keep: World) -> None:
    one = await configuration(keep)

    patched = await keep.call("PATCH", f"/configurations/{one.id}", {"configuration": {"values": {"timeout": 9}}})
    assert (patched.status_code, patched.content) == (200, b"")
    assert (await shown(keep, one))["values"] == {"hz": 50, "timeout": 9}

    change = {"configuration": {"name": "new", "description": "d", "values": {"timeout": 5}}}
    put = await keep.call("PUT", f"/configurations/{one.id}", change)
    assert (put.status_code, put.content) == (202, b"")
    after = await shown(keep, one)
    assert (after["name"], after["description"], after["values"]) == ("new", "d", {"timeout": 5})
    assert await keep.operations() == []


async def shown(keep: World, one: Configuration) -> dict[str, Any]:
    found: dict[str, Any] = (await keep.call("GET", f"/configurations/{one.id}")).json()["configuration"]
    return found


async def test_one_that_is_attached_is_not_deleted(keep: World) -> None:
    one = await configuration(keep)
    instance = await keep.instance(configuration_id=one.id)

    refused = await keep.call("DELETE", f"/configurations/{one.id}")
    async with keep.store.begin() as tx:
        await tx.save(replace(instance, deleted=True))
    deleted = await keep.call("DELETE", f"/configurations/{one.id}")

    assert fault(refused)[0] == 400
    assert "cannot be deleted if it is associated" in fault(refused)[2]
    assert (deleted.status_code, deleted.content) == (202, b"")
    assert fault(await keep.call("GET", f"/configurations/{one.id}"))[0] == 404


async def test_one_that_may_be_put_back_is_not_deleted(keep: World) -> None:
    one = await configuration(keep)
    proven = Applied(one.id, (("io-threads", "1"),))
    await keep.instance(parameters=(("io-threads", "4"),), proven=proven)

    assert fault(await keep.call("DELETE", f"/configurations/{one.id}"))[0] == 400


# --- Attaching


async def attached(keep: World, instance: Instance, configuration_id: str | None) -> Any:
    return await keep.call("PUT", f"/instances/{instance.id}", {"instance": {"configuration": configuration_id}})


async def test_attaching_is_recorded_for_the_source_and_its_replicas(keep: World) -> None:
    one, source = await configuration(keep), await keep.instance()
    replica = await keep.instance(of=source)

    answer = await attached(keep, source, one.id)

    operation = await keep.the_operation()
    assert (answer.status_code, answer.content) == (202, b"")
    assert (operation.kind, operation.args) == (
        Kind.CONFIGURE,
        {
            "instance": source.id,
            "configuration": one.id,
            "parameters": [["hz", "50"]],
            "before": {"configuration": None, "parameters": []},
        },
    )
    rows = [await keep.row(each.id) for each in (source, replica)]
    assert [(row.status, row.configuration_id) for row in rows] == [(Status.UPDATING, one.id)] * 2
    assert keep.bus.published == [("hints", {"group": source.group_id})]
    assert (await shown(keep, one))["instance_count"] == 2
    listed = (await keep.call("GET", f"/configurations/{one.id}/instances")).json()["instances"]
    assert sorted(each["id"] for each in listed) == sorted([source.id, replica.id])
    view = (await keep.call("GET", f"/instances/{source.id}")).json()["instance"]
    href = f"{BASE}/v1.0/demo/configurations/{one.id}"
    links = [{"href": href, "rel": "self"}, {"href": href, "rel": "bookmark"}]
    assert (view["status"], view["configuration"]) == ("UPDATING", {"id": one.id, "name": "mine", "links": links})


@pytest.mark.parametrize("nothing", [None, ""])
async def test_detaching_gives_the_defaults_back(keep: World, nothing: str | None) -> None:
    one = await configuration(keep)
    source = await keep.instance(configuration_id=one.id, parameters=one.values)

    assert (await attached(keep, source, nothing)).status_code == 202

    operation = await keep.the_operation()
    assert (operation.args["configuration"], operation.args["parameters"]) == (None, [])
    assert operation.args["before"] == {"configuration": one.id, "parameters": [["hz", "50"]]}
    assert (await keep.row(source.id)).configuration_id is None


async def test_attaching_is_refused_where_it_would_do_harm(keep: World) -> None:
    old, one = await configuration(keep, "6.2"), await configuration(keep)
    many = (("databases", "64"),)
    source = await keep.instance(parameters=many, proven=Applied(None, many))
    replica, building = await keep.instance(of=source), await keep.instance(Status.BUILD)

    cases = (
        (source, old.id, 400, "does not match the Datastore Version"),
        (source, one.id, 400, "databases cannot go from 64 back to 16"),
        (replica, one.id, 400, "is a replica: its configuration is that of"),
        (building, one.id, 422, "Status is BUILD"),
        (source, NOWHERE, 404, "cannot be found"),
        (source, "mine", 400, "instance.configuration"),
    )
    for instance, key, code, words in cases:
        answer = await attached(keep, instance, key)
        assert fault(answer)[0] == code, words
        assert words in fault(answer)[2]
    assert (await keep.operations(), keep.bus.published) == ([], [])


async def test_a_change_of_values_is_recorded_for_each_group_that_has_them(keep: World) -> None:
    one = await configuration(keep)
    sources = [await keep.instance(configuration_id=one.id, parameters=one.values) for _ in range(2)]
    await keep.instance(of=sources[0], configuration_id=one.id, parameters=one.values)
    await keep.instance()

    await keep.call("PATCH", f"/configurations/{one.id}", {"configuration": {"values": {"hz": 60}}})

    operations = await keep.operations()
    assert {each.args["instance"] for each in operations} == {each.id for each in sources}
    assert [each.args["parameters"] for each in operations] == [[["hz", "60"]]] * 2


async def test_a_change_of_values_is_for_all_or_for_nobody(keep: World) -> None:
    one = await configuration(keep)
    await keep.instance(configuration_id=one.id)
    await keep.instance(Status.REBOOT, configuration_id=one.id)

    answer = await keep.call("PUT", f"/configurations/{one.id}", {"configuration": {"values": {"hz": 60}}})

    assert fault(answer)[0] == 422
    assert await keep.operations() == []
    assert (await shown(keep, one))["values"] == {"hz": 50}


async def test_an_order_with_a_configuration_starts_with_its_values(keep: World) -> None:
    one, old = await configuration(keep), await configuration(keep, "6.2")
    body = {"name": "db", "flavorRef": 1, "volume": {"size": 1}, "configuration": one.id}

    made = (await keep.call("POST", "/instances", {"instance": body})).json()["instance"]
    wrong = await keep.call("POST", "/instances", {"instance": {**body, "configuration": old.id}})

    row = await keep.row(made["id"])
    assert made["configuration"]["id"] == row.configuration_id == one.id
    assert (row.parameters, row.proven) == (one.values, Applied(one.id, one.values))
    assert fault(wrong)[0] == 400
    await finish(keep.store)


async def test_a_restart_that_is_required_is_shown(keep: World) -> None:
    one = await keep.instance(parameters=(("io-threads", "2"),))

    view = (await keep.call("GET", f"/instances/{one.id}")).json()["instance"]

    assert (view["status"], view["operating_status"]) == ("RESTART_REQUIRED", "RESTART_REQUIRED")


# --- What can be set


async def test_parameters_are_listed_by_version(keep: World) -> None:
    by_name = (await keep.call("GET", "/datastores/redis/versions/7.0/parameters")).json()
    by_id = (await keep.call("GET", f"/datastores/versions/{version_of('7.0').id}/parameters")).json()
    old = (await keep.call("GET", "/datastores/redis/versions/6.2/parameters")).json()

    assert by_name == by_id
    names = [{one["name"] for one in found["configuration-parameters"]} for found in (old, by_name)]
    assert "hash-max-ziplist-entries" in names[0] - names[1]
    assert "hash-max-listpack-entries" in names[1] - names[0]


async def test_one_parameter_is_shown_bare_as_upstream_does(keep: World) -> None:
    for path in ("/datastores/redis/versions/7.0", f"/datastores/versions/{version_of('7.0').id}"):
        assert (await keep.call("GET", f"{path}/parameters/databases")).json() == {
            "name": "databases",
            "type": "integer",
            "datastore_version_id": version_of("7.0").id,
            "restart_required": True,
            "default": "16",
            "min": 16,
            "max": 10000,
        }
    policy = (await keep.call("GET", "/datastores/redis/versions/7.0/parameters/maxmemory-policy")).json()
    assert (policy["type"], "allkeys-lru" in policy["options"], "min" in policy) == ("enum", True, False)
    refused = await keep.call("GET", "/datastores/redis/versions/7.0/parameters/appendonly")
    assert (fault(refused)[0], "append-only file" in fault(refused)[2]) == (404, True)
    assert fault(await keep.call("GET", "/datastores/mysql/versions/7.0/parameters"))[0] == 404


async def test_the_defaults_of_an_instance_are_shown(keep: World) -> None:
    one = await keep.instance(version="6.2", parameters=(("hz", "50"),))

    shown = (await keep.call("GET", f"/instances/{one.id}/configuration")).json()["instance"]["configuration"]

    assert (shown["hz"], shown["hash-max-ziplist-entries"]) == ("10", "512")


# --- Rolling


async def test_a_rolling_restart_takes_the_whole_group(keep: World) -> None:
    source = await keep.instance()
    replica = await keep.instance(of=source)

    refused = await keep.call("POST", f"/instances/{replica.id}/action", {"restart": {"rolling": True}})
    answer = await keep.call("POST", f"/instances/{source.id}/action", {"restart": {"rolling": True}})

    operation = await keep.the_operation()
    assert (fault(refused)[0], answer.status_code) == (400, 202)
    assert (operation.kind, operation.args) == (Kind.ROLL_GROUP, {"instance": source.id})
    assert [(await keep.row(one.id)).status for one in (source, replica)] == [Status.REBOOT] * 2


@pytest.mark.parametrize("wanted", ["7.0", version_of("7.0").id])
async def test_an_upgrade_takes_the_whole_group(keep: World, wanted: str) -> None:
    source = await keep.instance(version="6.2")
    replica = await keep.instance(of=source, version="6.2")

    answer = await keep.call("PATCH", f"/instances/{source.id}", {"instance": {"datastore_version": wanted}})

    operation = await keep.the_operation()
    assert answer.status_code == 202
    assert (operation.kind, operation.args) == (Kind.ROLL_GROUP, {"instance": source.id, "version": "7.0"})
    assert [(await keep.row(one.id)).status for one in (source, replica)] == [Status.UPGRADE] * 2


async def test_an_upgrade_that_cannot_be_is_refused(keep: World) -> None:
    await keep.host("old", "6.2")
    new, old = await keep.instance(), await keep.instance(version="6.2")
    far = await keep.instance(version="6.2", host_id="old")
    replica = await keep.instance(of=old, version="6.2")

    cases = (
        (new, "6.2", 400, "cannot read"),
        (new, "7.0", 400, "has Redis 7.0 already"),
        (old, "9.9", 400, "cannot be found"),
        (old, "", 400, "must name a version"),
        (far, "7.0", 400, "Host old of cache has no redis-server 7.0"),
        (replica, "7.0", 400, "is a replica"),
    )
    for instance, wanted, code, words in cases:
        answer = await keep.call("PATCH", f"/instances/{instance.id}", {"instance": {"datastore_version": wanted}})
        assert fault(answer)[0] == code, words
        assert words in fault(answer)[2]
    assert await keep.operations() == []

"""Instances over REST: rows that are given, a call, the exact answer and what it left behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.api_world import BASE, World, fault, world

from redkeep.model.instance import Fault, Status
from redkeep.model.operation import Kind
from redkeep.model.topology import Role
from redkeep.vault import digest

ORDER: dict[str, Any] = {"name": "cache", "flavorRef": 2, "volume": {"size": 2}}


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.host()
        yield made


def links(*path: str) -> list[dict[str, str]]:
    href = "/".join((BASE, "v1.0", "demo", *path))
    return [{"href": href, "rel": "self"}, {"href": href, "rel": "bookmark"}]


def has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(has_null(one) for one in value.values())
    return value is None or (isinstance(value, list) and any(has_null(one) for one in value))


# --- Ordering


async def test_an_order_is_recorded_answered_and_poked(keep: World) -> None:
    answer = await keep.call("POST", "/instances", {"instance": ORDER | {"datastore": {"type": "redis"}}})

    shown = answer.json()["instance"]
    operation, row = await keep.the_operation(), await keep.row(shown["id"])
    group = await keep.group(row.group_id)
    assert answer.status_code == 200
    assert (shown["status"], shown["operating_status"], "ip" in shown) == ("BUILD", "", False)
    assert (row.role, row.status, row.host_id, row.address, row.version) == (
        Role.PRIMARY,
        Status.BUILD,
        None,
        None,
        "7.0",
    )
    assert (operation.kind, operation.args, operation.group_id) == (
        Kind.CREATE_INSTANCE,
        {"instance": row.id},
        group.id,
    )
    assert operation.deadline == pytest.approx(operation.created + 600)
    assert keep.bus.published == [("hints", {"group": group.id})]
    assert [(one.actor, one.kind, one.instance_id) for one in await keep.events()] == [
        ("admin", "create_instance.requested", row.id)
    ]
    assert group.primary_id == row.id


async def test_the_password_is_told_once_and_kept_as_a_digest(keep: World) -> None:
    answer = await keep.call("POST", "/instances", {"instance": ORDER})

    made = answer.json()["instance"]
    (user,) = (await keep.group((await keep.row(made["id"])).group_id)).users
    assert (user.name, user.password_sha256) == ("default", digest(made["password"]))
    assert "password" not in (await keep.call("GET", f"/instances/{made['id']}")).json()["instance"]


async def test_the_servers_secrets_are_sealed(keep: World) -> None:
    made = (await keep.call("POST", "/instances", {"instance": ORDER})).json()["instance"]

    secrets = (await keep.group((await keep.row(made["id"])).group_id)).secrets
    assert len({keep.vault.unseal(secrets.admin), keep.vault.unseal(secrets.replication), made["password"]}) == 3


async def test_an_order_asks_for_as_many_replicas_as_is_configured(keep: World) -> None:
    source = await keep.instance()
    order = {"name": "r", "replica_of": source.id, "replica_count": 4}

    answer = await keep.call("POST", "/instances", {"instance": order})

    assert fault(answer)[0] == 400
    assert "one order may ask for 3" in fault(answer)[2]
    assert await keep.operations() == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"name": ""}, 400, "instance.name"),
        ({"name": "..."}, 400, "instance.name"),
        ({"name": "a\nb"}, 400, "instance.name"),
        ({"name": "x" * 256}, 400, "instance.name"),
        ({"name": 7}, 400, "instance.name"),
        ({"flavorRef": None}, 400, "flavorRef"),
        ({"flavorRef": "99"}, 400, "Flavor 99"),
        ({"flavorRef": [1]}, 400, "instance.flavorRef"),
        ({"flavorRef": "6"}, 400, "8192 MB"),
        ({"volume": None}, 400, "Volume size was not specified."),
        ({"volume": {}}, 400, "instance.volume.size"),
        ({"volume": {"size": 0}}, 400, "instance.volume.size"),
        ({"volume": {"size": True}}, 400, "instance.volume.size"),
        ({"volume": {"size": 2.5}}, 400, "instance.volume.size"),
        ({"volume": {"size": "big"}}, 400, "instance.volume.size"),
        ({"volume": {"size": 101}}, 413, "the largest has 100 GB"),
        ({"volume": {"size": 5000}}, 413, "Quota exceeded for resources: ['volumes']."),
        ({"datastore": {"type": "mysql"}}, 404, "Datastore 'mysql'"),
        ({"datastore": {"type": "redis", "version": "3.2"}}, 400, "7.0, 6.2"),
        ({"replica_count": 2}, 400, "replica_count needs replica_of"),
        ({"replica_count": 17}, 400, "instance.replica_count"),
        ({"replica_of": "no-id"}, 400, "instance.replica_of"),
        ({"replica_of": "00000000-0000-0000-0000-000000000000"}, 404, "cannot be found"),
        ({"nics": [{"network_id": "a"}, {"network_id": "b"}]}, 400, "instance.nics"),
        ({"nics": [{"port-id": "a"}]}, 400, "instance.nics.0"),
        ({"nics": [{"ip_address": "10.0.0.1"}]}, 400, "neither a network nor a subnet"),
        ({"access": {"is_public": "perhaps"}}, 400, "instance.access.is_public"),
        ({"restorePoint": {"backupRef": "b"}}, 404, "Backup b cannot be found."),
        ({"restorePoint": {}}, 400, "instance.restorePoint.backupRef"),
        ({"modules": [{"id": "m"}]}, 501, "modules"),
    ],
)
async def test_a_wrong_order_is_refused_by_name_and_leaves_no_trace(
    keep: World, change: dict[str, Any], code: int, words: str
) -> None:
    answer = await keep.call("POST", "/instances", {"instance": ORDER | change})

    assert fault(answer)[0] == code
    assert words in fault(answer)[2]
    assert (await keep.operations(), await keep.events(), keep.bus.published) == ([], [], [])
    assert (await keep.call("GET", "/instances")).json() == {"instances": []}


@pytest.mark.parametrize(
    "change",
    [
        {"flavorRef": "2"},
        {"flavorRef": f"{BASE}/v1.0/demo/flavors/2"},
        {"volume": {"size": "2", "type": None}},
        {"nics": [{"net-id": "a"}]},
        {"access": {"is_public": False}, "availability_zone": "nova", "locality": "affinity", "surprise": 1},
        {"datastore": {"type": "redis", "version": "6.2"}},
        {"datastore": {"version_number": "6.2"}},
    ],
)
async def test_orders_are_taken_as_the_clients_write_them(keep: World, change: dict[str, Any]) -> None:
    answer = await keep.call("POST", "/instances", {"instance": ORDER | change})

    assert answer.status_code == 200
    assert answer.json()["instance"]["flavor"]["id"] == 2
    assert answer.json()["instance"]["volume"] == {"size": 2}


async def test_an_order_for_a_version_that_no_host_has_names_the_way_out(tmp_path: Path) -> None:
    async with world(tmp_path) as keep:
        answer = await keep.call("POST", "/instances", {"instance": ORDER})

    assert fault(answer)[:2] == (400, "badRequest")
    assert "redkeep doctor" in fault(answer)[2]


async def test_without_the_default_version_an_order_gets_what_there_is(tmp_path: Path) -> None:
    async with world(tmp_path) as keep:
        await keep.host("h1", "6.2")

        answer = await keep.call("POST", "/instances", {"instance": ORDER})

    assert answer.json()["instance"]["datastore"]["version"] == "6.2"


async def test_a_quota_ends_at_the_project(tmp_path: Path) -> None:
    async with world(tmp_path, max_instances=1) as keep:
        await keep.host()
        await keep.instance(project_id="other")
        first = await keep.call("POST", "/instances", {"instance": ORDER})

        second = await keep.call("POST", "/instances", {"instance": ORDER})

    assert first.status_code == 200
    assert fault(second) == (413, "overLimit", "Quota exceeded for resources: ['instances'].")


async def test_an_order_stands_although_the_northbound_is_away(keep: World) -> None:
    keep.bus.exchange.available = False

    answer = await keep.call("POST", "/instances", {"instance": ORDER})

    assert answer.status_code == 200
    assert (await keep.the_operation()).kind is Kind.CREATE_INSTANCE


# --- Replicas


async def test_replicas_are_made_like_their_source_and_the_last_is_shown(keep: World) -> None:
    source = await keep.instance(version="6.2", flavor_id="1", volume_gb=3)
    order = {"name": "r", "flavorRef": 2, "replica_of": source.id, "replica_count": 2}

    answer = await keep.call("POST", "/instances", {"instance": order})

    operation = await keep.the_operation()
    rows = [await keep.row(one) for one in operation.args["instances"]]
    assert answer.status_code == 200
    assert answer.json()["instance"]["id"] == rows[-1].id
    assert answer.json()["instance"]["replica_of"] == {"id": source.id, "links": links("instances", source.id)}
    assert "password" not in answer.json()["instance"]
    assert [one.name for one in rows] == ["r-1", "r-2"]
    assert {(one.version, one.flavor_id, one.volume_gb, one.group_id, one.role, one.status) for one in rows} == {
        ("6.2", "1", 3, source.group_id, Role.REPLICA, Status.BUILD)
    }
    assert (operation.kind, operation.args["primary"]) == (Kind.ADD_REPLICAS, source.id)
    shown = (await keep.call("GET", f"/instances/{source.id}")).json()["instance"]
    assert {one["id"] for one in shown["replicas"]} == {one.id for one in rows}
    assert shown["status"] == "ACTIVE"


async def test_old_clients_say_slave_of(keep: World) -> None:
    source = await keep.instance()

    answer = await keep.call("POST", "/instances", {"instance": {"name": "r", "slave_of": source.id}})

    assert answer.json()["instance"]["replica_of"]["id"] == source.id


@pytest.mark.parametrize(("status", "code"), [(Status.BUILD, 422), (Status.REBOOT, 422), (Status.ERROR, 422)])
async def test_replicas_need_a_source_that_serves(keep: World, status: Status, code: int) -> None:
    source = await keep.instance(status)

    answer = await keep.call("POST", "/instances", {"instance": {"name": "r", "replica_of": source.id}})

    assert fault(answer)[0] == code


async def test_a_replica_has_no_replicas(keep: World) -> None:
    replica = await keep.instance(of=await keep.instance())

    answer = await keep.call("POST", "/instances", {"instance": {"name": "r", "replica_of": replica.id}})

    assert fault(answer)[:2] == (403, "forbidden")


# --- Looking


async def test_show_tells_everything_and_nothing_is_null(keep: World) -> None:
    source = await keep.instance()
    replica = await keep.instance(of=source, name="copy")

    shown = (await keep.call("GET", f"/instances/{replica.id}")).json()

    assert shown == {
        "instance": {
            "id": replica.id,
            "name": "copy",
            "status": "ACTIVE",
            "operating_status": "HEALTHY",
            "links": links("instances", replica.id),
            "flavor": {"id": 2, "links": links("flavors", "2")},
            "datastore": {"type": "redis", "version": "7.0", "version_number": "7.0"},
            "region": "RegionOne",
            "volume": {"size": 2},
            "ip": ["10.0.0.1"],
            "port": 7002,
            "addresses": [{"address": "10.0.0.1", "type": "private"}],
            "replica_of": {"id": source.id, "links": links("instances", source.id)},
            "created": "2023-11-15T00:10:02",
            "updated": "2023-11-15T00:10:02",
            "service_status_updated": "2023-11-15T00:10:02",
            "tenant_id": "demo",
        }
    }


async def test_a_fault_is_shown(keep: World) -> None:
    broken = await keep.instance(Status.ERROR, fault=Fault("no room", 1_700_000_000.0))

    shown = (await keep.call("GET", f"/instances/{broken.id}")).json()["instance"]

    assert shown["fault"] == {"message": "no room", "created": "2023-11-14T22:13:20"}
    assert shown["operating_status"] == "ERROR"


async def test_nothing_that_is_answered_is_null(keep: World) -> None:
    source = await keep.instance()
    await keep.instance(of=source)
    await keep.instance(Status.BUILD, host_id=None, address=None)

    for path in ("/instances", "/instances/detail", f"/instances/{source.id}", "/datastores", "/flavors", "/limits"):
        assert not has_null((await keep.call("GET", path)).json()), path


@pytest.mark.parametrize("name", ["cache", "no-such-thing", "00000000-0000-0000-0000-000000000000", "%00", "x" * 300])
async def test_what_is_no_id_is_not_found_so_that_clients_look_for_the_name(keep: World, name: str) -> None:
    await keep.instance(name="cache")

    assert fault(await keep.call("GET", f"/instances/{name}"))[:2] == (404, "itemNotFound")


async def test_another_projects_instance_is_not_found(keep: World) -> None:
    foreign = await keep.instance(project_id="other")

    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("PUT", "", {"instance": {"name": "mine"}}),
        ("POST", "/action", {"restart": {}}),
        ("GET", "/users", None),
        ("POST", "/root", None),
    ):
        assert fault(await keep.call(method, f"/instances/{foreign.id}{path}", body))[0] == 404
    assert fault(await keep.call("POST", "/instances", {"instance": {"name": "r", "replica_of": foreign.id}}))[0] == 404
    assert await keep.row(foreign.id) == foreign


async def test_pages_follow_each_other_without_gap_or_overlap(keep: World) -> None:
    everything = {(await keep.instance()).id for _ in range(5)}

    seen: list[str] = []
    url: str | None = f"{BASE}/v1.0/demo/instances?limit=2&include_clustered=False"
    while url:
        page = (await keep.http.get(url)).json()
        created = [one["id"] for one in page["instances"]]
        seen += created
        url = page["links"][0]["href"] if "links" in page else None
        assert url is None or "limit=2" in url

    assert len(seen) == 5
    assert set(seen) == everything


async def test_a_page_is_newest_first_and_never_larger_than_the_servers(tmp_path: Path) -> None:
    async with world(tmp_path, page_size=3) as keep:
        for number in range(4):
            await keep.instance(id=f"{number}0000000-0000-0000-0000-000000000000", created=100.0 + number)

        page = (await keep.call("GET", "/instances?limit=1000")).json()

    assert [one["id"][0] for one in page["instances"]] == ["2", "1", "0"]
    assert page["links"] == [
        {
            "rel": "next",
            "href": f"{BASE}/v1.0/demo/instances?limit=1000&marker=20000000-0000-0000-0000-000000000000",
        }
    ]


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=abc", "include_clustered=perhaps"])
async def test_a_wrong_page_is_refused(keep: World, query: str) -> None:
    assert fault(await keep.call("GET", f"/instances?{query}"))[:2] == (400, "badRequest")


@pytest.mark.parametrize("query", ["marker=zzz", "include_clustered=True", "include_clustered=FALSE", "limit=5"])
async def test_a_page_is_asked_for_as_the_clients_do(keep: World, query: str) -> None:
    assert (await keep.call("GET", f"/instances?{query}")).status_code == 200


# --- Changing


async def test_deleting_locks_records_and_can_be_repeated(keep: World) -> None:
    one = await keep.instance()

    first = await keep.call("DELETE", f"/instances/{one.id}")
    again = await keep.call("DELETE", f"/instances/{one.id}")

    operation = await keep.the_operation()
    assert [(answer.status_code, answer.content) for answer in (first, again)] == [(202, b""), (202, b"")]
    assert (operation.kind, operation.args) == (Kind.DELETE_INSTANCE, {"instance": one.id})
    assert (await keep.row(one.id)).status is Status.SHUTDOWN


async def test_what_is_deleted_is_gone(keep: World) -> None:
    one = await keep.instance(deleted=True)

    assert fault(await keep.call("GET", f"/instances/{one.id}"))[0] == 404
    assert fault(await keep.call("DELETE", f"/instances/{one.id}"))[0] == 404


async def test_deleting_a_source_needs_its_replicas_gone(keep: World) -> None:
    source = await keep.instance()
    replica = await keep.instance(of=source)

    refused = await keep.call("DELETE", f"/instances/{source.id}")
    allowed = await keep.call("DELETE", f"/instances/{replica.id}")

    assert fault(refused) == (403, "forbidden", "Detach replicas before deleting replica source.")
    assert allowed.status_code == 202


@pytest.mark.parametrize("status", [Status.BUILD, Status.REBOOT, Status.RESIZE, Status.PROMOTE])
async def test_what_is_busy_is_left_alone(keep: World, status: Status) -> None:
    one = await keep.instance(status)

    answers = [
        await keep.call("DELETE", f"/instances/{one.id}"),
        await keep.call("POST", f"/instances/{one.id}/action", {"restart": {}}),
        await keep.call("POST", f"/instances/{one.id}/action", {"resize": {"flavorRef": 1}}),
    ]

    assert {fault(answer)[:2] for answer in answers} == {(422, "unprocessableEntity")}
    assert await keep.operations() == []


@pytest.mark.parametrize(
    ("body", "kind", "args", "status"),
    [
        ({"restart": {}}, Kind.RESTART_INSTANCE, {}, Status.REBOOT),
        ({"resize": {"flavorRef": 1}}, Kind.RESIZE_INSTANCE, {"flavor": "1"}, Status.RESIZE),
        ({"resize": {"volume": {"size": 3}}}, Kind.RESIZE_INSTANCE, {"volume_gb": 3}, Status.RESIZE),
    ],
)
async def test_an_action_takes_the_lock_and_is_recorded(
    keep: World, body: dict[str, Any], kind: Kind, args: dict[str, Any], status: Status
) -> None:
    one = await keep.instance()

    answer = await keep.call("POST", f"/instances/{one.id}/action", body)

    operation = await keep.the_operation()
    assert (answer.status_code, answer.content) == (202, b"")
    assert (operation.kind, operation.args) == (kind, {"instance": one.id} | args)
    assert (await keep.row(one.id)).status is status
    assert keep.bus.published == [("hints", {"group": one.group_id})]


async def test_resizing_a_source_locks_its_replicas_too(keep: World) -> None:
    source = await keep.instance()
    replica = await keep.instance(of=source)

    await keep.call("POST", f"/instances/{source.id}/action", {"resize": {"volume": {"size": 3}}})

    assert {(await keep.row(one.id)).status for one in (source, replica)} == {Status.RESIZE}


async def test_resizing_counts_every_member_against_the_quota(tmp_path: Path) -> None:
    async with world(tmp_path, max_volume_gb=5) as keep:
        await keep.host()
        source = await keep.instance()
        await keep.instance(of=source)

        answer = await keep.call("POST", f"/instances/{source.id}/action", {"resize": {"volume": {"size": 3}}})

    assert fault(answer) == (413, "overLimit", "Quota exceeded for resources: ['volumes'].")


@pytest.mark.parametrize(
    ("resize", "code"),
    [
        ({"flavorRef": 2}, 400),
        ({"flavorRef": 99}, 400),
        ({"volume": {"size": 2}}, 400),
        ({"volume": {"size": 200}}, 413),
        ({}, 400),
        ({"flavour": 1}, 400),
    ],
)
async def test_a_wrong_size_is_refused(keep: World, resize: dict[str, Any], code: int) -> None:
    one = await keep.instance()

    assert fault(await keep.call("POST", f"/instances/{one.id}/action", {"resize": resize}))[0] == code


async def test_promoting_locks_the_whole_set(keep: World) -> None:
    source = await keep.instance()
    chosen, other = await keep.instance(of=source), await keep.instance(of=source)

    answer = await keep.call("POST", f"/instances/{chosen.id}/action", {"promote_to_replica_source": {}})

    operation = await keep.the_operation()
    assert answer.status_code == 202
    assert (operation.kind, operation.args) == (Kind.PROMOTE_REPLICA, {"instance": chosen.id})
    assert {(await keep.row(one.id)).status for one in (source, chosen, other)} == {Status.PROMOTE}


async def test_only_a_replica_is_promoted(keep: World) -> None:
    source = await keep.instance()
    await keep.instance(of=source)

    answer = await keep.call("POST", f"/instances/{source.id}/action", {"promote_to_replica_source": {}})

    assert fault(answer) == (400, "badRequest", f"Instance {source.id} is not a replica.")


@pytest.mark.parametrize(
    "body",
    [{}, [], {"fly": {}}, {"restart": {}, "resize": {"flavorRef": 1}}, {"restart": None}, {"restart": 1}, "x", None],
)
async def test_an_unknown_action_is_a_bad_request(keep: World, body: Any) -> None:
    one = await keep.instance()

    answer = await keep.http.post(f"/v1.0/demo/instances/{one.id}/action", json=body)

    assert fault(answer)[:2] == (400, "badRequest")


@pytest.mark.parametrize(
    ("method", "body"), [("PUT", {"replica_of": None}), ("PATCH", {"slave_of": ""}), ("PATCH", {"slave_of": None})]
)
async def test_detaching_gives_the_replica_a_group_of_its_own(keep: World, method: str, body: dict[str, Any]) -> None:
    source = await keep.instance()
    replica = await keep.instance(of=source)

    refused = await keep.call(method, f"/instances/{source.id}", {"instance": body})
    answer = await keep.call(method, f"/instances/{replica.id}", {"instance": body | {"name": "free"}})

    assert fault(refused) == (400, "badRequest", f"Instance {source.id} is not a replica.")
    assert (answer.status_code, answer.content) == (202, b"")
    (operation,) = await keep.operations()
    assert (operation.kind, operation.args["instance"]) == (Kind.DETACH_REPLICA, replica.id)
    left = await keep.row(replica.id)
    assert (left.status, left.name, left.group_id) == (Status.DETACH, "free", source.group_id)
    assert operation.args["group"] != source.group_id


async def test_only_a_source_that_is_not_heard_of_can_be_ejected(keep: World) -> None:
    source, lonely = await keep.instance(), await keep.instance()
    await keep.instance(of=source)
    eject: dict[str, Any] = {"eject_replica_source": {}}

    no_source = await keep.call("POST", f"/instances/{lonely.id}/action", eject)
    healthy = await keep.call("POST", f"/instances/{source.id}/action", eject)
    await keep.host(silent=91.0)
    silent = await keep.call("POST", f"/instances/{source.id}/action", eject)

    assert fault(no_source) == (400, "badRequest", f"Instance {lonely.id} is not a replica source.")
    assert fault(healthy)[2] == f"Replica Source {source.id} cannot be ejected as it has a current heartbeat"
    assert silent.status_code == 202
    (operation,) = await keep.operations()
    assert (operation.kind, operation.args["force"]) == (Kind.EJECT_PRIMARY, False)


async def test_failover_is_paused_and_resumed_for_a_whole_group(keep: World) -> None:
    source = await keep.instance()
    replica = await keep.instance(of=source)

    paused = await keep.call("POST", f"/instances/{replica.id}/action", {"pause_failover": {}})
    async with keep.store.read() as tx:
        group = await tx.group(source.group_id)
    resumed = await keep.call("POST", f"/instances/{source.id}/action", {"resume_failover": {}})

    assert (paused.status_code, resumed.status_code) == (202, 202)
    assert group is not None
    assert group.paused


async def test_renaming_is_done_at_once(keep: World) -> None:
    one = await keep.instance()

    answer = await keep.call("PUT", f"/instances/{one.id}", {"instance": {"name": "new"}})
    nothing = await keep.call("PATCH", f"/instances/{one.id}", {"instance": {}})

    assert (answer.status_code, answer.content, nothing.status_code) == (202, b"", 202)
    assert (await keep.row(one.id)).name == "new"
    assert [event.kind for event in await keep.events()] == ["instance.renamed"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"colour": "red"}, 400),
        ({"name": None}, 400),
        ({"replica_of": None, "configuration": None}, 400),
        ({"replica_of": "00000000-0000-0000-0000-000000000000"}, 400),
        ({"configuration": "c"}, 400),
        ({"configuration": "00000000-0000-0000-0000-000000000000"}, 404),
    ],
)
async def test_a_wrong_change_is_refused(keep: World, change: dict[str, Any], code: int) -> None:
    one = await keep.instance()

    assert fault(await keep.call("PUT", f"/instances/{one.id}", {"instance": change}))[0] == code


async def test_resetting_a_status_gives_up_what_is_at_work(keep: World) -> None:
    one = await keep.instance()
    await keep.call("POST", f"/instances/{one.id}/action", {"restart": {}})

    answer = await keep.call("POST", f"/instances/{one.id}/action", {"reset_status": {}})

    operation = await keep.the_operation()
    assert answer.status_code == 202
    assert operation.deadline < operation.created + 10
    assert (await keep.row(one.id)).status is Status.REBOOT


async def test_resetting_a_status_that_nobody_owns_is_an_error_one_can_delete(keep: World) -> None:
    one = await keep.instance(Status.REBOOT)

    await keep.call("POST", f"/instances/{one.id}/action", {"reset_status": {}})

    row = await keep.row(one.id)
    assert row.status is Status.ERROR
    assert row.fault is not None
    assert re.search("admin reset the status", row.fault.message)
    assert (await keep.call("DELETE", f"/instances/{one.id}")).status_code == 202


async def test_who_comes_second_is_refused(keep: World) -> None:
    """The status is the lock: what is asked twice at once is recorded once."""
    one = await keep.instance()

    answers = await asyncio.gather(
        *(keep.call("POST", f"/instances/{one.id}/action", {"restart": {}}) for _ in range(4))
    )

    assert sorted(answer.status_code for answer in answers) == [202, 422, 422, 422]
    assert (await keep.the_operation()).args == {"instance": one.id}

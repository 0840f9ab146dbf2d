"""Clusters over REST: rows that are given, a call, the exact answer and what it left behind.

The numbers, words and codes are those of sections 0, 4.4 and 6 of the contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.contract.api_world import World, fault, finishing, world
from tests.contract.cluster_world import agents_say, cluster_row, given_cluster, members_of

from redkeep.errors import Refused
from redkeep.model.cluster import ClusterTask
from redkeep.model.instance import Configuration, Status
from redkeep.model.operation import Kind
from redkeep.model.topology import Role

NOBODY = "00000000-0000-4000-8000-000000000000"
MEMBER = {"flavorRef": "2", "volume": {"size": "2"}}
BUSY = "This action cannot be performed on the cluster while the current cluster task is"


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.host()
        yield made


def order(count: int = 3, **more: Any) -> dict[str, Any]:
    """As the stock clients send it."""
    datastore = {"type": "redis", "version": "7.0"}
    return {"cluster": {"name": "c", "datastore": datastore, "instances": [MEMBER] * count, **more}}


async def untouched(keep: World) -> bool:
    """No cluster, no instance, no operation and no event was left behind."""
    async with keep.store.read() as tx:
        rows = [await tx.clusters(keep.project), await tx.instances(), await tx.groups(), await tx.open_operations()]
        return not any(rows) and not await tx.events()


# --- Create -------------------------------------------------------------------------------------------------------


async def test_a_cluster_is_ordered(keep: World) -> None:
    answer = await keep.call("POST", "/clusters", order(4))

    assert answer.status_code == 202
    shown = answer.json()["cluster"]
    assert shown["task"] == {"id": 2, "name": "BUILDING", "description": "Building the initial cluster."}
    assert (shown["name"], shown["datastore"], shown["ip"]) == ("c", {"type": "redis", "version": "7.0"}, [])
    assert [one["name"] for one in shown["instances"]] == [f"c-member-{n}" for n in (1, 2, 3, 4)]
    assert {one["status"] for one in shown["instances"]} == {"BUILD"}
    assert {(one["flavor"]["id"], one["volume"]["size"]) for one in shown["instances"]} == {(2, 2)}
    assert shown["password"]
    operation = await keep.the_operation()
    assert (operation.kind, operation.group_id) == (Kind.CREATE_CLUSTER, shown["id"])
    assert operation.args["instances"] == [one["id"] for one in shown["instances"]]
    assert keep.bus.published == [("hints", {"group": shown["id"]})]


@pytest.mark.parametrize(
    "asked", [{"replicas_per_shard": 1}, {"extended_properties": {"replicas_per_shard": "1"}}], ids=["own", "stock"]
)
async def test_replicas_come_with_their_shards(keep: World, asked: dict[str, Any]) -> None:
    made = (await keep.call("POST", "/clusters", order(3, **asked))).json()["cluster"]

    members = await members_of(keep, made["id"])
    assert sorted((one.name, one.shard, one.role) for one in members) == [
        *((f"c-member-{n}", str(n), Role.PRIMARY) for n in (1, 2, 3)),
        *((f"c-member-{n + 3}", str(n), Role.REPLICA) for n in (1, 2, 3)),
    ]
    assert made["replicas_per_shard"] == 1


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"instances": [{"volume": {"size": 2}}]}, 403),
        ({"instances": [{"flavorRef": 99, "volume": {"size": 2}}]}, 404),
        ({"instances": [{"flavorRef": 2}]}, 400),
        ({"instances": [{"flavorRef": 2, "volume": {"size": 0}}]}, 400),
        ({"instances": [{"flavorRef": 2, "volume": {"size": 1000}}]}, 413),
        ({"instances": [{**MEMBER, "modules": [{"id": NOBODY}]}]}, 501),
        ({"instances": [{**MEMBER, "availability_zone": "moon"}]}, 400),
        ({"instances": [MEMBER, {"flavorRef": 1, "volume": {"size": 2}}]}, 400),
        ({"instances": [MEMBER, {"flavorRef": 2, "volume": {"size": 3}}]}, 400),
        ({"instances": [{**MEMBER, "name": "a"}, {**MEMBER, "name": "a"}]}, 409),
        ({"instances": []}, 400),
        ({"instances": [MEMBER] * 200}, 413),
        ({"name": ""}, 400),
        ({"name": None}, 400),
        ({"datastore": {"type": "mysql", "version": "5.7"}}, 404),
        ({"datastore": {"type": "redis", "version": "9.9"}}, 400),
        ({"locality": "elsewhere"}, 400),
        ({"locality": "affinity"}, 501),
        ({"configuration": NOBODY}, 404),
        ({"replicas_per_shard": 9}, 400),
    ],
)
async def test_a_cluster_that_cannot_be_is_refused_and_leaves_no_trace(
    keep: World, changed: dict[str, Any], code: int
) -> None:
    answer = await keep.call("POST", "/clusters", order(**changed))

    assert fault(answer)[0] == code
    assert await untouched(keep)


async def test_without_volumes_a_flavor_needs_local_storage(tmp_path: Path) -> None:
    async with world(tmp_path, volume_support=False) as keep:
        await keep.host()

        answer = await keep.call("POST", "/clusters", order(3))

        assert fault(answer)[::2] == (403, "Local storage not specified in flavor ID: 2.")
        assert await untouched(keep)


async def test_clusters_can_be_switched_off_and_those_that_are_there_stay(tmp_path: Path) -> None:
    async with world(tmp_path, cluster_support=False) as keep:
        await keep.host()
        cluster = await given_cluster(keep)

        assert fault(await keep.call("POST", "/clusters", order()))[0] == 501
        assert (await keep.call("GET", f"/clusters/{cluster.id}")).status_code == 200
        assert (await keep.call("DELETE", f"/clusters/{cluster.id}")).status_code == 202


@pytest.mark.parametrize("name", ["NoClass", "redkeep.nowhere.Strategy", "redkeep.api.app.Route", "redkeep.api.nobody"])
async def test_a_strategy_that_is_none_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        async with world(tmp_path, cluster_strategy=name):
            pass


async def test_another_strategy_decides_in_the_place_of_ours(tmp_path: Path) -> None:
    async with world(tmp_path, cluster_strategy="tests.contract.cluster_world.Closed") as keep:
        await keep.host()

        answer = await keep.call("POST", "/clusters", order())

        assert fault(answer)[::2] == (403, "No cluster c: it is Sunday.")
        assert await untouched(keep)


# --- Show and list ------------------------------------------------------------------------------------------------


async def test_a_cluster_is_shown(keep: World) -> None:
    cluster = await given_cluster(keep, 2, 1)
    other = await given_cluster(keep, 1, created=1.0, name="older")

    answer = await keep.call("GET", f"/clusters/{cluster.id}")

    assert answer.status_code == 200
    shown = answer.json()["cluster"]
    assert shown["task"] == {"id": 1, "name": "NONE", "description": "No tasks for the cluster."}
    assert shown["ip"] == ["10.0.0.2"] * 4
    first = shown["instances"][0]
    assert (first["status"], first["ip"], first["flavor"]["id"]) == ("ACTIVE", ["10.0.0.2"], 2)
    assert (first["volume"], first["type"], first["role"]) == ({"size": 2}, "member", "primary")
    assert first["links"][0]["href"].endswith(f"/v1.0/demo/instances/{first['id']}")
    listed = (await keep.call("GET", "/clusters")).json()["clusters"]
    assert [one["id"] for one in listed] == [cluster.id, other.id]
    assert set(listed[0]["instances"][0]) == {"id", "name", "type", "links"}


async def test_a_list_has_pages(keep: World) -> None:
    ids = sorted([(await given_cluster(keep, 1)).id for _ in range(3)])

    first = (await keep.call("GET", "/clusters?limit=2")).json()
    second = (await keep.call("GET", f"/clusters?limit=2&marker={ids[1]}")).json()

    assert sorted(one["id"] for one in first["clusters"]) == ids[:2]
    assert f"marker={ids[1]}" in first["links"][0]["href"]
    assert [one["id"] for one in second["clusters"]] == ids[2:]
    assert fault(await keep.call("GET", "/clusters?limit=0"))[0] == 400


async def test_what_is_not_there_is_404(keep: World) -> None:
    foreign = await given_cluster(keep, 1, project_id="others")
    gone = await given_cluster(keep, 1, deleted=True)
    mine, other = await given_cluster(keep, 1), await given_cluster(keep, 1)
    (member,) = await members_of(keep, other.id)

    for key in (foreign.id, gone.id, NOBODY, "c", "x" * 300):
        assert fault(await keep.call("GET", f"/clusters/{key}"))[:2] == (404, "itemNotFound")
        assert fault(await keep.call("DELETE", f"/clusters/{key}"))[0] == 404
        assert fault(await keep.call("POST", f"/clusters/{key}", {"grow": [MEMBER]}))[0] == 404
    assert "'c'" in fault(await keep.call("GET", "/clusters/c"))[2]
    assert fault(await keep.call("GET", f"/clusters/{mine.id}/instances/{member.id}"))[0] == 404
    assert fault(await keep.call("GET", f"/clusters/{mine.id}/instances"))[0] == 404


async def test_a_member_is_shown_in_both_places(keep: World) -> None:
    cluster = await given_cluster(keep, 1)
    (member,) = await members_of(keep, cluster.id)

    here = (await keep.call("GET", f"/clusters/{cluster.id}/instances/{member.id}")).json()["instance"]
    there = (await keep.call("GET", f"/instances/{member.id}")).json()["instance"]

    assert here == there
    assert (here["cluster_id"], here["id"], here["name"]) == (cluster.id, member.id, "c-member-1")
    assert here["datastore"]["version"] == "7.0"


async def test_members_are_listed_among_the_instances_on_request_only(keep: World) -> None:
    await given_cluster(keep, 2)
    alone = await keep.instance()

    for wanted, count in (("", 1), ("?include_clustered=False", 1), ("?include_clustered=True", 3)):
        for path in ("/instances", "/instances/detail"):
            shown = (await keep.call("GET", f"{path}{wanted}")).json()["instances"]
            assert len(shown) == count
    assert [one["id"] for one in (await keep.call("GET", "/instances")).json()["instances"]] == [alone.id]


# --- Members are the cluster's ------------------------------------------------------------------------------------


async def test_members_are_changed_through_their_cluster_alone(keep: World) -> None:
    cluster = await given_cluster(keep, 1)
    (member,) = await members_of(keep, cluster.id)
    path = f"/instances/{member.id}"

    for method, where, body in (
        ("DELETE", path, None),
        ("POST", f"{path}/action", {"restart": {}}),
        ("POST", f"{path}/action", {"resize": {"flavorRef": 3}}),
        ("POST", f"{path}/action", {"resize": {"volume": {"size": 9}}}),
        ("POST", f"{path}/action", {"promote_to_replica_source": {}}),
        ("POST", f"{path}/action", {"eject_replica_source": {}}),
        ("PUT", path, {"instance": {"replica_of": None}}),
        ("PUT", path, {"instance": {"name": "other"}}),
        ("POST", "/instances", {"instance": {"name": "r", "replica_of": member.id}}),
        ("POST", "/backups", {"backup": {"name": "b", "instance": member.id}}),
    ):
        message = "Operation not supported for instances that are part of a cluster."
        assert fault(await keep.call(method, where, body)) == (501, "notImplemented", message), where
    assert await keep.row(member.id) == member
    assert await keep.operations() == []


async def test_users_of_one_member_are_users_of_all(keep: World) -> None:
    cluster = await given_cluster(keep, 1, 1)
    for member in await members_of(keep, cluster.id):
        async with finishing(keep.store):
            name = f"app-{member.role}"
            answer = await keep.call("POST", f"/instances/{member.id}/users", {"users": [{"name": name}]})
        assert answer.status_code == 202

    assert [user.name for user in (await keep.group(cluster.id)).users] == ["default", "app-primary", "app-replica"]


async def test_root_of_a_cluster_gets_another_password(keep: World) -> None:
    cluster = await given_cluster(keep, 2)

    async with finishing(keep.store):
        answer = await keep.call("POST", f"/clusters/{cluster.id}/root", {})

    assert answer.json()["user"]["name"] == "default"
    assert (await keep.call("GET", f"/clusters/{cluster.id}/root")).json() == {"rootEnabled": True}


# --- Grow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/action"])
async def test_a_cluster_grows(keep: World, path: str) -> None:
    cluster = await given_cluster(keep, 3)

    answer = await keep.call("POST", f"/clusters/{cluster.id}{path}", {"grow": [MEMBER, {**MEMBER, "name": "extra"}]})

    assert answer.status_code == 202
    shown = answer.json()["cluster"]
    assert shown["task"]["id"] == 5
    assert shown["task"]["name"] == "GROWING_CLUSTER"
    assert [(one["name"], one["status"], one["shard"]) for one in shown["instances"]] == [
        ("c-member-4", "BUILD", "4"),
        ("extra", "BUILD", "5"),
    ]
    operation = await keep.the_operation()
    assert operation.kind is Kind.GROW_CLUSTER
    assert operation.args["instances"] == [one["id"] for one in shown["instances"]]
    assert operation.args["rebalance"] is False


async def test_names_of_members_never_come_twice(keep: World) -> None:
    cluster = await given_cluster(keep, 3)
    gone = next(one for one in await members_of(keep, cluster.id) if one.name == "c-member-3")
    async with keep.store.begin() as tx:
        await tx.prune(0)
    async with keep.store.begin() as tx:
        await tx.save(replace(gone, deleted=True))

    shown = (await keep.call("POST", f"/clusters/{cluster.id}", {"grow": [MEMBER]})).json()["cluster"]

    assert [one["name"] for one in shown["instances"]] == ["c-member-4"]


async def test_growing_brings_replicas_along_and_may_rebalance(keep: World) -> None:
    cluster = await given_cluster(keep, 2, 1)

    body = {"grow": {"instances": [MEMBER], "rebalance": True}}
    shown = (await keep.call("POST", f"/clusters/{cluster.id}", body)).json()["cluster"]

    assert [(one["name"], one["role"], one["shard"]) for one in shown["instances"]] == [
        ("c-member-5", "primary", "3"),
        ("c-member-6", "replica", "3"),
    ]
    assert (await keep.the_operation()).args["rebalance"] is True


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"grow": []}, 400),
        ({"grow": [{"volume": {"size": 2}}]}, 403),
        ({"grow": [{"flavorRef": 99, "volume": {"size": 2}}]}, 404),
        ({"grow": [{"flavorRef": 2}]}, 400),
        ({"grow": [{**MEMBER, "name": "c-member-1"}]}, 409),
        ({"grow": [MEMBER] * 100}, 413),
        ({"grow": [MEMBER], "shrink": [{"id": NOBODY}]}, 400),
        ({"fly": {}}, 400),
        ({}, 400),
        ([], 400),
        ({"add_shard": {}}, 400),
        ({"shrink": []}, 400),
        ({"shrink": [{"id": "malformed"}]}, 400),
        ({"rebalance": {"weights": {NOBODY: 2}}}, 404),
        ({"rebalance": {"pace": "reckless"}}, 400),
        ({"replicas": {"per_shard": -1}}, 400),
        ({"upgrade": {"datastore_version": "7.0"}}, 400),
        ({"upgrade": {"datastore_version": "6.2"}}, 400),
        ({"upgrade": {"datastore_version": "9.9"}}, 400),
        ({"configuration_attach": {"configuration_id": NOBODY}}, 404),
        ({"cancel": {}}, 422),
    ],
)
async def test_an_action_that_cannot_be_changes_nothing(keep: World, body: Any, code: int) -> None:
    cluster = await given_cluster(keep, 3)

    assert fault(await keep.call("POST", f"/clusters/{cluster.id}", body))[0] == code
    assert await cluster_row(keep, cluster.id) == cluster
    assert len(await members_of(keep, cluster.id)) == 3
    assert await keep.operations() == []


@pytest.mark.parametrize("task", [task for task in ClusterTask if task is not ClusterTask.NONE])
async def test_a_busy_cluster_is_left_alone(keep: World, task: ClusterTask) -> None:
    cluster = await given_cluster(keep, 2, task=task)
    one = (await members_of(keep, cluster.id))[0]

    bodies: list[Any] = [{"grow": [MEMBER]}, {"shrink": [{"id": one.id}]}, {"restart": {}}, {"rebalance": {}}]
    for body in bodies:
        code, name, message = fault(await keep.call("POST", f"/clusters/{cluster.id}", body))
        assert (code, name, message) == (422, "unprocessableEntity", f"{BUSY} '{task.value}'.")
    deleted = await keep.call("DELETE", f"/clusters/{cluster.id}")
    assert deleted.status_code == (202 if task is ClusterTask.DELETING else 422)
    assert await keep.operations() == []


async def test_a_cluster_that_was_never_formed_can_only_be_deleted(keep: World) -> None:
    cluster = await given_cluster(keep, 2, formed=False)

    assert fault(await keep.call("POST", f"/clusters/{cluster.id}", {"grow": [MEMBER]}))[0] == 422
    assert (await keep.call("DELETE", f"/clusters/{cluster.id}")).status_code == 202


# --- Shrink -------------------------------------------------------------------------------------------------------


async def test_members_without_slots_leave(keep: World) -> None:
    cluster = await given_cluster(keep, 3, 1)
    members = await members_of(keep, cluster.id)
    slots = {members[0].id: ((0, 8191),), members[1].id: ((8192, 16383),)}

    async with agents_say(keep, members, slots):
        answer = await keep.call("POST", f"/clusters/{cluster.id}", {"shrink": [{"id": members[2].id}]})

    assert answer.status_code == 202
    operation = await keep.the_operation()
    assert operation.kind is Kind.SHRINK_CLUSTER
    replica = next(one for one in members if one.shard == "3" and one.role is Role.REPLICA)
    assert set(operation.args["instances"]) == {members[2].id, replica.id}
    assert (await cluster_row(keep, cluster.id)).task is ClusterTask.SHRINKING_CLUSTER


async def test_holders_of_slots_stay_unless_they_are_drained(keep: World) -> None:
    cluster = await given_cluster(keep, 3)
    members = await members_of(keep, cluster.id)
    slots = {members[0].id: ((0, 8191),), members[1].id: ((8192, 16383),)}
    ids = [{"id": one.id} for one in members[1:]]

    async with agents_say(keep, members, slots):
        refused = fault(await keep.call("POST", f"/clusters/{cluster.id}", {"shrink": ids}))
        left = await keep.operations()
        drained = await keep.call("POST", f"/clusters/{cluster.id}", {"shrink": {"instances": ids, "drain": True}})

    assert refused[0] == 403
    assert "One or more nodes have data slots assigned: c-member-2." in refused[2]
    assert left == []
    assert drained.status_code == 202
    assert (await keep.the_operation()).args["drain"] is True


@pytest.mark.parametrize("half_way", ["migrating", "importing"])
async def test_a_member_with_a_slot_half_way_stays(keep: World, half_way: str) -> None:
    cluster = await given_cluster(keep, 2)
    members = await members_of(keep, cluster.id)
    marks = {half_way: ((7, members[1].node_id),)}

    async with agents_say(keep, members, {members[0].id: ((0, 16383),)}, **marks):
        answer = await keep.call("POST", f"/clusters/{cluster.id}", {"shrink": [{"id": members[1].id}]})

    assert fault(answer)[0] == 403


async def test_nobody_leaves_who_is_no_member(keep: World) -> None:
    cluster, other = await given_cluster(keep, 2), await given_cluster(keep, 1)
    alone = await keep.instance()
    members = await members_of(keep, cluster.id)
    (foreign,) = await members_of(keep, other.id)

    for name in (alone.id, foreign.id, NOBODY):
        ids = [{"id": members[1].id}, {"id": name}]
        async with agents_say(keep, members, {}):
            answer = await keep.call("POST", f"/clusters/{cluster.id}", {"shrink": ids})
        assert fault(answer)[::2] == (404, f"Instance {name} does not exist.")
    assert (await keep.row(alone.id)).status is Status.ACTIVE


async def test_somebody_stays(keep: World) -> None:
    cluster = await given_cluster(keep, 2)
    members = await members_of(keep, cluster.id)
    ids = [{"id": one.id} for one in members]

    async with agents_say(keep, members, {}):
        bodies: list[Any] = [{"shrink": ids}, {"shrink": {"instances": ids, "drain": True}}]
        for body in bodies:
            assert fault(await keep.call("POST", f"/clusters/{cluster.id}", body))[0] == 403


async def test_while_nobody_can_be_asked_nobody_leaves(keep: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redkeep.api.cluster_scene.LOOK_LIMIT", 0.05)
    cluster = await given_cluster(keep, 2)
    one = (await members_of(keep, cluster.id))[1]

    answer = await keep.call("POST", f"/clusters/{cluster.id}", {"shrink": [{"id": one.id}]})

    assert fault(answer)[0] == 503
    assert await cluster_row(keep, cluster.id) == cluster


# --- The others ---------------------------------------------------------------------------------------------------


async def test_a_cluster_is_deleted(keep: World) -> None:
    cluster = await given_cluster(keep, 2)

    answer = await keep.call("DELETE", f"/clusters/{cluster.id}")

    assert (answer.status_code, answer.content) == (202, b"")
    assert (await keep.the_operation()).kind is Kind.DELETE_CLUSTER
    shown = (await keep.call("GET", f"/clusters/{cluster.id}")).json()["cluster"]
    assert (shown["task"]["id"], {one["status"] for one in shown["instances"]}) == (3, {"SHUTDOWN"})
    assert (await keep.call("DELETE", f"/clusters/{cluster.id}")).status_code == 202
    assert len(await keep.operations()) == 1


@pytest.mark.parametrize(
    ("body", "kind", "task", "status"),
    [
        ({"rebalance": {}}, Kind.REBALANCE_CLUSTER, ClusterTask.UPDATING_CLUSTER, Status.ACTIVE),
        ({"restart": {}}, Kind.ROLL_CLUSTER, ClusterTask.RESTARTING_CLUSTER, Status.REBOOT),
        ({"replicas": {"per_shard": 0}}, Kind.CHANGE_REPLICAS, ClusterTask.SHRINKING_CLUSTER, Status.ACTIVE),
        ({"replicas": {"per_shard": 2}}, Kind.CHANGE_REPLICAS, ClusterTask.GROWING_CLUSTER, Status.ACTIVE),
    ],
)
async def test_what_else_is_done_with_a_cluster(
    keep: World, body: dict[str, Any], kind: Kind, task: ClusterTask, status: Status
) -> None:
    cluster = await given_cluster(keep, 2, 1)

    answer = await keep.call("POST", f"/clusters/{cluster.id}", body)

    assert answer.status_code == 202
    assert (await keep.the_operation()).kind is kind
    assert (await cluster_row(keep, cluster.id)).task is task
    assert {one.status for one in await members_of(keep, cluster.id)} - {Status.BUILD} == {status}


async def test_a_cluster_is_upgraded(keep: World) -> None:
    cluster = await given_cluster(keep, 2, version="6.2")

    answer = await keep.call("POST", f"/clusters/{cluster.id}", {"upgrade": {"datastore_version": "7.0"}})

    assert answer.json()["cluster"]["task"]["id"] == 7
    assert (await keep.the_operation()).args == {"version": "7.0"}
    assert {one.status for one in await members_of(keep, cluster.id)} == {Status.UPGRADE}


async def test_a_cluster_is_not_upgraded_to_what_a_host_has_not(keep: World) -> None:
    await keep.host("h1", "6.2")
    await keep.host("h2", "7.0")
    cluster = await given_cluster(keep, 2, version="6.2")

    answer = await keep.call("POST", f"/clusters/{cluster.id}", {"upgrade": {"datastore_version": "7.0"}})

    assert fault(answer)[0] == 400
    assert "Host h1" in fault(answer)[2]


async def test_a_configuration_group_is_that_of_all_members(keep: World) -> None:
    cluster = await given_cluster(keep, 2)
    async with keep.store.begin() as tx:
        await tx.save(
            Configuration(
                "11111111-1111-4111-8111-111111111111", keep.project, "fast", "7.0", 1.0, 1.0, (("hz", "50"),)
            )
        )
    body = {"configuration_attach": {"configuration_id": "11111111-1111-4111-8111-111111111111"}}

    answer = await keep.call("POST", f"/clusters/{cluster.id}", body)

    assert answer.status_code == 202
    assert {one.configuration_id for one in await members_of(keep, cluster.id)} == {
        "11111111-1111-4111-8111-111111111111"
    }
    operation = await keep.the_operation()
    assert (operation.kind, operation.args["parameters"]) == (Kind.CONFIGURE_CLUSTER, [["hz", "50"]])
    assert (await keep.call("DELETE", "/configurations/11111111-1111-4111-8111-111111111111")).status_code == 400


async def test_a_cluster_promises_what_redis_does_and_takes_no_other_durability(keep: World) -> None:
    key = "11111111-1111-4111-8111-111111111111"
    async with keep.store.begin() as tx:
        await tx.save(Configuration(key, keep.project, "safe", "7.0", 1.0, 1.0, (("redkeep-durability", "sync"),)))
    cluster = await given_cluster(keep, 2)
    attach = {"configuration_attach": {"configuration_id": key}}

    answer = await keep.call("POST", f"/clusters/{cluster.id}", attach)

    assert fault(answer)[0] == 400
    assert "redkeep-durability" in fault(answer)[2]
    assert await keep.operations() == []


async def test_a_change_of_a_configuration_group_reaches_its_clusters(keep: World) -> None:
    key = "11111111-1111-4111-8111-111111111111"
    async with keep.store.begin() as tx:
        await tx.save(Configuration(key, keep.project, "fast", "7.0", 1.0, 1.0, (("hz", "50"),)))
    cluster = await given_cluster(keep, 2, configuration_id=key)

    await keep.call("PATCH", f"/configurations/{key}", {"configuration": {"values": {"hz": 20}}})

    operation = await keep.the_operation()
    assert (operation.kind, operation.group_id) == (Kind.CONFIGURE_CLUSTER, cluster.id)
    assert operation.args["parameters"] == [["hz", "20"]]


async def test_the_administrator_resets_a_task_and_may_delete_then(keep: World) -> None:
    made = (await keep.call("POST", "/clusters", order())).json()["cluster"]

    assert (await keep.call("POST", f"/clusters/{made['id']}", {"reset-status": {}})).status_code == 202

    shown = (await keep.call("GET", f"/clusters/{made['id']}")).json()["cluster"]
    assert shown["task"]["name"] == "NONE"
    assert "reset" in shown["fault"]["message"]
    (operation,) = await keep.operations()
    assert operation.deadline <= operation.created + 60
    assert (await keep.call("DELETE", f"/clusters/{made['id']}")).status_code == 202


async def test_primaries_that_are_lost_are_replaced_on_the_administrators_word(keep: World) -> None:
    """FAULTS 28: a majority is lost, so the members elect nobody, and whether they are dead cannot be known."""
    cluster = await given_cluster(keep, 2, 1)
    members = await members_of(keep, cluster.id)
    lost = next(one for one in members if one.role is Role.PRIMARY)
    replica = next(one for one in members if one.role is Role.REPLICA)
    path = f"/clusters/{cluster.id}"
    for who, code in ((replica.id, 409), (str(uuid4()), 404)):
        refused = await keep.call("POST", path, {"take_over": {"instances": [lost.id, who]}})
        assert refused.status_code == code
    assert await keep.operations() == []

    answer = await keep.call("POST", path, {"take_over": {"instances": [lost.id]}})

    assert answer.status_code == 202
    operation = await keep.the_operation()
    assert (operation.kind, operation.args["instances"], operation.args["force"]) == (
        Kind.FAIL_OVER_SHARD,
        [lost.id],
        True,
    )
    again = await keep.call("POST", path, {"take_over": {"instances": [lost.id]}})
    assert again.status_code == 422
    assert len(await keep.operations()) == 1


async def test_moving_slots_can_be_cancelled(keep: World) -> None:
    cluster = await given_cluster(keep, 2)
    await keep.call("POST", f"/clusters/{cluster.id}", {"rebalance": {}})
    before = await keep.the_operation()

    answer = await keep.call("POST", f"/clusters/{cluster.id}", {"cancel": {}})

    assert answer.status_code == 202
    assert (await keep.the_operation()).deadline < before.deadline


async def test_a_cluster_counts_against_the_quota_of_its_project(tmp_path: Path) -> None:
    async with world(tmp_path, max_instances=5) as keep:
        await keep.host()
        cluster = await given_cluster(keep, 3)

        too_many = await keep.call("POST", f"/clusters/{cluster.id}", {"grow": [MEMBER] * 3})

        assert fault(too_many)[::2] == (413, "Quota exceeded for resources: ['instances'].")
        assert await cluster_row(keep, cluster.id) == cluster
        assert (await keep.call("POST", f"/clusters/{cluster.id}", {"grow": [MEMBER] * 2})).status_code == 202


async def test_progress_is_shown(keep: World) -> None:
    cluster = await given_cluster(keep, 2)
    await keep.call("POST", f"/clusters/{cluster.id}", {"rebalance": {}})
    async with keep.store.begin() as tx:
        (operation,) = await tx.open_operations()
        await tx.save(replace(operation, progress=0.5, step="move"))

    shown = (await keep.call("GET", f"/clusters/{cluster.id}")).json()["cluster"]

    assert (shown["progress"], shown["progress_detail"]) == (0.5, "move")

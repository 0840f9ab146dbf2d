"""Backups over REST: rows that are given, a call, the exact answer and what it left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.contract.api_world import World, fault, finish, world

from redkeep.model.backup import Backup, BackupStatus
from redkeep.model.instance import Status
from redkeep.model.operation import Kind

GIB = 2**30
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.host()
        yield made


async def given(keep: World, **more: Any) -> Backup:
    """A backup as the managers leave it."""
    instance = await keep.instance()
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "project_id": keep.project,
        "name": "nightly",
        "instance_id": instance.id,
        "group_id": instance.group_id,
        "version": "7.0",
        "created": 1_700_000_000.0,
        "updated": 1_700_000_060.0,
        "status": BackupStatus.COMPLETED,
        "size_bytes": GIB // 2,
        "sha256": "00ff",
        "memory_bytes": 100 * 2**20,
        "location": "file://h1/srv/b/1.rdb",
        "member_id": instance.id,
        "replication_id": "8cd7",
        "offset": 1234,
    }
    backup = Backup(**(values | more))
    async with keep.store.begin() as tx:
        await tx.save(backup)
    return backup


async def row(keep: World, backup_id: str) -> Backup:
    async with keep.store.read() as tx:
        backup = await tx.backup(backup_id)
    assert backup is not None
    return backup


def order(instance_id: str, **more: Any) -> dict[str, Any]:
    return {"backup": {"name": "nightly", "instance": instance_id, "incremental": 0} | more}


# --- Ordering


async def test_a_backup_is_recorded_answered_and_poked(keep: World) -> None:
    one = await keep.instance()

    answer = await keep.call("POST", "/backups", order(one.id, description="before the move"))

    shown, operation = answer.json()["backup"], await keep.the_operation()
    assert answer.status_code == 202
    assert (shown["status"], shown["instance_id"], shown["description"]) == ("NEW", one.id, "before the move")
    assert (shown["size"], shown["parent_id"], shown["datastore"]["version"]) == (0, "", "7.0")
    assert (operation.kind, operation.args) == (Kind.CREATE_BACKUP, {"backup": shown["id"], "instance": one.id})
    assert (await keep.row(one.id)).status is Status.BACKUP
    assert keep.bus.published == [("hints", {"group": one.group_id})]
    assert [(event.kind, event.instance_id) for event in await keep.events()] == [("create_backup.requested", one.id)]


async def test_only_the_named_instance_shows_that_it_is_backed_up(keep: World) -> None:
    source = await keep.instance()
    replica = await keep.instance(of=source)

    assert (await keep.call("POST", "/backups", order(replica.id))).status_code == 202

    shown = (await keep.call("GET", f"/instances/{replica.id}")).json()["instance"]
    assert (shown["status"], shown["operating_status"]) == ("BACKUP", "HEALTHY")
    assert (await keep.row(source.id)).status is Status.ACTIVE
    assert fault(await keep.call("DELETE", f"/instances/{replica.id}"))[0] == 422


@pytest.mark.parametrize("status", [Status.BUILD, Status.BACKUP, Status.REBOOT, Status.ERROR, Status.SHUTDOWN])
async def test_an_instance_that_is_not_ready_is_not_backed_up(keep: World, status: Status) -> None:
    one = await keep.instance(status)

    assert fault(await keep.call("POST", "/backups", order(one.id)))[:2] == (422, "unprocessableEntity")
    assert await keep.operations() == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"instance": NOBODY}, 404, "cannot be found"),
        ({"instance": None}, 400, "the id of the instance is required"),
        ({"instance": "no-id"}, 400, "backup.instance"),
        ({"name": ""}, 400, "backup.name"),
        ({"name": "\n"}, 400, "backup.name"),
        ({"description": "x" * 1025}, 400, "backup.description"),
        ({"incremental": 1}, 501, "incremental"),
        ({"parent_id": NOBODY}, 501, "parent_id"),
        ({"storage_driver": "cinder"}, 501, "storage_driver"),
        ({"swift_container": "c"}, 501, "swift_container"),
        ({"restore_from": {"remote_location": "x"}}, 501, "restore_from"),
    ],
)
async def test_a_wrong_order_is_refused_and_leaves_no_trace(
    keep: World, change: dict[str, Any], code: int, words: str
) -> None:
    one = await keep.instance()

    answer = await keep.call("POST", "/backups", order(one.id, **change))

    assert fault(answer)[0] == code
    assert words in fault(answer)[2]
    assert (await keep.row(one.id)).status is Status.ACTIVE
    assert (await keep.call("GET", "/backups")).json() == {"backups": []}


async def test_the_quota_counts_backups_that_are_not_deleted(tmp_path: Path) -> None:
    async with world(tmp_path, max_backups=1) as keep:
        await given(keep, status=BackupStatus.DELETED)
        one, two = await keep.instance(), await keep.instance()

        assert (await keep.call("POST", "/backups", order(one.id))).status_code == 202
        assert fault(await keep.call("POST", "/backups", order(two.id))) == (
            413,
            "overLimit",
            "Quota exceeded for resources: ['backups'].",
        )


# --- Looking


async def test_a_backup_is_shown_as_the_clients_expect_it(keep: World) -> None:
    backup = await given(keep)

    shown = (await keep.call("GET", f"/backups/{backup.id}")).json()["backup"]

    version = shown["datastore"].pop("version_id")
    assert shown == {
        "id": backup.id,
        "name": "nightly",
        "description": "",
        "instance_id": backup.instance_id,
        "parent_id": "",
        "status": "COMPLETED",
        "size": 0.5,
        "size_bytes": GIB // 2,
        "checksum": "00ff",
        "created": "2023-11-14T22:13:20",
        "updated": "2023-11-14T22:14:20",
        "datastore": {"type": "redis", "version": "7.0"},
        "project_id": "demo",
        "replication_id": "8cd7",
        "replication_offset": 1234,
        "locationRef": "file://h1/srv/b/1.rdb",
    }
    assert (await keep.call("GET", f"/datastores/versions/{version}")).json()["version"]["name"] == "7.0"


@pytest.mark.parametrize("status", [BackupStatus.FAILED, BackupStatus.DELETE_FAILED])
async def test_one_that_failed_says_why(keep: World, status: BackupStatus) -> None:
    backup = await given(keep, status=status, fault="the disk was full")

    shown = (await keep.call("GET", f"/backups/{backup.id}")).json()["backup"]

    assert (shown["status"], shown["fault"]) == (status, "the disk was full")


async def test_what_is_not_the_projects_own_cannot_be_found(keep: World) -> None:
    foreign = await given(keep, project_id="other")
    gone = await given(keep, status=BackupStatus.DELETED)

    for backup_id in (foreign.id, gone.id, NOBODY, "nightly"):
        for method in ("GET", "DELETE"):
            assert fault(await keep.call(method, f"/backups/{backup_id}"))[:2] == (404, "itemNotFound")
    assert (await keep.call("GET", "/backups")).json() == {"backups": []}


async def test_lists_are_filtered_and_come_in_pages(keep: World) -> None:
    one, two, three = [await given(keep, created=float(number)) for number in (1, 2, 3)]
    foreign = await given(keep, project_id="other", created=4.0)

    async def listed(query: str = "") -> list[str]:
        return [each["id"] for each in (await keep.call("GET", f"/backups{query}")).json()["backups"]]

    assert await listed() == [three.id, two.id, one.id]
    assert await listed(f"?instance_id={two.instance_id}") == [two.id]
    assert await listed("?datastore=redis&all_projects=True") == [foreign.id, three.id, two.id, one.id]
    assert await listed("?project_id=other") == [foreign.id]
    assert fault(await keep.call("GET", "/backups?datastore=mysql"))[0] == 404
    of_instance = (await keep.call("GET", f"/instances/{two.instance_id}/backups")).json()["backups"]
    assert [each["id"] for each in of_instance] == [two.id]
    assert fault(await keep.call("GET", f"/instances/{NOBODY}/backups"))[0] == 404

    first = (await keep.call("GET", "/backups?limit=2")).json()
    marker = first["links"][0]["href"].split("marker=")[1]
    second = await listed(f"?limit=2&marker={marker}")
    assert sorted([*(each["id"] for each in first["backups"]), *second]) == sorted([one.id, two.id, three.id])
    assert fault(await keep.call("GET", "/backups?limit=0"))[0] == 400


# --- Deleting


@pytest.mark.parametrize("status", [BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.DELETE_FAILED])
async def test_deleting_is_recorded_once(keep: World, status: BackupStatus) -> None:
    backup = await given(keep, status=status)

    answers = [await keep.call("DELETE", f"/backups/{backup.id}") for _ in range(2)]

    operation = await keep.the_operation()
    assert [(answer.status_code, answer.content) for answer in answers] == [(202, b"")] * 2
    assert (operation.kind, operation.args) == (Kind.DELETE_BACKUP, {"backup": backup.id})
    assert (await row(keep, backup.id)).status is BackupStatus.DELETING


@pytest.mark.parametrize("status", [BackupStatus.NEW, BackupStatus.BUILDING])
async def test_one_that_is_being_made_is_not_deleted(keep: World, status: BackupStatus) -> None:
    backup = await given(keep, status=status)

    code, _, message = fault(await keep.call("DELETE", f"/backups/{backup.id}"))

    assert (code, "is running" in message) == (422, True)
    assert await row(keep, backup.id) == backup


async def test_one_that_is_being_restored_is_not_deleted_until_that_is_done(keep: World) -> None:
    backup = await given(keep)
    await keep.call("POST", "/instances", {"instance": restoring(backup)})

    refused = await keep.call("DELETE", f"/backups/{backup.id}")
    await finish(keep.store)
    later = await keep.call("DELETE", f"/backups/{backup.id}")

    assert fault(refused)[0] == 422
    assert later.status_code == 202


# --- Restoring


def restoring(backup: Backup, **more: Any) -> dict[str, Any]:
    return {"name": "copy", "flavorRef": 1, "volume": {"size": 1}, "restorePoint": {"backupRef": backup.id}} | more


async def test_an_instance_is_ordered_from_a_backup_and_has_its_version(keep: World) -> None:
    backup = await given(keep, version="6.2")

    answer = await keep.call("POST", "/instances", {"instance": restoring(backup)})

    made, operation = answer.json()["instance"], await keep.the_operation()
    assert answer.status_code == 200
    assert made["datastore"]["version"] == "6.2"
    assert (operation.kind, operation.args) == (Kind.CREATE_INSTANCE, {"instance": made["id"], "backup": backup.id})
    assert operation.deadline > operation.created + 3600


@pytest.mark.parametrize(
    ("backup", "change", "code", "words"),
    [
        ({"memory_bytes": 129 * 2**20}, {}, 403, "129 MB of memory, flavor 1 has 128 MB"),
        ({"size_bytes": GIB + 1}, {}, 403, "2 GB, the volume 1 GB"),
        ({"status": BackupStatus.FAILED}, {}, 422, "FAILED, not COMPLETED"),
        ({"status": BackupStatus.BUILDING}, {}, 422, "BUILDING, not COMPLETED"),
        ({"status": BackupStatus.DELETING}, {}, 422, "DELETING, not COMPLETED"),
        ({"status": BackupStatus.DELETED}, {}, 404, "cannot be found"),
        ({"project_id": "other"}, {}, 404, "cannot be found"),
        ({}, {"datastore": {"type": "redis", "version": "6.2"}}, 400, "which Redis 6.2 cannot read"),
        ({}, {"datastore": {"type": "mysql"}}, 404, "Datastore"),
        ({}, {"replica_of": NOBODY}, 400, "exclude each other"),
        ({"location": "file://h9/srv/b/1.rdb"}, {}, 422, "on host h9"),
    ],
)
async def test_what_cannot_be_restored_is_refused_before_anything_is_made(
    keep: World, backup: dict[str, Any], change: dict[str, Any], code: int, words: str
) -> None:
    given_one = await given(keep, **backup)

    answer = await keep.call("POST", "/instances", {"instance": restoring(given_one, **change)})

    assert fault(answer)[0] == code
    assert words in fault(answer)[2]
    assert await keep.operations() == []


async def test_another_project_sees_nothing_of_all_that(tmp_path: Path) -> None:
    async with world(tmp_path) as keep:
        await keep.host()
        backup = await given(keep, project_id="other")

        answer = await keep.call("POST", "/instances", {"instance": restoring(backup)})

        assert fault(answer)[:2] == (404, "itemNotFound")

"""Backups: list, show, order, delete, and what it takes to restore one. What is asked for is recorded; the managers
have the agents do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated
from uuid import uuid4

from fastapi import Path, Query, Response

from redkeep.api import views
from redkeep.api.call import Call, InstanceId, ThisCall, accepted
from redkeep.api.catalogue import DATASTORE_NAME, check_datastore
from redkeep.api.catalogue import version_of as catalogue_version
from redkeep.api.pages import Limit, Marker, next_page, page_of
from redkeep.api.record import Scene, alone, demand, is_id, look, moved, owned, poke, record, wanted
from redkeep.api.schemas import (
    BackupDatastore,
    BackupList,
    BackupOrder,
    BackupReply,
    BackupView,
    CreateBackup,
    DatastoreOrder,
    RestorePoint,
)
from redkeep.decide import backups as rules
from redkeep.decide import lifecycle
from redkeep.errors import Refused
from redkeep.model.backup import Backup, BackupStatus
from redkeep.model.instance import Instance, Status
from redkeep.model.operation import Kind, Operation
from redkeep.ports import Transaction

BackupId = Annotated[str, Path(alias="backup_id", min_length=1, description="The id of a backup")]
OfInstance = Annotated[str | None, Query(max_length=255, description="Only those of this instance")]
OfDatastore = Annotated[str | None, Query(max_length=255, description="Only those of this datastore")]
AllProjects = Annotated[bool, Query(description="Those of all projects; the administrator only")]
OfProject = Annotated[str | None, Query(max_length=64, description="Those of this project; the administrator only")]


# --- Looking ------------------------------------------------------------------------------------------------------


async def index(
    call: ThisCall,
    limit: Limit = None,
    marker: Marker = None,
    instance_id: OfInstance = None,
    datastore: OfDatastore = None,
    all_projects: AllProjects = False,
    project_id: OfProject = None,
) -> BackupList:
    """The project's backups, newest first."""
    project = _whose(call, all_projects, project_id)
    if datastore:
        check_datastore(datastore)
    async with call.context.store.read() as tx:
        found = await tx.backups(project_id=project, instance_id=instance_id)
    return _page(call, found, limit, marker)


async def index_of_instance(
    call: ThisCall, instance_id: InstanceId, limit: Limit = None, marker: Marker = None
) -> BackupList:
    """The backups of one instance, newest first."""
    async with call.context.store.read() as tx:
        instance = await owned(tx, call, instance_id)
        found = await tx.backups(project_id=call.project_id, instance_id=instance.id)
    return _page(call, found, limit, marker)


async def show(call: ThisCall, backup_id: BackupId) -> BackupReply:
    """One backup."""
    async with call.context.store.read() as tx:
        backup = await find(tx, call, backup_id)
    return BackupReply(backup=view(backup, call))


async def find(tx: Transaction, call: Call, backup_id: str, *, lock: bool = False) -> Backup:
    """A backup of the caller's project. Raises Refused (kind `missing`) for everything else."""
    wanted_id = backup_id.lower()
    backup = await tx.backup(wanted_id, lock=lock) if is_id(wanted_id) else None
    if backup is None or backup.status is BackupStatus.DELETED or backup.project_id != call.project_id:
        raise Refused(f"Backup {backup_id[:64]} cannot be found.", kind="missing")
    return backup


def view(backup: Backup, call: Call) -> BackupView:
    """A backup as its owner sees it. Where it lies is the operator's business."""
    return BackupView(
        id=backup.id,
        name=backup.name,
        description=backup.description,
        instance_id=backup.instance_id,
        status=backup.status,
        size=round(backup.size_bytes / lifecycle.GIGABYTE, 6),
        size_bytes=backup.size_bytes,
        checksum=backup.sha256 or None,
        created=views.timestamp(backup.created),
        updated=views.timestamp(backup.updated),
        datastore=BackupDatastore(
            type=DATASTORE_NAME, version=backup.version, version_id=catalogue_version(backup.version).id
        ),
        project_id=backup.project_id,
        fault=backup.fault or None,
        replication_id=backup.replication_id or None,
        replication_offset=backup.offset if backup.offset >= 0 else None,
        locationRef=backup.location if backup.location and call.caller.is_admin else None,
    )


def _whose(call: Call, all_projects: bool, project_id: str | None) -> str | None:
    """Whose are listed; None: everybody's. Raises Refused for what only the administrator may see."""
    if not all_projects and project_id in (None, call.project_id):
        return call.project_id
    if not call.caller.is_admin:
        raise Refused("Only the administrator may list the backups of other projects.", kind="forbidden")
    return project_id


def _page(call: Call, found: Sequence[Backup], limit: int | None, marker: str | None) -> BackupList:
    most = call.context.settings.page_size
    page, more = page_of(found, marker or "", min(limit or most, most))
    return BackupList(backups=[view(one, call) for one in page], links=[next_page(call, more)] if more else None)


# --- Ordering -----------------------------------------------------------------------------------------------------


async def create(call: ThisCall, body: CreateBackup) -> BackupReply:
    """Order a backup of an instance."""
    order = body.backup
    if order.unoffered:
        raise Refused(
            f"Redkeep makes whole backups of instances alone: no {', '.join(order.unoffered)}.", kind="unsupported"
        )
    if order.instance is None:
        raise Refused("backup.instance: the id of the instance is required.")
    async with call.context.store.begin() as tx:
        scene = await look(tx, call, order.instance, lock=True)
        verdict = demand(lifecycle.may_back_up(alone(scene.instance)))
        await _quota_allows(tx, call)
        backup = _ordered(scene, order)
        rows: list[Backup | Instance] = [backup, *moved(scene.members, verdict.members, Status.BACKUP, scene.now)]
        args = {"backup": backup.id, "instance": scene.instance.id}
        await record(tx, call, Kind.CREATE_BACKUP, args, about=scene.instance, rows=rows, now=scene.now)
    await poke(call.context, scene.group.id)
    return BackupReply(backup=view(backup, call))


async def delete(call: ThisCall, backup_id: BackupId) -> Response:
    """Delete a backup."""
    async with call.context.store.begin() as tx:
        backup = await find(tx, call, backup_id, lock=True)
        if wanted(rules.may_delete(backup, restoring(await tx.open_operations()))) is None:
            return accepted()
        now = await tx.now()
        rows = [replace(backup, status=BackupStatus.DELETING, updated=now)]
        args = {"backup": backup.id}
        await record(tx, call, Kind.DELETE_BACKUP, args, about=backup, rows=rows, now=now)
    await poke(call.context, backup.group_id)
    return accepted()


def restoring(operations: Iterable[Operation]) -> frozenset[str]:
    """Backups that instances are being made from."""
    return frozenset(
        str(one.args["backup"]) for one in operations if one.kind is Kind.CREATE_INSTANCE and "backup" in one.args
    )


async def ordered(tx: Transaction, call: Call, point: RestorePoint | None) -> Backup | None:
    """The backup that an instance is to be made from. Until the block ends nobody begins to delete it."""
    return await find(tx, call, point.backupRef, lock=True) if point else None


def version_of(backup: Backup | None, order: DatastoreOrder | None) -> str | None:
    """The version of the backup, where there is one and the order names none."""
    if backup is None or (order and (order.version or order.version_number)):
        return None
    if order and order.type:
        check_datastore(order.type)
    return backup.version


def _ordered(scene: Scene, order: BackupOrder) -> Backup:
    return Backup(
        id=str(uuid4()),
        project_id=scene.instance.project_id,
        name=order.name,
        description=order.description or "",
        instance_id=scene.instance.id,
        group_id=scene.group.id,
        version=scene.instance.version,
        created=scene.now,
        updated=scene.now,
    )


async def _quota_allows(tx: Transaction, call: Call) -> None:
    has = len(await tx.backups(project_id=call.project_id))
    if has >= call.context.settings.max_backups:
        raise Refused("Quota exceeded for resources: ['backups'].", kind="too_large")

"""Intentions on record: what every change has in common, whatever it changes.

A change is one transaction: rows, an operation that says what is to be done, an event that says who asked for it. The
status of the rows is the lock: it has moved before anyone else can look. Afterwards the managers are poked; they would
find the operation without that, a little later.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from redkeep.api.call import Call, Context
from redkeep.decide.clusters import MEMBER_OF_A_CLUSTER
from redkeep.decide.lifecycle import Allowed, Refusal, UnderWay
from redkeep.errors import OutcomeUnknown, Refused, Unavailable
from redkeep.model.backup import Backup
from redkeep.model.cluster import Cluster
from redkeep.model.instance import Event, Group, Instance, Secrets, Status
from redkeep.model.operation import Kind, Operation
from redkeep.orders import HINTS
from redkeep.ports import Transaction
from redkeep.vault import new_password

log = logging.getLogger(__name__)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Scene:
    """An instance and all that the rules need to see around it, at one moment."""

    instance: Instance
    group: Group
    members: tuple[Instance, ...]
    """Everyone in the group, the instance included."""
    now: float

    @property
    def replica_ids(self) -> list[str]:
        return [one.id for one in self.members if one.replica_of == self.instance.id]


def is_id(key: str) -> bool:
    """Whether it has the form of our ids; nothing is found by anything else."""
    return bool(_UUID.fullmatch(key))


async def owned(tx: Transaction, call: Call, instance_id: str) -> Instance:
    """An instance of the caller's project.

    Raises Refused (kind `missing`) for everything else, be it somebody else's, deleted, or no id at all: the clients
    try names as ids first, and go on to look for the name only after that.
    """
    wanted = instance_id.lower()
    instance = await tx.instance(wanted) if is_id(wanted) else None
    if instance is None or instance.deleted or instance.project_id != call.project_id:
        raise Refused(f"Instance {instance_id[:64]} cannot be found.", kind="missing")
    return instance


async def look(tx: Transaction, call: Call, instance_id: str, *, lock: bool = False) -> Scene:
    """The scene around an instance; with `lock`, which is for changes, nobody else changes it until the transaction
    ends. Raises Refused."""
    found = await owned(tx, call, instance_id)
    group = await tx.group(found.group_id, lock=lock)
    if lock:
        await demand_thawed(tx, call)
    members = tuple(await tx.instances(group_id=found.group_id))
    # Taken from what was read under the lock: it may have gone while we waited for it.
    instance = next((one for one in members if one.id == found.id), None)
    if group is None or instance is None:
        raise Refused(f"Instance {found.id} cannot be found.", kind="missing")
    return Scene(instance, group, members, await tx.now())


async def demand_thawed(tx: Transaction, call: Call) -> None:
    """No freeze of the backend keeps changes away, or comes before this transaction ends. Raises Refused."""
    backend = call.context.settings.backend
    if await tx.frozen(backend):
        text = f"Modification operations are not allowed on frozen storage backends: {backend} is, until it is thawed."
        raise Refused(text, kind="conflict")


def alone(instance: Instance) -> Instance:
    """One that is no member of a cluster: what is done with those is done with the cluster. Raises Refused."""
    if instance.shard is not None:
        raise Refused(MEMBER_OF_A_CLUSTER, kind="unsupported")
    return instance


def demand(verdict: Allowed | Refusal) -> Allowed:
    """Go on only when the rules allow it. Raises Refused."""
    if isinstance(verdict, Refusal):
        raise Refused(verdict.message, kind=verdict.kind)
    return verdict


def wanted(verdict: Allowed | UnderWay | Refusal) -> Allowed | None:
    """As `demand`; None when it is under way already."""
    return None if isinstance(verdict, UnderWay) else demand(verdict)


def moved(members: Iterable[Instance], ids: Collection[str], status: Status, now: float) -> tuple[Instance, ...]:
    """Those of the members that the operation takes, with the status that keeps others away."""
    return tuple(replace(one, status=status, updated=now) for one in members if one.id in ids)


async def record(
    tx: Transaction,
    call: Call,
    kind: Kind,
    args: Mapping[str, Any],
    *,
    about: Instance | Backup | Cluster,
    rows: Iterable[Group | Instance | Backup | Cluster],
    now: float,
    limit: float | None = None,
) -> Operation:
    """Save the rows, the operation and the event of one change. `limit`: seconds, where not those of the settings."""
    await demand_thawed(tx, call)
    operation = Operation(
        id=str(uuid4()),
        group_id=_group_of(about),
        kind=kind,
        created=now,
        args=args,
        deadline=now + (limit or call.context.settings.time_limits[kind]),
        requested_by=call.caller.name,
    )
    await tx.save(*rows, operation)
    await tx.record(event(call, f"{kind}.requested", f"{kind.replace('_', ' ')}: {about.name}", about, now, operation))
    return operation


def group_apart(call: Call, scene: Scene) -> Group:
    """A new group, empty yet, for one that leaves this one: secrets of its own, the users as they are now."""
    vault = call.context.vault
    return Group(
        id=str(uuid4()),
        project_id=scene.group.project_id,
        secrets=Secrets(admin=vault.seal(new_password()), replication=vault.seal(new_password())),
        primary_id=None,
        users=scene.group.users,
        root_enabled=scene.group.root_enabled,
        durability=scene.group.durability,
    )


def event(
    call: Call,
    kind: str,
    text: str,
    about: Instance | Backup | Cluster,
    now: float,
    operation: Operation | None = None,
) -> Event:
    """Who asked for what."""
    return Event(
        at=now,
        kind=kind,
        text=text,
        project_id=about.project_id,
        group_id=_group_of(about),
        instance_id=_instance_of(about),
        operation_id=operation.id if operation else None,
        actor=call.caller.name,
    )


def _group_of(about: Instance | Backup | Cluster) -> str:
    return about.id if isinstance(about, Cluster) else about.group_id


def _instance_of(about: Instance | Backup | Cluster) -> str | None:
    if isinstance(about, Cluster):
        return None
    return about.id if isinstance(about, Instance) else about.instance_id


async def poke(context: Context, group_id: str) -> None:
    """Have a manager look now. That it fails matters to nobody: the managers look anyway."""
    try:
        async with asyncio.timeout(context.settings.poke_timeout_seconds):
            await context.bus.publish(HINTS, {"group": group_id})
    except (Unavailable, OutcomeUnknown, TimeoutError) as error:
        log.warning("no hint about group %s: %r", group_id, error)

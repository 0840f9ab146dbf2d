"""What `POST /instances/{id}/action` can do: one function each, found by the name in the body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Response

from redkeep.api.call import Call, InstanceId, ThisCall, accepted
from redkeep.api.catalogue import ordered_flavor
from redkeep.api.ordering import quota_allows
from redkeep.api.record import Scene, alone, demand, event, group_apart, look, moved, poke, record
from redkeep.api.schemas import Action
from redkeep.decide import lifecycle
from redkeep.decide.lifecycle import Amount
from redkeep.errors import Refused
from redkeep.model.instance import Fault, Status
from redkeep.model.operation import Kind
from redkeep.ports import Transaction


@dataclass(frozen=True, slots=True)
class Intent:
    """What an action comes down to: an operation, and the status of those that it takes."""

    kind: Kind
    args: Mapping[str, Any]
    status: Status
    members: tuple[str, ...]


async def act(call: ThisCall, instance_id: InstanceId, body: Action) -> Response:
    """Restart, resize, promote, eject, or reset the status of an instance."""
    async with call.context.store.begin() as tx:
        scene = await look(tx, call, instance_id, lock=True)
        alone(scene.instance)
        intent = await ACTIONS[body.asked](tx, call, scene, body)
        if intent:
            rows = moved(scene.members, intent.members, intent.status, scene.now)
            await record(tx, call, intent.kind, intent.args, about=scene.instance, rows=rows, now=scene.now)
    await poke(call.context, scene.group.id)
    return accepted()


async def _restart(_tx: Transaction, _call: Call, scene: Scene, body: Action) -> Intent:
    if body.restart.rolling:
        all_of_them = demand(lifecycle.may_roll(scene.instance, scene.members))
        return Intent(Kind.ROLL_GROUP, {"instance": scene.instance.id}, Status.REBOOT, all_of_them.members)
    verdict = demand(lifecycle.may_restart(scene.instance))
    return Intent(Kind.RESTART_INSTANCE, {"instance": scene.instance.id}, Status.REBOOT, verdict.members)


async def _resize(tx: Transaction, call: Call, scene: Scene, body: Action) -> Intent:
    """A source takes its replicas along."""
    settings, instance = call.context.settings, scene.instance
    flavor = ordered_flavor(settings, body.resize.flavorRef) if body.resize.flavorRef is not None else None
    volume_gb = body.resize.volume.size if body.resize.volume else None
    verdict = demand(
        lifecycle.may_resize(instance, scene.members, settings.flavors, flavor=flavor, volume_gb=volume_gb)
    )
    old = settings.flavor(instance.flavor_id)
    more = Amount(
        ram_mb=len(verdict.members) * (flavor.ram_mb - (old.ram_mb if old else 0)) if flavor else 0,
        volume_gb=len(verdict.members) * (volume_gb - instance.volume_gb) if volume_gb else 0,
    )
    demand(await quota_allows(tx, call, more))
    if volume_gb:
        demand(lifecycle.may_place(instance.version, volume_gb, await tx.hosts()))
    args: dict[str, Any] = {"instance": instance.id}
    args |= {"flavor": flavor.id} if flavor else {}
    args |= {"volume_gb": volume_gb} if volume_gb else {}
    return Intent(Kind.RESIZE_INSTANCE, args, Status.RESIZE, verdict.members)


async def _promote(_tx: Transaction, _call: Call, scene: Scene, _body: Action) -> Intent:
    verdict = demand(lifecycle.may_promote(scene.instance, scene.members))
    return Intent(Kind.PROMOTE_REPLICA, {"instance": scene.instance.id}, Status.PROMOTE, verdict.members)


async def _eject(tx: Transaction, call: Call, scene: Scene, body: Action) -> Intent:
    """The source goes into a group of its own, made here and filled by the runbook."""
    seen = next((host.seen_at for host in await tx.hosts() if host.id == scene.instance.host_id), None)
    verdict = demand(
        lifecycle.may_eject(
            scene.instance,
            scene.members,
            heartbeat_age=None if seen is None else scene.now - seen,
            expiry=call.context.settings.heartbeat_expiry_seconds,
        )
    )
    group = group_apart(call, scene)
    await tx.save(group)
    args = {"instance": scene.instance.id, "group": group.id, "force": body.eject_replica_source.force}
    return Intent(Kind.EJECT_PRIMARY, args, Status.EJECT, verdict.members)


async def _pause_failover(tx: Transaction, call: Call, scene: Scene, _body: Action) -> None:
    await _set_paused(tx, call, scene, paused=True)


async def _resume_failover(tx: Transaction, call: Call, scene: Scene, _body: Action) -> None:
    await _set_paused(tx, call, scene, paused=False)


async def _set_paused(tx: Transaction, call: Call, scene: Scene, *, paused: bool) -> None:
    if scene.group.paused == paused:
        return
    await tx.save(replace(scene.group, paused=paused))
    text = f"automatic failover of {scene.instance.name}'s group is {'paused' if paused else 'on again'}"
    await tx.record(event(call, "failover.paused" if paused else "failover.resumed", text, scene.instance, scene.now))


async def _reset_status(tx: Transaction, call: Call, scene: Scene, _body: Action) -> None:
    """The administrator's way out of a status that does not end.

    While operations of the group are open they are told that their time is over: whoever works on one gives it up in
    order, which settles the status. Without any, nobody owns the status, and it becomes ERROR at once.
    """
    if not call.caller.is_admin:
        raise Refused("Only the administrator may reset a status.", kind="forbidden")
    if scene.instance.status.settled:
        return
    operations = await tx.open_operations(group_id=scene.group.id)
    overdue = [replace(one, deadline=min(one.deadline, scene.now)) for one in operations]
    text = f"reset the status of {scene.instance.name}, which was {scene.instance.status}"
    if overdue:
        await tx.save(*overdue)
    else:
        fault = Fault(f"{call.caller.name} {text}", scene.now)
        await tx.save(replace(scene.instance, status=Status.ERROR, fault=fault, updated=scene.now))
    await tx.record(event(call, "instance.status_reset", text, scene.instance, scene.now))


ACTIONS: Mapping[str, Callable[[Transaction, Call, Scene, Action], Awaitable[Intent | None]]] = {
    "restart": _restart,
    "resize": _resize,
    "promote_to_replica_source": _promote,
    "eject_replica_source": _eject,
    "pause_failover": _pause_failover,
    "resume_failover": _resume_failover,
    "reset_status": _reset_status,
}

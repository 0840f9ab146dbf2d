"""Instances: list, show, order, rename, delete. What is asked for is recorded; the managers do it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated
from uuid import uuid4

from fastapi import Query, Response

from redkeep.api import backups, configurations, replication, views
from redkeep.api.call import Call, InstanceId, ThisCall, accepted
from redkeep.api.catalogue import find_version, ordered_flavor, ordered_version
from redkeep.api.ordering import quota_allows, replica_of
from redkeep.api.pages import Limit, Marker, next_page, page_of
from redkeep.api.record import Scene, alone, demand, event, group_apart, look, moved, poke, record, wanted
from redkeep.api.schemas import (
    CreateInstance,
    InstanceList,
    InstanceOrder,
    InstanceReply,
    InstanceView,
    UpdateInstance,
)
from redkeep.decide import lifecycle
from redkeep.decide.backups import may_restore
from redkeep.decide.lifecycle import Amount
from redkeep.decide.parameters import carried_over
from redkeep.errors import Refused
from redkeep.model.instance import Group, Instance, RedisUser, Secrets, Status
from redkeep.model.operation import Kind
from redkeep.model.topology import Role
from redkeep.ports import Transaction
from redkeep.vault import digest, new_password

NOT_OFFERED = {
    "modules": "Loading modules",
    "databases": "Naming databases",
    "users": "Creating users together with the instance (POST .../users does it afterwards)",
    "access": "Changing who has access",
}
"""Keys that must not be ignored in silence, since the answer would be a lie."""

REFUSED_IN_ORDERS = ("modules", "databases", "users")
"""`access` is not among them: one stock client cannot help sending it with every order."""

IncludeClustered = Annotated[bool, Query(description="Members of clusters too")]


# --- Looking ------------------------------------------------------------------------------------------------------


async def index(
    call: ThisCall,
    limit: Limit = None,
    marker: Marker = None,
    include_clustered: IncludeClustered = False,
) -> InstanceList:
    """The project's instances, newest first."""
    return await _page(call, limit, marker, include_clustered, detailed=False)


async def index_detail(
    call: ThisCall,
    limit: Limit = None,
    marker: Marker = None,
    include_clustered: IncludeClustered = False,
) -> InstanceList:
    """The project's instances with all there is to see of them."""
    return await _page(call, limit, marker, include_clustered, detailed=True)


async def show(call: ThisCall, instance_id: InstanceId) -> InstanceReply:
    """One instance."""
    async with call.context.store.read() as tx:
        scene = await look(tx, call, instance_id)
        configuration = await tx.configuration(scene.instance.configuration_id or "")
    view = views.detail(scene.instance, scene.replica_ids, call, configuration=configuration)
    elsewhere = views.standbys(scene.instance, scene.members, call)
    return InstanceReply(instance=view.model_copy(update={"replication": elsewhere}))


async def _page(call: Call, limit: int | None, marker: str | None, clustered: bool, *, detailed: bool) -> InstanceList:
    most = call.context.settings.page_size
    async with call.context.store.read() as tx:
        everything = [one for one in await tx.instances(project_id=call.project_id) if clustered or one.shard is None]
        known = {one.id: one for one in await tx.configurations(call.project_id)} if detailed else {}
    page, more = page_of(everything, marker or "", min(limit or most, most))
    replicas = views.replicas_by_source(everything)

    def view(one: Instance) -> InstanceView:
        mine = replicas.get(one.id, ())
        configuration = known.get(one.configuration_id or "")
        return (
            views.detail(one, mine, call, configuration=configuration) if detailed else views.summary(one, mine, call)
        )

    shown = [view(one) for one in page]
    return InstanceList(instances=shown, links=[next_page(call, more)] if more else None)


# --- Ordering -----------------------------------------------------------------------------------------------------


async def create(call: ThisCall, body: CreateInstance) -> InstanceReply:
    """Order an instance, or replicas of one. Of several replicas, the answer describes the last."""
    order = body.instance
    refuse_unoffered(name for name in REFUSED_IN_ORDERS if getattr(order, name))
    if order.source_id:
        return await _create_replicas(call, order, order.source_id)
    return await _create_primary(call, order)


def refuse_unoffered(asked: Iterable[str]) -> None:
    """Raises Refused (kind `unsupported`) when one of the keys asks for what there is not."""
    for key in asked:
        if key in NOT_OFFERED:
            raise Refused(f"{NOT_OFFERED[key]} is not offered.", kind="unsupported")


async def _create_primary(call: Call, order: InstanceOrder) -> InstanceReply:
    settings, vault = call.context.settings, call.context.vault
    flavor = ordered_flavor(settings, order.flavorRef)
    if order.volume is None:
        raise Refused("Volume size was not specified.")
    volume_gb = order.volume.size
    password = new_password()
    async with call.context.store.begin() as tx:
        hosts = await tx.hosts()
        backup = await backups.ordered(tx, call, order.restorePoint)
        version = backups.version_of(backup, order.datastore) or ordered_version(settings, hosts, order.datastore)
        configuration = (
            await configurations.ordered(tx, call, order.configuration, version) if order.configuration else None
        )
        demand(
            lifecycle.first_refusal(
                lifecycle.may_save_itself(flavor, volume_gb),
                may_restore(backup, hosts, version=version, flavor=flavor, volume_gb=volume_gb),
                await quota_allows(tx, call, Amount(1, flavor.ram_mb, volume_gb)),
                lifecycle.may_place(version, volume_gb, hosts),
            )
        )
        now = await tx.now()
        instance = Instance(
            id=str(uuid4()),
            group_id=str(uuid4()),
            project_id=call.project_id,
            name=order.name,
            role=Role.PRIMARY,
            status=Status.BUILD,
            flavor_id=flavor.id,
            volume_gb=volume_gb,
            version=version,
            created=now,
            updated=now,
        )
        group = Group(
            id=instance.group_id,
            project_id=call.project_id,
            secrets=Secrets(admin=vault.seal(new_password()), replication=vault.seal(new_password())),
            primary_id=instance.id,
            users=(RedisUser("default", digest(password)),),
            root_enabled=True,
            durability=order.durability,
        )
        instance = configurations.configured(instance, configuration)
        args = {"instance": instance.id} | ({"backup": backup.id} if backup else {})
        limit = settings.restore_limit_seconds if backup else None
        rows: list[Group | Instance] = [group, instance]
        await record(tx, call, Kind.CREATE_INSTANCE, args, about=instance, rows=rows, now=now, limit=limit)
        standbys = await replication.add(tx, call, instance, order.replication, (), now)
    await poke(call.context, group.id)
    view = views.detail(instance, (), call, configuration=configuration, password=password)
    elsewhere = views.standbys(instance, standbys, call)
    return InstanceReply(instance=view.model_copy(update={"replication": elsewhere}))


async def _create_replicas(call: Call, order: InstanceOrder, source_id: str) -> InstanceReply:
    """Flavor, volume and version are those of the source, whatever the order says: one stock client cannot help naming
    a flavor."""
    settings, count = call.context.settings, order.replica_count
    if count > settings.max_replicas:
        raise Refused(f"instance.replica_count: one order may ask for {settings.max_replicas}; order the others next.")
    async with call.context.store.begin() as tx:
        scene = await look(tx, call, source_id, lock=True)
        source = alone(scene.instance)
        flavor = settings.flavor(source.flavor_id)
        more = Amount(count, count * (flavor.ram_mb if flavor else 0), count * source.volume_gb)
        demand(
            lifecycle.first_refusal(
                lifecycle.may_replicate(source),
                await quota_allows(tx, call, more),
                lifecycle.may_place(source.version, source.volume_gb, await tx.hosts()),
            )
        )
        replicas = tuple(replica_of(source, name, scene.now) for name in lifecycle.names_of(order.name, count))
        args = {"instances": [one.id for one in replicas], "primary": source.id}
        await record(tx, call, Kind.ADD_REPLICAS, args, about=source, rows=replicas, now=scene.now)
        configuration = await tx.configuration(source.configuration_id or "")
    await poke(call.context, scene.group.id)
    return InstanceReply(instance=views.detail(replicas[-1], (), call, configuration=configuration))


# --- Changing -----------------------------------------------------------------------------------------------------


async def update(call: ThisCall, instance_id: InstanceId, body: UpdateInstance) -> Response:
    """Rename an instance, detach a replica from its source, attach a configuration group, or change the version."""
    change = body.instance
    async with call.context.store.begin() as tx:
        configuration = (
            await configurations.owned(tx, call, change.configuration, lock=True) if change.configuration else None
        )
        scene = await look(tx, call, instance_id, lock=True)
        alone(scene.instance)
        refuse_unoffered(change.asked)
        if change.name is not None and change.name != scene.instance.name:
            scene = await _rename(tx, call, scene, change.name)
        if change.asked & {"replica_of", "slave_of"}:
            await _detach(tx, call, scene)
        if "configuration" in change.asked:
            await configurations.attach(tx, call, scene, configuration)
        if "replication" in change.asked:
            await replication.change(tx, call, scene, change.replication)
        if change.datastore_version is not None:
            await _upgrade(tx, call, scene, change.datastore_version)
    await poke(call.context, scene.group.id)
    return accepted()


async def _rename(tx: Transaction, call: Call, scene: Scene, name: str) -> Scene:
    renamed = replace(scene.instance, name=name, updated=scene.now)
    await tx.save(renamed)
    text = f"renamed {scene.instance.name} to {name}"
    await tx.record(event(call, "instance.renamed", text, renamed, scene.now))
    members = tuple(renamed if one.id == renamed.id else one for one in scene.members)
    return replace(scene, instance=renamed, members=members)


async def _detach(tx: Transaction, call: Call, scene: Scene) -> None:
    """The replica goes into a group of its own, made here and filled by the runbook."""
    verdict = demand(lifecycle.may_detach(scene.instance))
    group = group_apart(call, scene)
    rows: list[Group | Instance] = [group, *moved(scene.members, verdict.members, Status.DETACH, scene.now)]
    args = {"instance": scene.instance.id, "group": group.id}
    await record(tx, call, Kind.DETACH_REPLICA, args, about=scene.instance, rows=rows, now=scene.now)


async def _upgrade(tx: Transaction, call: Call, scene: Scene, wanted_version: str) -> None:
    """The source and its replicas get another Redis, one after the other."""
    hosts = await tx.hosts()
    version = find_version(call.context.settings, hosts, wanted_version).name
    verdict = demand(lifecycle.may_roll(scene.instance, scene.members, to=version))
    able = {host.id for host in hosts if version in host.versions}
    for one in scene.members:
        carried_over(one.parameters, version)
        if one.host_id not in able:
            raise Refused(f"Host {one.host_id} of {one.name} has no redis-server {version}: install it there first.")
    rows = moved(scene.members, verdict.members, Status.UPGRADE, scene.now)
    args = {"instance": scene.instance.id, "version": version}
    await record(tx, call, Kind.ROLL_GROUP, args, about=scene.instance, rows=rows, now=scene.now)


async def delete(call: ThisCall, instance_id: InstanceId) -> Response:
    """Delete an instance with its data."""
    async with call.context.store.begin() as tx:
        scene = await look(tx, call, instance_id, lock=True)
        alone(scene.instance)
        verdict = wanted(lifecycle.may_delete(scene.instance, scene.members))
        if verdict is None:
            return accepted()
        rows = moved(scene.members, verdict.members, Status.SHUTDOWN, scene.now)
        args = {"instance": scene.instance.id}
        await record(tx, call, Kind.DELETE_INSTANCE, args, about=scene.instance, rows=rows, now=scene.now)
    await poke(call.context, scene.group.id)
    return accepted()

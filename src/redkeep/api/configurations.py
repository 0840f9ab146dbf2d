"""Configuration groups: values under a name, and the instances that have them. Trove's resource, for Redis' parameters.

Values are looked at here (`decide/parameters.py`); the managers bring them to the servers. A change of a configuration
that is attached is recorded for each of its groups in the same transaction, or for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Path, Query, Response

from redkeep.api import views
from redkeep.api.call import Call, InstanceId, ThisCall, accepted
from redkeep.api.catalogue import check_datastore, find_version, ordered_version
from redkeep.api.cluster_record import configuring, take
from redkeep.api.cluster_scene import look_at
from redkeep.api.datastores import DatastoreKey, VersionKey
from redkeep.api.record import Scene, demand, event, is_id, look, moved, poke, record
from redkeep.api.schemas import (
    AttachedInstance,
    AttachedList,
    ConfigurationChange,
    ConfigurationDetail,
    ConfigurationList,
    ConfigurationReply,
    CreateConfiguration,
    DefaultConfiguration,
    DefaultConfigurationReply,
    Link,
    ParameterList,
    ParameterView,
    UpdateConfiguration,
)
from redkeep.decide import lifecycle
from redkeep.decide.parameters import DURABILITY, carried_over, effective, find, loss, offered, validate, waiting
from redkeep.errors import Refused
from redkeep.model.instance import Applied, Configuration, Instance, Parameters, Status
from redkeep.model.operation import Kind
from redkeep.ports import Transaction

ATTACHED = (
    "A configuration group cannot be deleted if it is associated with one or more non-terminated instances. "
    "Detach the configuration group from all non-terminated instances and please try again."
)
"""Upstream's words."""

ConfigurationId = Annotated[str, Path(alias="configuration_id", min_length=1, description="Its id")]
ParameterKey = Annotated[str, Path(alias="parameter", description="The name of a parameter", examples=["hz"])]
Limit = Annotated[int | None, Query(ge=1, description="Items per page, at most the server's page size")]
Marker = Annotated[str | None, Query(max_length=255, description="Items whose id is greater than this one")]


# --- What can be set ----------------------------------------------------------------------------------------------


async def parameters(call: ThisCall, datastore: DatastoreKey, version: VersionKey) -> ParameterList:
    """The parameters of a version."""
    check_datastore(datastore)
    return await parameters_by_version(call, version)


async def parameter(
    call: ThisCall, datastore: DatastoreKey, version: VersionKey, parameter: ParameterKey
) -> ParameterView:
    """One parameter of a version."""
    check_datastore(datastore)
    return await parameter_by_version(call, version, parameter)


async def parameters_by_version(call: ThisCall, version: VersionKey) -> ParameterList:
    """The parameters of a version, whatever its datastore."""
    name = await _version_name(call, version)
    return ParameterList(parameters=[views.parameter_view(one, name) for one in offered(name).values()])


async def parameter_by_version(call: ThisCall, version: VersionKey, parameter: ParameterKey) -> ParameterView:
    """One parameter of a version, whatever its datastore."""
    name = await _version_name(call, version)
    return views.parameter_view(find(parameter, name), name)


async def _version_name(call: Call, key: str) -> str:
    async with call.context.store.read() as tx:
        return find_version(call.context.settings, await tx.hosts(), key).name


async def defaults(call: ThisCall, instance_id: InstanceId) -> DefaultConfigurationReply:
    """What the servers of an instance have when nothing is attached."""
    async with call.context.store.read() as tx:
        scene = await look(tx, call, instance_id)
    values = effective((), scene.instance.version) | {DURABILITY: scene.group.durability.value}
    return DefaultConfigurationReply(instance=DefaultConfiguration(configuration=values))


# --- Looking ------------------------------------------------------------------------------------------------------


async def index(call: ThisCall, limit: Limit = None, marker: Marker = None) -> ConfigurationList:
    """The project's configuration groups, by id."""
    async with call.context.store.read() as tx:
        everything = await tx.configurations(call.project_id)
    page, more = page_of(call, [one.id for one in everything], limit, marker)
    shown = [views.configuration_view(one) for one in everything if one.id in page]
    return ConfigurationList(configurations=shown, links=more)


async def show(call: ThisCall, configuration_id: ConfigurationId) -> ConfigurationReply:
    """One configuration group with its values."""
    async with call.context.store.read() as tx:
        configuration = await owned(tx, call, configuration_id)
        return ConfigurationReply(configuration=await _detail(tx, configuration))


async def instances(
    call: ThisCall, configuration_id: ConfigurationId, limit: Limit = None, marker: Marker = None
) -> AttachedList:
    """The instances that have it."""
    async with call.context.store.read() as tx:
        configuration = await owned(tx, call, configuration_id)
        found = await tx.instances(configuration_id=configuration.id)
    page, more = page_of(call, sorted(one.id for one in found), limit, marker)
    shown = sorted((one for one in found if one.id in page), key=lambda one: one.id)
    return AttachedList(instances=[AttachedInstance(id=one.id, name=one.name) for one in shown], links=more)


def page_of(
    call: Call, ids: Sequence[str], limit: int | None, marker: str | None
) -> tuple[frozenset[str], list[Link] | None]:
    """The ids of one page, and the link to the next. `ids` are in order."""
    most = call.context.settings.page_size
    rest = [one for one in ids if one > (marker or "")]
    page = rest[: min(limit or most, most)]
    if len(page) == len(rest):
        return frozenset(page), None
    query = call.url.include_query_params(marker=page[-1]).query
    return frozenset(page), [Link(href=f"{call.base_url}{call.url.path}?{query}", rel="next")]


async def owned(tx: Transaction, call: Call, configuration_id: str, *, lock: bool = False) -> Configuration:
    """A configuration group of the caller's project. Raises Refused (kind `missing`) for everything else."""
    key = configuration_id.lower()
    found = await tx.configuration(key, lock=lock) if is_id(key) else None
    if found is None or found.deleted or found.project_id != call.project_id:
        raise Refused(f"Configuration {configuration_id[:64]} cannot be found.", kind="missing")
    return found


async def _detail(tx: Transaction, configuration: Configuration) -> ConfigurationDetail:
    count = len(await tx.instances(configuration_id=configuration.id))
    return views.configuration_detail(configuration, count)


# --- Changing -----------------------------------------------------------------------------------------------------


async def create(call: ThisCall, body: CreateConfiguration) -> ConfigurationReply:
    """Make a configuration group."""
    order = body.configuration
    async with call.context.store.begin() as tx:
        version = ordered_version(call.context.settings, await tx.hosts(), order.datastore)
        now = await tx.now()
        configuration = Configuration(
            id=str(uuid4()),
            project_id=call.project_id,
            name=order.name,
            description=order.description or "",
            version=version,
            values=validate(order.values, version),
            created=now,
            updated=now,
        )
        await tx.save(configuration)
        return ConfigurationReply(configuration=views.configuration_detail(configuration, 0))


async def merge(call: ThisCall, configuration_id: ConfigurationId, body: UpdateConfiguration) -> Response:
    """Change some values of a configuration group, and of all servers that have it."""
    await _update(call, configuration_id, body.configuration, keep=True)
    return Response(status_code=200)


async def update(call: ThisCall, configuration_id: ConfigurationId, body: UpdateConfiguration) -> Response:
    """Give a configuration group other values in place of those that it has."""
    await _update(call, configuration_id, body.configuration, keep=False)
    return accepted()


async def delete(call: ThisCall, configuration_id: ConfigurationId) -> Response:
    """Delete a configuration group that nobody has."""
    async with call.context.store.begin() as tx:
        configuration = await owned(tx, call, configuration_id, lock=True)
        if await _is_needed(tx, configuration):
            raise Refused(ATTACHED)
        await tx.save(replace(configuration, deleted=True, updated=await tx.now()))
    return accepted()


async def _is_needed(tx: Transaction, configuration: Configuration) -> bool:
    """Somebody has it, or gets it back when what replaced it fails."""
    if await tx.instances(configuration_id=configuration.id):
        return True
    replaced = [one.args.get("before", {}).get("configuration") for one in await tx.open_operations()]
    others = await tx.instances(project_id=configuration.project_id)
    return configuration.id in (*replaced, *(one.proven.configuration_id for one in others if waiting(one)))


async def _update(call: Call, configuration_id: str, change: ConfigurationChange, *, keep: bool) -> None:
    async with call.context.store.begin() as tx:
        old = await owned(tx, call, configuration_id, lock=True)
        new = replace(changed(old, change, keep=keep), updated=await tx.now())
        await tx.save(new)
        attached = await tx.instances(configuration_id=old.id) if new.values != old.values else []
        sources = _one_for_each_group(attached)
        for source in sources:
            if source.shard is not None:
                cluster = await look_at(tx, call, source.group_id, lock=True)
                await take(tx, call, cluster, configuring(cluster, new))
            else:
                await _apply(tx, call, await look(tx, call, source.id, lock=True), new)
    for source in sources:
        await poke(call.context, source.group_id)


def changed(old: Configuration, change: ConfigurationChange, *, keep: bool) -> Configuration:
    """A configuration group after a change; with `keep` the values that are not named stay. Raises Refused."""
    given: Mapping[str, Any] = change.values or {}
    values = {**dict(old.values), **given} if keep or change.values is None else given
    return replace(
        old,
        values=validate(values, old.version),
        name=change.name or old.name,
        description=old.description if change.description is None else change.description,
    )


def _one_for_each_group(members: Iterable[Instance]) -> list[Instance]:
    """In the order of the groups, so that two changes never wait for each other."""
    sources = {one.group_id: one for one in sorted(members, key=lambda one: one.replica_of is None)}
    return [sources[group_id] for group_id in sorted(sources)]


# --- Attaching ----------------------------------------------------------------------------------------------------


async def ordered(tx: Transaction, call: Call, configuration_id: str, version: str) -> Configuration:
    """What an instance of this version is to be created with. Raises Refused."""
    configuration = await owned(tx, call, configuration_id, lock=True)
    if configuration.version != version:
        raise Refused(
            f"Datastore Version on Configuration {configuration.version} does not match the Datastore Version on the "
            f"instance {version}."
        )
    return configuration


def configured(instance: Instance, configuration: Configuration | None) -> Instance:
    """A row of an instance that is yet to be built."""
    if configuration is None:
        return instance
    parts = Applied(configuration.id, configuration.values)
    return replace(instance, configuration_id=configuration.id, parameters=configuration.values, proven=parts)


async def attach(tx: Transaction, call: Call, scene: Scene, configuration: Configuration | None) -> None:
    """Have an instance and its replicas use this configuration group, or none. Raises Refused."""
    if configuration is not None and configuration.version != scene.instance.version:
        raise Refused(
            f"Datastore Version on Configuration {configuration.version} does not match the Datastore Version on the "
            f"instance {scene.instance.version}."
        )
    text = f"{'attached' if configuration else 'detached'} configuration {configuration.name if configuration else ''}"
    await tx.record(event(call, "configuration.changed", text.strip(), scene.instance, scene.now))
    await _apply(tx, call, scene, configuration)


async def _apply(tx: Transaction, call: Call, scene: Scene, configuration: Configuration | None) -> None:
    """Record that the servers of a group are to have the values. Raises Refused where one of them cannot."""
    source = scene.instance
    verdict = demand(lifecycle.may_configure(source, scene.members))
    values = configuration.values if configuration else ()
    for one in scene.members:
        _check(one, carried_over(values, one.version))
    args = {
        "instance": source.id,
        "configuration": configuration.id if configuration else None,
        "parameters": [list(pair) for pair in values],
        "before": {
            "configuration": source.configuration_id,
            "parameters": [list(pair) for pair in source.parameters],
        },
    }
    named = with_configuration(scene.members, configuration)
    rows = [
        *moved(named, verdict.members, Status.UPDATING, scene.now),
        *(one for one in named if one.id not in verdict.members),
    ]
    await record(tx, call, Kind.CONFIGURE, args, about=source, rows=rows, now=scene.now)


def with_configuration(members: Iterable[Instance], configuration: Configuration | None) -> tuple[Instance, ...]:
    """They are attached at once, so that nobody deletes it; the values follow with the operation."""
    return tuple(replace(one, configuration_id=configuration.id if configuration else None) for one in members)


def _check(instance: Instance, values: Parameters) -> None:
    if reason := loss(instance.parameters, values, instance.version):
        raise Refused(f"{instance.name}: {reason}")

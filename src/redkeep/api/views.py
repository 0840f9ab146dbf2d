"""Rows as answers. Pure: what is shown depends on the rows, the caller and the URL alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from redkeep.api.call import Call
from redkeep.api.catalogue import DATASTORE_NAME, version_of
from redkeep.api.schemas import (
    AddressView,
    ConfigurationDetail,
    ConfigurationReference,
    ConfigurationView,
    DatastoreView,
    FaultView,
    FlavorReference,
    FlavorView,
    InstanceView,
    Link,
    ParameterView,
    Reference,
    ReplicationView,
    StandbyView,
    VolumeView,
)
from redkeep.decide.alerts import is_alert
from redkeep.decide.parameters import Parameter, Type, name_in, offered, shown_status
from redkeep.model.instance import Configuration, Flavor, Instance, Status

OPERATING_STATUS: Mapping[Status, str] = {
    Status.ACTIVE: "HEALTHY",
    Status.BACKUP: "HEALTHY",
    Status.RESTART_REQUIRED: "RESTART_REQUIRED",
    Status.ERROR: "ERROR",
}
"""Empty for all others: a task is running."""


def timestamp(seconds: float) -> str:
    """UTC, without zone and fraction, as Trove writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def links(call: Call, *path: str) -> list[Link]:
    """Where a thing is found."""
    href = "/".join((call.root, *path))
    return [Link(href=href, rel="self"), Link(href=href, rel="bookmark")]


def public_id(flavor_id: str) -> int | str:
    """Flavor ids that are numbers travel as numbers: clients send them back as they came."""
    return int(flavor_id) if flavor_id.isdecimal() else flavor_id


def flavor_view(flavor: Flavor, call: Call) -> FlavorView:
    return FlavorView(
        id=public_id(flavor.id),
        str_id=flavor.id,
        name=flavor.name,
        ram=flavor.ram_mb,
        vcpus=flavor.vcpus,
        disk=flavor.disk_gb,
        links=links(call, "flavors", flavor.id),
    )


def replicas_by_source(instances: Iterable[Instance]) -> Mapping[str, list[str]]:
    """Ids of the replicas of each source."""
    found: dict[str, list[str]] = {}
    for instance in instances:
        if instance.replica_of:
            found.setdefault(instance.replica_of, []).append(instance.id)
    return found


def _operating_status(instance: Instance, status: Status) -> str:
    blocked = status in OPERATING_STATUS and status is not Status.ERROR and is_alert(instance.fault)
    return "BLOCKED" if blocked else OPERATING_STATUS.get(status, "")


def summary(instance: Instance, replica_ids: Sequence[str], call: Call) -> InstanceView:
    """An instance as a list shows it."""
    address, status = instance.address, shown_status(instance)
    return InstanceView(
        id=instance.id,
        name=instance.name,
        status=status,
        operating_status=_operating_status(instance, status),
        links=links(call, "instances", instance.id),
        flavor=FlavorReference(id=public_id(instance.flavor_id), links=links(call, "flavors", instance.flavor_id)),
        datastore=DatastoreView(type=DATASTORE_NAME, version=instance.version),
        region=call.context.settings.region,
        volume=VolumeView(size=instance.volume_gb),
        ip=[address.host] if address else None,
        port=address.port if address else None,
        addresses=[AddressView(address=address.host)] if address else None,
        replica_of=_reference(instance.replica_of, call) if instance.replica_of else None,
        replicas=[_reference(one, call) for one in replica_ids] or None,
        site=instance.site if call.context.settings.sites.targets and instance.site else None,
        cluster_id=instance.group_id if instance.shard is not None else None,
        shard=instance.shard,
        tenant_id=instance.project_id if call.caller.is_admin else None,
    )


def detail(
    instance: Instance,
    replica_ids: Sequence[str],
    call: Call,
    *,
    configuration: Configuration | None = None,
    password: str | None = None,
) -> InstanceView:
    """All there is to see of an instance, and of the configuration group that it has. `password`: what its owner is
    told this once."""
    fault = instance.fault
    return summary(instance, replica_ids, call).model_copy(
        update={
            "datastore": DatastoreView(type=DATASTORE_NAME, version=instance.version, version_number=instance.version),
            "created": timestamp(instance.created),
            "updated": timestamp(instance.updated),
            "service_status_updated": timestamp(instance.updated),
            "fault": FaultView(message=fault.message, created=timestamp(fault.created)) if fault else None,
            "configuration": _configuration_reference(configuration, call) if configuration else None,
            "password": password,
        }
    )


def standbys(instance: Instance, members: Iterable[Instance], call: Call) -> ReplicationView | None:
    """Replicas at other sites than the instance's."""
    names = call.context.settings.sites.names
    found = [
        StandbyView(site=names.get(one.site, one.site), replica=_reference(one.id, call))
        for one in members
        if one.replica_of == instance.id and one.site not in ("", instance.site)
    ]
    return ReplicationView(sites=found) if found else None


def _reference(instance_id: str, call: Call) -> Reference:
    return Reference(id=instance_id, links=links(call, "instances", instance_id))


def _configuration_reference(configuration: Configuration, call: Call) -> ConfigurationReference:
    return ConfigurationReference(
        id=configuration.id, name=configuration.name, links=links(call, "configurations", configuration.id)
    )


def configuration_view(configuration: Configuration) -> ConfigurationView:
    """A configuration group as a list shows it."""
    version = version_of(configuration.version)
    return ConfigurationView(
        id=configuration.id,
        name=configuration.name,
        description=configuration.description,
        created=timestamp(configuration.created),
        updated=timestamp(configuration.updated),
        datastore_name=DATASTORE_NAME,
        datastore_version_id=version.id,
        datastore_version_name=version.name,
        datastore_version_number=version.name,
    )


def configuration_detail(configuration: Configuration, instance_count: int) -> ConfigurationDetail:
    """With its values: numbers as numbers, all else in the words of redis.conf."""
    known = offered(configuration.version)
    numbers = {name for name, one in known.items() if one.type in (Type.INTEGER, Type.MEMORY)}
    return ConfigurationDetail(
        **configuration_view(configuration).model_dump(),
        values={name: int(value) if name in numbers else value for name, value in configuration.values},
        instance_count=instance_count,
    )


def parameter_view(parameter: Parameter, version: str) -> ParameterView:
    """One line of the catalogue, as a version has it."""
    is_number = parameter.type in (Type.INTEGER, Type.MEMORY)
    return ParameterView(
        name=name_in(parameter, version),
        type=parameter.type,
        datastore_version_id=version_of(version).id,
        restart_required=parameter.restart_required,
        default=parameter.default,
        min=parameter.low if is_number else None,
        max=parameter.high if is_number else None,
        options=list(parameter.options) if parameter.type is Type.ENUM else None,
    )

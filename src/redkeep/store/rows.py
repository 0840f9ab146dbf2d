"""Between rows and the frozen values of the model: pure, and the inverse of each other (`tests/unit`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from redkeep.model.backup import Backup, BackupStatus
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.instance import (
    Applied,
    Configuration,
    Durability,
    Event,
    Fault,
    Group,
    Host,
    Instance,
    Parameters,
    RedisUser,
    Secrets,
    Status,
)
from redkeep.model.operation import Kind, Operation, State
from redkeep.model.site import ReplicationStatus, Service, ServiceCluster, SiteFailover, VolumeUpdate
from redkeep.model.topology import Address, Role

Row = Mapping[str, Any]
"""Columns by name, JSON columns already as Python values."""

Kept = Group | Instance | Operation | Host | Configuration | Backup | Cluster | ServiceCluster | Service
"""What has an id and is replaced by it."""


def _fields(value: Kept | Event) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def group_row(group: Group) -> dict[str, Any]:
    return _fields(group) | {
        "secrets": asdict(group.secrets),
        "users": [asdict(user) for user in group.users],
        "durability": group.durability.value,
    }


def to_group(row: Row) -> Group:
    nested = {
        "secrets": Secrets(**row["secrets"]),
        "users": tuple(RedisUser(**user) for user in row["users"]),
        "durability": Durability(row["durability"]),
    }
    return Group(**{**row, **nested})


def instance_row(instance: Instance) -> dict[str, Any]:
    row = _fields(instance)
    address: Address | None = row.pop("address")
    return row | {
        "role": instance.role.value,
        "status": instance.status.value,
        "address_host": address.host if address else None,
        "address_port": address.port if address else None,
        "fault": asdict(instance.fault) if instance.fault else None,
        "parameters": [list(pair) for pair in instance.parameters],
        "proven": {
            "configuration_id": instance.proven.configuration_id,
            "parameters": [list(pair) for pair in instance.proven.parameters],
        },
    }


def to_instance(row: Row) -> Instance:
    columns = dict(row)
    host, port = columns.pop("address_host"), columns.pop("address_port")
    return Instance(
        **columns
        | {
            "role": Role(row["role"]),
            "status": Status(row["status"]),
            "address": None if host is None else Address(host, port),
            "fault": Fault(**row["fault"]) if row["fault"] else None,
            "parameters": _parameters(row["parameters"]),
            "proven": Applied(row["proven"]["configuration_id"], _parameters(row["proven"]["parameters"])),
        }
    )


def _parameters(pairs: list[list[str]]) -> Parameters:
    return tuple((name, value) for name, value in pairs)


def configuration_row(configuration: Configuration) -> dict[str, Any]:
    return _fields(configuration) | {"values": [list(pair) for pair in configuration.values]}


def to_configuration(row: Row) -> Configuration:
    return Configuration(**{**row, "values": _parameters(row["values"])})


def cluster_row(cluster: Cluster) -> dict[str, Any]:
    return _fields(cluster) | {
        "task": cluster.task.value,
        "fault": asdict(cluster.fault) if cluster.fault else None,
    }


def to_cluster(row: Row) -> Cluster:
    nested = {"task": ClusterTask(row["task"]), "fault": Fault(**row["fault"]) if row["fault"] else None}
    return Cluster(**{**row, **nested})


def backup_row(backup: Backup) -> dict[str, Any]:
    return _fields(backup) | {"status": backup.status.value}


def to_backup(row: Row) -> Backup:
    return Backup(**{**row, "status": BackupStatus(row["status"])})


def operation_row(operation: Operation) -> dict[str, Any]:
    return _fields(operation) | {
        "kind": operation.kind.value,
        "state": operation.state.value,
        "args": dict(operation.args),
        "choice": dict(operation.choice),
    }


def to_operation(row: Row) -> Operation:
    return Operation(**{**row, "kind": Kind(row["kind"]), "state": State(row["state"])})


def service_cluster_row(cluster: ServiceCluster) -> dict[str, Any]:
    failover = asdict(cluster.failover) if cluster.failover else None
    return _fields(cluster) | {
        "replication_status": cluster.replication_status.value,
        "targets": list(cluster.targets),
        "failover": failover,
    }


def to_service_cluster(row: Row) -> ServiceCluster:
    nested = {
        "replication_status": ReplicationStatus(row["replication_status"]),
        "targets": tuple(row["targets"]),
        "failover": _site_failover(row["failover"]) if row["failover"] else None,
    }
    return ServiceCluster(**{**row, **nested})


def _site_failover(kept: dict[str, Any]) -> SiteFailover:
    updates = tuple(
        VolumeUpdate(one["volume_id"], ReplicationStatus(one["replication_status"]), one["detail"])
        for one in kept["updates"]
    )
    return SiteFailover(**{**kept, "came_from": ReplicationStatus(kept["came_from"]), "updates": updates})


def service_row(service: Service) -> dict[str, Any]:
    return _fields(service) | {"replication_status": service.replication_status.value}


def to_service(row: Row) -> Service:
    return Service(**{**row, "replication_status": ReplicationStatus(row["replication_status"])})


def host_row(host: Host) -> dict[str, Any]:
    return _fields(host) | {"versions": list(host.versions)}


def to_host(row: Row) -> Host:
    return Host(**{**row, "versions": tuple(row["versions"])})


def event_row(event: Event) -> dict[str, Any]:
    """Without the id: the table gives it."""
    row = _fields(event)
    del row["id"]
    return row


def to_event(row: Row) -> Event:
    return Event(**row)

"""The tables. Portable between SQLite and PostgreSQL; every change here needs a migration, and a test compares the two.

Times are seconds since 1970. Small values that are only ever read whole are JSON; whatever a query asks for has a
column. It is `JSON` and not `JSONB`: what comes out must be what went in, to the last digit.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    literal_column,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

groups = Table(
    "groups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("secrets", JSON, nullable=False),
    # No foreign key: the group is saved before its first instance.
    Column("primary_id", Text),
    Column("successor_id", Text),
    Column("topology_epoch", BigInteger, nullable=False),
    Column("users", JSON, nullable=False),
    Column("root_enabled", Boolean, nullable=False),
    Column("durability", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text),
    Column("lease_until", Double, nullable=False),
)

LEASE_COLUMNS = frozenset({"epoch", "holder", "lease_until"})
"""Of an existing group, written by claim, renew and release alone."""

KEPT_COLUMNS = {
    "groups": LEASE_COLUMNS,
    "service_clusters": frozenset({"lease_epoch", "holder", "lease_until"}),
    "services": frozenset({"heartbeat_at"}),
}
"""By table: what saving a row that is there leaves alone. The lease of a service cluster is kept as a group's is; a
sign of life is given by heartbeats alone."""

instances = Table(
    "instances",
    metadata,
    Column("id", Text, primary_key=True),
    Column("group_id", Text, ForeignKey(groups.c.id), nullable=False),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("flavor_id", Text, nullable=False),
    Column("volume_gb", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    # No foreign key: a host is a report, and may be forgotten before what ran on it is.
    Column("host_id", Text),
    Column("address_host", Text),
    Column("address_port", Integer),
    Column("fault", JSON(none_as_null=True)),
    Column("deleted", Boolean, nullable=False),
    Column("replica_of", Text),
    # No foreign key: what is not deleted is looked at under the configuration's name, deleted ones stay for the record.
    Column("configuration_id", Text),
    Column("parameters", JSON, nullable=False),
    Column("proven", JSON, nullable=False),
    Column("shard", Text),
    Column("node_id", Text),
    Column("site", Text, nullable=False),
)

UNDELETED = ~instances.c.deleted
"""Used by queries and by the partial indexes alike: SQLite takes a partial index only for the very same expression."""


def _index_of_undeleted(name: str, *columns: str, unique: bool = False) -> None:
    indexed = (instances.c[column] for column in columns)
    Index(name, *indexed, unique=unique, sqlite_where=UNDELETED, postgresql_where=UNDELETED)


ADDRESS_INDEX = "uq_instances_address"
_index_of_undeleted(ADDRESS_INDEX, "address_host", "address_port", unique=True)
_index_of_undeleted("ix_instances_project_id", "project_id")
_index_of_undeleted("ix_instances_group_id", "group_id")
_index_of_undeleted("ix_instances_host_id", "host_id")
_index_of_undeleted("ix_instances_configuration_id", "configuration_id")

configurations = Table(
    "configurations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("values", JSON, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("deleted", Boolean, nullable=False),
)

Index(None, configurations.c.project_id)

clusters = Table(
    "clusters",
    metadata,
    Column("id", Text, ForeignKey(groups.c.id), primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("replicas_per_shard", Integer, nullable=False),
    Column("formed", Boolean, nullable=False),
    Column("members_made", Integer, nullable=False),
    Column("configuration_id", Text),
    Column("fault", JSON(none_as_null=True)),
    Column("deleted", Boolean, nullable=False),
)

UNDELETED_CLUSTERS = ~clusters.c.deleted

Index(
    "ix_clusters_project_id",
    clusters.c.project_id,
    sqlite_where=UNDELETED_CLUSTERS,
    postgresql_where=UNDELETED_CLUSTERS,
)

backups = Table(
    "backups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    # No foreign key: a backup outlives the instance.
    Column("instance_id", Text, nullable=False),
    Column("group_id", Text, ForeignKey(groups.c.id), nullable=False),
    Column("version", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("location", Text, nullable=False),
    Column("member_id", Text),
    Column("replication_id", Text, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("fault", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
)

KEPT_BACKUPS = backups.c.status != literal_column("'DELETED'")
"""A literal, as for the operations."""

Index("ix_backups_project_id", backups.c.project_id, sqlite_where=KEPT_BACKUPS, postgresql_where=KEPT_BACKUPS)
Index("ix_backups_instance_id", backups.c.instance_id, sqlite_where=KEPT_BACKUPS, postgresql_where=KEPT_BACKUPS)

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("group_id", Text, ForeignKey(groups.c.id), nullable=False),
    Column("kind", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("args", JSON, nullable=False),
    Column("choice", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("progress", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("error", Text),
    Column("requested_by", Text, nullable=False),
    Column("finished", Double),
)

OPEN = operations.c.state.in_([literal_column("'pending'"), literal_column("'running'")])
"""Literals, not parameters: only so can the partial index be used."""

Index("ix_operations_open", operations.c.group_id, sqlite_where=OPEN, postgresql_where=OPEN)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),  # SQLite counts INTEGER alone
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("project_id", Text),
    # No foreign keys: the audit outlives what it speaks of.
    Column("group_id", Text),
    Column("instance_id", Text),
    Column("operation_id", Text),
    Column("actor", Text, nullable=False),
)

Index(None, events.c.at)
Index(None, events.c.group_id, events.c.at)
Index(None, events.c.instance_id, events.c.at)

switches = Table(
    "switches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("is_on", Boolean, nullable=False),
)

service_clusters = Table(
    "service_clusters",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double),
    Column("solitary", Boolean, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    Column("replication_status", Text, nullable=False),
    Column("active_backend_id", Text),
    Column("frozen", Boolean, nullable=False),
    Column("targets", JSON, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("failover", JSON(none_as_null=True)),
    Column("lease_epoch", BigInteger, nullable=False),
    Column("holder", Text),
    Column("lease_until", Double, nullable=False),
)

services = Table(
    "services",
    metadata,
    Column("id", Text, primary_key=True),
    Column("cluster_id", Text, ForeignKey(service_clusters.c.id), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double),
    Column("heartbeat_at", Double, nullable=False),
    Column("incarnation", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("object_version", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    Column("replication_status", Text, nullable=False),
    Column("active_backend_id", Text),
    Column("frozen", Boolean, nullable=False),
    Column("applied_epoch", BigInteger, nullable=False),
    Column("fault", Text),
)

Index(None, services.c.cluster_id)

hosts = Table(
    "hosts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("address", Text, nullable=False),
    Column("port_low", Integer, nullable=False),
    Column("port_high", Integer, nullable=False),
    Column("versions", JSON, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("disk_free_bytes", BigInteger, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("zone", Text, nullable=False),
    Column("site", Text, nullable=False),
)

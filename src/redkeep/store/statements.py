"""Every statement of the store, built once: parameters are bound by name, so that each is compiled once, too."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    Double,
    Executable,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from redkeep.store.schema import (
    KEPT_BACKUPS,
    KEPT_COLUMNS,
    OPEN,
    UNDELETED,
    UNDELETED_CLUSTERS,
    backups,
    clusters,
    configurations,
    events,
    groups,
    hosts,
    instances,
    operations,
    service_clusters,
    services,
    switches,
)


class Clock(FunctionElement[float]):
    """The database's clock in seconds since 1970, at the moment at which the statement runs."""

    name = "clock"
    type = Double()
    inherit_cache = True


@compiles(Clock, "sqlite")
def _clock_of_sqlite(_element: Clock, _compiler: SQLCompiler, **_: Any) -> str:
    # unixepoch('subsec') would read better, but came with SQLite 3.42. 2440587.5 is 1970 in Julian days.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Clock, "postgresql")
def _clock_of_postgresql(_element: Clock, _compiler: SQLCompiler, **_: Any) -> str:
    # Not now(): that stands still from the beginning of the transaction, however long it waited for a lock.
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


NOW = select(Clock())

# --- Looking -----------------------------------------------------------------------------------------------------

GROUP = select(groups).where(groups.c.id == bindparam("id"))
LOCKED_GROUP = GROUP.with_for_update(key_share=True)
"""FOR NO KEY UPDATE: shuts out whoever would change or lock the group, but not the check of a foreign key to it, which
would make deadlocks of two blocks that each insert an instance first and lock second. SQLite needs and knows none."""

GROUPS = select(groups).where(exists().where(instances.c.group_id == groups.c.id, UNDELETED)).order_by(groups.c.id)
INSTANCE = select(instances).where(instances.c.id == bindparam("id"))
OPERATION = select(operations).where(operations.c.id == bindparam("id"))
HOSTS = select(hosts).order_by(hosts.c.id)
CONFIGURATION = select(configurations).where(configurations.c.id == bindparam("id"))
LOCKED_CONFIGURATION = CONFIGURATION.with_for_update()
CONFIGURATIONS = (
    select(configurations)
    .where(configurations.c.project_id == bindparam("project_id"), ~configurations.c.deleted)
    .order_by(configurations.c.id)
)
CLUSTER = select(clusters).where(clusters.c.id == bindparam("id"))
CLUSTERS_OF_PROJECT = (
    select(clusters)
    .where(clusters.c.project_id == bindparam("project_id"), UNDELETED_CLUSTERS)
    .order_by(clusters.c.created, clusters.c.id)
)
BACKUP = select(backups).where(backups.c.id == bindparam("id"))
LOCKED_BACKUP = BACKUP.with_for_update()
SERVICE_CLUSTERS = select(service_clusters).order_by(service_clusters.c.id)
SERVICE_CLUSTER = select(service_clusters).where(service_clusters.c.id == bindparam("id"))
LOCKED_SERVICE_CLUSTER = SERVICE_CLUSTER.with_for_update(key_share=True)
"""Whoever writes a service of it locks it first; heartbeats need not."""
FROZEN_BACKENDS = select(service_clusters.c.id, service_clusters.c.frozen).order_by(service_clusters.c.id)
HELD_FROZEN_BACKENDS = FROZEN_BACKENDS.with_for_update(read=True)
"""FOR SHARE: a freeze waits until the changes that saw none have ended."""
SWITCH = select(switches).where(switches.c.id == bindparam("id"))


@cache
def undeleted_instances(*by: str) -> Select[Any]:
    """Oldest first, where each of the named columns equals the parameter of its name."""
    return (
        select(instances)
        .where(UNDELETED, *(instances.c[name] == bindparam(name) for name in by))
        .order_by(instances.c.created, instances.c.id)
    )


@cache
def kept_backups(*by: str) -> Select[Any]:
    """Oldest first, where each of the named columns equals the parameter of its name."""
    return (
        select(backups)
        .where(KEPT_BACKUPS, *(backups.c[name] == bindparam(name) for name in by))
        .order_by(backups.c.created, backups.c.id)
    )


@cache
def open_operations(*by: str) -> Select[Any]:
    """Oldest first, where each of the named columns equals the parameter of its name."""
    return (
        select(operations)
        .where(OPEN, *(operations.c[name] == bindparam(name) for name in by))
        .order_by(operations.c.created, operations.c.id)
    )


@cache
def newest_events(*by: str) -> Select[Any]:
    """Newest first, at most `limit`, where each of the named columns equals the parameter of its name."""
    return (
        select(events)
        .where(*(events.c[name] == bindparam(name) for name in by))
        .order_by(events.c.at.desc(), events.c.id.desc())
        .limit(bindparam("limit"))
    )


# --- Writing -----------------------------------------------------------------------------------------------------


@cache
def upsert(table: Table, dialect: str) -> Insert:
    """Insert or replace by id; of a row that is there `KEPT_COLUMNS` stay as they are."""
    kept = KEPT_COLUMNS.get(table.name, frozenset())
    changed = [column.name for column in table.c if column.name != "id" and column.name not in kept]
    if dialect == "postgresql":
        of_postgresql = postgresql.insert(table)
        return of_postgresql.on_conflict_do_update(
            index_elements=[table.c.id], set_={name: of_postgresql.excluded[name] for name in changed}
        )
    of_sqlite = sqlite.insert(table)
    return of_sqlite.on_conflict_do_update(
        index_elements=[table.c.id], set_={name: of_sqlite.excluded[name] for name in changed}
    )


@cache
def add(table: Table, dialect: str) -> Executable:
    """Insert, unless there is a row of that id; the id comes back when it was inserted."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=[table.c.id]).returning(table.c.id)
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=[table.c.id]).returning(table.c.id)


RECORD = insert(events)
PRUNE = (
    delete(events).where(events.c.at < bindparam("before")),
    delete(operations).where(operations.c.finished < bindparam("before")),
    delete(services).where(services.c.heartbeat_at < bindparam("before")),
    delete(service_clusters).where(~exists().where(services.c.cluster_id == service_clusters.c.id)),
)
"""Whatever is still open has not finished. A service cluster goes with its last service: nobody could thaw it."""

# --- Leases: one compare-and-set each ----------------------------------------------------------------------------

_held = (
    groups.c.id == bindparam("group_id"),
    groups.c.holder == bindparam("by"),
    groups.c.epoch == bindparam("at_epoch"),
)

CLAIM: Update = (
    update(groups)
    .where(
        groups.c.id == bindparam("group_id"),
        or_(groups.c.holder.is_(None), groups.c.holder == bindparam("by"), groups.c.lease_until <= Clock()),
    )
    .values(holder=bindparam("by"), epoch=groups.c.epoch + 1, lease_until=Clock() + bindparam("seconds", type_=Double))
)
TAKEN = CLAIM.returning(groups)
RENEW = (
    update(groups)
    .where(*_held, groups.c.lease_until > Clock())
    .values(lease_until=Clock() + bindparam("seconds", type_=Double))
)
RELEASE = update(groups).where(*_held).values(holder=None, lease_until=0.0)

_cluster_held = (
    service_clusters.c.id == bindparam("cluster_id"),
    service_clusters.c.holder == bindparam("by"),
    service_clusters.c.lease_epoch == bindparam("at_epoch"),
)

TAKEN_CLUSTER = (
    update(service_clusters)
    .where(
        service_clusters.c.id == bindparam("cluster_id"),
        or_(
            service_clusters.c.holder.is_(None),
            service_clusters.c.holder == bindparam("by"),
            service_clusters.c.lease_until <= Clock(),
        ),
    )
    .values(
        holder=bindparam("by"),
        lease_epoch=service_clusters.c.lease_epoch + 1,
        lease_until=Clock() + bindparam("seconds", type_=Double),
    )
    .returning(service_clusters)
)
RENEW_CLUSTER = (
    update(service_clusters)
    .where(*_cluster_held, service_clusters.c.lease_until > Clock())
    .values(lease_until=Clock() + bindparam("seconds", type_=Double))
)
RELEASE_CLUSTER = update(service_clusters).where(*_cluster_held).values(holder=None, lease_until=0.0)

# --- Signs of life -----------------------------------------------------------------------------------------------

HEARTBEAT = (
    update(services)
    .where(services.c.id == bindparam("service_id"), services.c.incarnation == bindparam("run"))
    .values(heartbeat_at=Clock())
)
REMOVE_SERVICE = delete(services).where(
    services.c.id == bindparam("service_id"), services.c.incarnation == bindparam("run")
)


@cache
def services_of(*by: str) -> Select[Any]:
    """By id, where each of the named columns equals the parameter of its name."""
    return select(services).where(*(services.c[name] == bindparam(name) for name in by)).order_by(services.c.id)

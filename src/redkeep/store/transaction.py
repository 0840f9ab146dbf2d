"""One unit of work in one session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Table

from redkeep.errors import RedkeepError, Unavailable
from redkeep.model.backup import Backup
from redkeep.model.cluster import Cluster
from redkeep.model.instance import Configuration, Event, Group, Host, Instance
from redkeep.model.operation import Operation
from redkeep.model.site import Service, ServiceCluster, backend_of
from redkeep.ports import WholeGroup
from redkeep.store import rows, schema, statements
from redkeep.store.border import translated
from redkeep.store.database import Result, Session

_ORDER: tuple[tuple[type[rows.Kept], Table, Callable[[Any], dict[str, Any]]], ...] = (
    (Host, schema.hosts, rows.host_row),
    (Configuration, schema.configurations, rows.configuration_row),
    (Group, schema.groups, rows.group_row),
    (Cluster, schema.clusters, rows.cluster_row),
    (Instance, schema.instances, rows.instance_row),
    (Backup, schema.backups, rows.backup_row),
    (Operation, schema.operations, rows.operation_row),
    (ServiceCluster, schema.service_clusters, rows.service_cluster_row),
    (Service, schema.services, rows.service_row),
)
"""In which rows are written: who is referred to before who refers, and the same for everybody, so that two transactions
never wait for each other's rows in a ring."""


class SqlTransaction:
    """Implements `ports.Transaction`. Made by `SqlStore.begin` and `SqlStore.read` alone.

    After an error the unit is over, whatever the caller makes of it: SQLite would go on without the failed statement,
    PostgreSQL would refuse all others and turn the commit into a silent rollback. Neither is what the caller meant.
    """

    def __init__(self, session: Session, *, writes: bool) -> None:
        self._session = session
        self._writes = writes
        self._broken_by: BaseException | None = None

    async def now(self) -> float:
        return await self._run(lambda connection: float(connection.execute(statements.NOW).scalar_one()))

    async def group(self, group_id: str, *, lock: bool = False) -> Group | None:
        if lock:
            self._must_write("group(lock=True)")
        row = await self._first(statements.LOCKED_GROUP if lock else statements.GROUP, {"id": group_id})
        return rows.to_group(row) if row else None

    async def whole_group(self, group_id: str, *, lock: bool = False) -> WholeGroup | None:
        if lock:
            self._must_write("whole_group(lock=True)")
        return await self._run(lambda connection: _whole_group(connection, group_id, lock))

    async def groups(self) -> list[Group]:
        return [rows.to_group(row) for row in await self._all(statements.GROUPS)]

    async def instance(self, instance_id: str) -> Instance | None:
        row = await self._first(statements.INSTANCE, {"id": instance_id})
        return rows.to_instance(row) if row else None

    async def instances(
        self,
        *,
        project_id: str | None = None,
        group_id: str | None = None,
        host_id: str | None = None,
        configuration_id: str | None = None,
    ) -> list[Instance]:
        by = _given(project_id=project_id, group_id=group_id, host_id=host_id, configuration_id=configuration_id)
        return [rows.to_instance(row) for row in await self._all(statements.undeleted_instances(*by), by)]

    async def operation(self, operation_id: str) -> Operation | None:
        row = await self._first(statements.OPERATION, {"id": operation_id})
        return rows.to_operation(row) if row else None

    async def open_operations(self, *, group_id: str | None = None) -> list[Operation]:
        by = _given(group_id=group_id)
        return [rows.to_operation(row) for row in await self._all(statements.open_operations(*by), by)]

    async def configuration(self, configuration_id: str, *, lock: bool = False) -> Configuration | None:
        if lock:
            self._must_write("configuration(lock=True)")
        statement = statements.LOCKED_CONFIGURATION if lock else statements.CONFIGURATION
        row = await self._first(statement, {"id": configuration_id})
        return rows.to_configuration(row) if row else None

    async def configurations(self, project_id: str) -> list[Configuration]:
        found = await self._all(statements.CONFIGURATIONS, {"project_id": project_id})
        return [rows.to_configuration(row) for row in found]

    async def cluster(self, cluster_id: str) -> Cluster | None:
        row = await self._first(statements.CLUSTER, {"id": cluster_id})
        return rows.to_cluster(row) if row else None

    async def clusters(self, project_id: str) -> list[Cluster]:
        found = await self._all(statements.CLUSTERS_OF_PROJECT, {"project_id": project_id})
        return [rows.to_cluster(row) for row in found]

    async def backup(self, backup_id: str, *, lock: bool = False) -> Backup | None:
        if lock:
            self._must_write("backup(lock=True)")
        row = await self._first(statements.LOCKED_BACKUP if lock else statements.BACKUP, {"id": backup_id})
        return rows.to_backup(row) if row else None

    async def backups(self, *, project_id: str | None = None, instance_id: str | None = None) -> list[Backup]:
        by = _given(project_id=project_id, instance_id=instance_id)
        return [rows.to_backup(row) for row in await self._all(statements.kept_backups(*by), by)]

    async def hosts(self) -> list[Host]:
        return [rows.to_host(row) for row in await self._all(statements.HOSTS)]

    async def events(
        self, *, instance_id: str | None = None, group_id: str | None = None, limit: int = 100
    ) -> list[Event]:
        by = _given(instance_id=instance_id, group_id=group_id)
        found = await self._all(statements.newest_events(*by), by | {"limit": limit})
        return [rows.to_event(row) for row in found]

    async def save(self, *kept: rows.Kept) -> None:
        self._must_write("save()")
        batches = _batches(kept)

        def upsert_all(connection: Connection) -> None:
            for table, batch in batches:
                connection.execute(statements.upsert(table, connection.dialect.name), batch)

        await self._run(upsert_all)

    async def record(self, *events: Event) -> None:
        self._must_write("record()")
        if events:
            batch = [rows.event_row(event) for event in events]
            await self._run(lambda connection: connection.execute(statements.RECORD, batch))

    async def prune(self, before: float) -> int:
        self._must_write("prune()")
        doomed = {"before": before}
        return await self._run(
            lambda connection: sum(connection.execute(statement, doomed).rowcount for statement in statements.PRUNE)
        )

    async def service_clusters(self) -> list[ServiceCluster]:
        return [rows.to_service_cluster(row) for row in await self._all(statements.SERVICE_CLUSTERS)]

    async def service_cluster(self, cluster_id: str, *, lock: bool = False) -> ServiceCluster | None:
        if lock:
            self._must_write("service_cluster(lock=True)")
        statement = statements.LOCKED_SERVICE_CLUSTER if lock else statements.SERVICE_CLUSTER
        row = await self._first(statement, {"id": cluster_id})
        return rows.to_service_cluster(row) if row else None

    async def services(self, *, cluster_id: str | None = None) -> list[Service]:
        by = _given(cluster_id=cluster_id)
        return [rows.to_service(row) for row in await self._all(statements.services_of(*by), by)]

    async def frozen(self, backend: str) -> bool:
        statement = statements.HELD_FROZEN_BACKENDS if self._writes else statements.FROZEN_BACKENDS
        return any(row["frozen"] and backend_of(row["id"]) == backend for row in await self._all(statement))

    async def add(self, row: ServiceCluster | Service) -> bool:
        self._must_write("add()")
        ((table, batch),) = _batches([row])
        return await self._run(
            lambda connection: (
                connection.execute(statements.add(table, connection.dialect.name), batch[0]).first() is not None
            )
        )

    async def beat(self, service_id: str, incarnation: str) -> bool:
        self._must_write("beat()")
        values = {"service_id": service_id, "run": incarnation}
        return await self._run(lambda connection: connection.execute(statements.HEARTBEAT, values).rowcount) == 1

    async def remove_service(self, service_id: str, incarnation: str) -> None:
        self._must_write("remove_service()")
        values = {"service_id": service_id, "run": incarnation}
        await self._run(lambda connection: connection.execute(statements.REMOVE_SERVICE, values))

    async def switch(self, name: str) -> bool:
        row = await self._first(statements.SWITCH, {"id": name})
        return bool(row and row["is_on"])

    async def set_switch(self, name: str, is_on: bool) -> None:
        self._must_write("set_switch()")

        def upsert(connection: Connection) -> None:
            statement = statements.upsert(schema.switches, connection.dialect.name)
            connection.execute(statement, [{"id": name, "is_on": is_on}])

        await self._run(upsert)

    async def claim(self, group_id: str, holder: str, seconds: float) -> Group | None:
        row = await self._first(statements.TAKEN, {"group_id": group_id, "by": holder, "seconds": seconds})
        return rows.to_group(row) if row else None

    async def renew(self, group_id: str, holder: str, epoch: int, seconds: float) -> bool:
        values = {"group_id": group_id, "by": holder, "at_epoch": epoch, "seconds": seconds}
        return await self._run(lambda connection: connection.execute(statements.RENEW, values).rowcount) == 1

    async def release(self, group_id: str, holder: str, epoch: int) -> None:
        values = {"group_id": group_id, "by": holder, "at_epoch": epoch}
        await self._run(lambda connection: connection.execute(statements.RELEASE, values))

    async def claim_cluster(self, cluster_id: str, holder: str, seconds: float) -> ServiceCluster | None:
        values = {"cluster_id": cluster_id, "by": holder, "seconds": seconds}
        row = await self._first(statements.TAKEN_CLUSTER, values)
        return rows.to_service_cluster(row) if row else None

    async def renew_cluster(self, cluster_id: str, holder: str, lease_epoch: int, seconds: float) -> bool:
        values = {"cluster_id": cluster_id, "by": holder, "at_epoch": lease_epoch, "seconds": seconds}
        return await self._run(lambda connection: connection.execute(statements.RENEW_CLUSTER, values).rowcount) == 1

    async def release_cluster(self, cluster_id: str, holder: str, lease_epoch: int) -> None:
        values = {"cluster_id": cluster_id, "by": holder, "at_epoch": lease_epoch}
        await self._run(lambda connection: connection.execute(statements.RELEASE_CLUSTER, values))

    async def commit(self) -> None:
        """Raises what the port promises of the end of a block."""
        self._must_be_whole()
        with translated(committing=True):
            await self._session.commit()

    async def _all(self, statement: Executable, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        return await self._run(lambda connection: [row._asdict() for row in connection.execute(statement, values)])

    async def _first(self, statement: Executable, values: dict[str, Any] | None = None) -> dict[str, Any] | None:
        found = await self._all(statement, values)
        return found[0] if found else None

    async def _run(self, work: Callable[[Connection], Result]) -> Result:
        """Any error, a cancellation included, breaks the unit."""
        self._must_be_whole()
        try:
            with translated():
                return await self._session.run(work)
        except BaseException as error:
            self._broken_by = error
            raise

    def _must_be_whole(self) -> None:
        if isinstance(self._broken_by, RedkeepError):
            raise self._broken_by
        if self._broken_by is not None:
            raise Unavailable("this unit of work was interrupted; nothing of it is saved") from self._broken_by

    def _must_write(self, what: str) -> None:
        if not self._writes:
            raise RuntimeError(f"{what} needs begin(): read() only reads")


def _whole_group(connection: Connection, group_id: str, lock: bool) -> WholeGroup | None:
    """The group first: what is read after it is locked stays true."""
    by = {"group_id": group_id}
    found = connection.execute(statements.LOCKED_GROUP if lock else statements.GROUP, {"id": group_id}).first()
    if found is None:
        return None
    instances = connection.execute(statements.undeleted_instances(*by), by).all()
    operations = connection.execute(statements.open_operations(*by), by).all()
    members = tuple(rows.to_instance(row._asdict()) for row in instances)
    return WholeGroup(
        group=rows.to_group(found._asdict()),
        instances=members,
        operations=tuple(rows.to_operation(row._asdict()) for row in operations),
        now=float(connection.execute(statements.NOW).scalar_one()),
        cluster=_cluster_of(connection, group_id) if any(one.shard is not None for one in members) else None,
    )


def _cluster_of(connection: Connection, group_id: str) -> Cluster | None:
    found = connection.execute(statements.CLUSTER, {"id": group_id}).first()
    return rows.to_cluster(found._asdict()) if found else None


def _given(**values: str | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _batches(kept: Sequence[rows.Kept]) -> list[tuple[Table, list[dict[str, Any]]]]:
    """One for each table that has something to write."""
    batches = []
    for kind, table, to_row in _ORDER:
        if same := sorted((value for value in kept if isinstance(value, kind)), key=_freeing_addresses_first):
            batches.append((table, [to_row(value) for value in same]))
    return batches


def _freeing_addresses_first(value: rows.Kept) -> tuple[bool, str]:
    """One that is deleted gives its address back before another one of the same call takes it."""
    return (not (isinstance(value, Instance) and value.deleted), value.id)

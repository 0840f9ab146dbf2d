"""Rows are the frozen values in other words: nothing is lost on the way there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Table

from redkeep.model.backup import Backup
from redkeep.model.cluster import Cluster
from redkeep.model.instance import Configuration, Event, Group, Host, Instance, RedisUser
from redkeep.model.operation import Operation
from redkeep.model.site import Service, ServiceCluster, SiteFailover, VolumeUpdate
from redkeep.store import rows, schema

_number = st.integers(-(2**53), 2**53)
_time = st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _number | _time | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_arguments = st.dictionaries(st.text(), _json, max_size=3)

_users = st.builds(RedisUser, st.text(), st.text(), st.booleans())
_KINDS: list[tuple[st.SearchStrategy[Any], Callable[[Any], dict[str, Any]], Callable[[rows.Row], Any], Table]] = [
    (
        st.builds(Group, users=st.lists(_users, max_size=2).map(tuple), lease_until=_time),
        rows.group_row,
        rows.to_group,
        schema.groups,
    ),
    (st.builds(Instance, created=_time, updated=_time), rows.instance_row, rows.to_instance, schema.instances),
    (
        st.builds(Operation, args=_arguments, choice=_arguments, created=_time, finished=st.none() | _time),
        rows.operation_row,
        rows.to_operation,
        schema.operations,
    ),
    (
        st.builds(Configuration, created=_time, updated=_time),
        rows.configuration_row,
        rows.to_configuration,
        schema.configurations,
    ),
    (st.builds(Backup, created=_time, updated=_time), rows.backup_row, rows.to_backup, schema.backups),
    (st.builds(Cluster, created=_time, updated=_time), rows.cluster_row, rows.to_cluster, schema.clusters),
    (
        st.builds(
            ServiceCluster,
            created_at=_time,
            updated_at=st.none() | _time,
            lease_until=_time,
            targets=st.lists(st.text(), max_size=2).map(tuple),
            failover=st.none()
            | st.builds(
                SiteFailover,
                requested_at=_time,
                deadline=_time,
                progress=_time,
                finished=st.none() | _time,
                updates=st.lists(st.builds(VolumeUpdate)).map(tuple),
            ),
        ),
        rows.service_cluster_row,
        rows.to_service_cluster,
        schema.service_clusters,
    ),
    (
        st.builds(Service, created_at=_time, updated_at=st.none() | _time, heartbeat_at=_time),
        rows.service_row,
        rows.to_service,
        schema.services,
    ),
    (st.builds(Host, seen_at=_time), rows.host_row, rows.to_host, schema.hosts),
    (st.builds(Event, at=_time, id=st.none()), rows.event_row, rows.to_event, schema.events),
]


@pytest.mark.parametrize(("values", "to_row", "from_row", "table"), _KINDS, ids=[str(kind[3]) for kind in _KINDS])
@given(data=st.data())
@settings(max_examples=40)
def test_a_value_survives_being_a_row_of_its_table(
    values: st.SearchStrategy[Any],
    to_row: Callable[[Any], dict[str, Any]],
    from_row: Callable[[rows.Row], Any],
    table: Table,
    data: st.DataObject,
) -> None:
    value = data.draw(values)

    row = to_row(value)

    assert from_row(json.loads(json.dumps(row))) == value
    assert set(row) == {column.name for column in table.c} - ({"id"} if table is schema.events else set())

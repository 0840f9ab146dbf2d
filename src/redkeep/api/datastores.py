"""Datastores: Redis, in the versions that some host has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path

from redkeep.api import flavors, views
from redkeep.api.call import Call, ThisCall
from redkeep.api.catalogue import DATASTORE_ID, DATASTORE_NAME, check_datastore, default_of, find_version, offered
from redkeep.api.schemas import (
    DatastoreDetail,
    DatastoreList,
    DatastoreReply,
    FlavorList,
    VersionList,
    VersionReply,
    VersionView,
)
from redkeep.errors import Refused
from redkeep.model.instance import DatastoreVersion

DatastoreKey = Annotated[str, Path(description="Name or id", examples=["redis"])]
VersionKey = Annotated[str, Path(description="Name or id", examples=["7.0"])]


async def index(call: ThisCall) -> DatastoreList:
    """All datastores."""
    return DatastoreList(datastores=[_detail(call, await _offered(call))])


async def show(call: ThisCall, datastore: DatastoreKey) -> DatastoreReply:
    """One datastore."""
    check_datastore(datastore)
    return DatastoreReply(datastore=_detail(call, await _offered(call)))


async def versions(call: ThisCall, datastore: DatastoreKey) -> VersionList:
    """The versions of a datastore."""
    check_datastore(datastore)
    return VersionList(versions=[_version(call, one) for one in await _offered(call)])


async def version(call: ThisCall, datastore: DatastoreKey, version: VersionKey) -> VersionReply:
    """One version of a datastore."""
    check_datastore(datastore)
    return VersionReply(version=await _find(call, version))


async def version_by_id(call: ThisCall, version: VersionKey) -> VersionReply:
    """One version, whatever its datastore."""
    return VersionReply(version=await _find(call, version))


async def version_flavors(call: ThisCall, datastore: DatastoreKey, version: VersionKey) -> FlavorList:
    """The flavors in which a version can be ordered: all."""
    check_datastore(datastore)
    await _find(call, version)
    return await flavors.index(call)


async def _offered(call: Call) -> tuple[DatastoreVersion, ...]:
    async with call.context.store.read() as tx:
        return offered(call.context.settings, await tx.hosts())


async def _find(call: Call, key: str) -> VersionView:
    async with call.context.store.read() as tx:
        hosts = await tx.hosts()
    wanted = find_version(call.context.settings, hosts, key)
    if wanted not in offered(call.context.settings, hosts):
        raise Refused(f"No host has redis-server {wanted.name}. Run `redkeep doctor` on a host to see what it finds.")
    return _version(call, wanted)


def _detail(call: Call, found: Sequence[DatastoreVersion]) -> DatastoreDetail:
    default = default_of(call.context.settings, found)
    return DatastoreDetail(
        id=DATASTORE_ID,
        name=DATASTORE_NAME,
        links=views.links(call, "datastores", DATASTORE_ID),
        versions=[_version(call, one) for one in found],
        default_version=default.id if default else None,
    )


def _version(call: Call, version: DatastoreVersion) -> VersionView:
    return VersionView(
        id=version.id,
        name=version.name,
        version=version.name,
        links=views.links(call, "datastores", DATASTORE_ID, "versions", version.id),
        datastore=DATASTORE_ID,
    )

"""Clusters: list, show, order, change, delete. What is asked for is recorded; the managers do it.

The rules of the datastore are its strategy's (`cluster_strategy.py`); here is what all have in common.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Response

from redkeep.api import cluster_views, configurations, users, views
from redkeep.api.call import Call, InstanceId, ThisCall, accepted
from redkeep.api.catalogue import DATASTORE_NAME
from redkeep.api.cluster_scene import ClusterScene, facts_of, look_at
from redkeep.api.cluster_schemas import ClusterAction, ClusterList, ClusterReply, CreateCluster
from redkeep.api.cluster_strategy import Asked
from redkeep.api.pages import Limit, Marker, next_page, page_of
from redkeep.api.record import poke
from redkeep.api.schemas import InstanceReply, RootOrder, RootReply, RootStatus
from redkeep.errors import Refused
from redkeep.model.instance import Instance, Status

ClusterId = Annotated[str, Path(alias="cluster_id", min_length=1, description="The id of a cluster")]

NEEDS_SIGHT = frozenset({"shrink"})
"""Actions that are decided by what the servers say."""


# --- Looking ------------------------------------------------------------------------------------------------------


async def index(call: ThisCall, limit: Limit = None, marker: Marker = None) -> ClusterList:
    """The project's clusters, newest first."""
    most = call.context.settings.page_size
    async with call.context.store.read() as tx:
        everything = await tx.clusters(call.project_id)
        instances = await tx.instances(project_id=call.project_id)
    page, more = page_of(everything, marker or "", min(limit or most, most))
    members: dict[str, list[Instance]] = {one.id: [] for one in page}
    for instance in instances:
        if instance.group_id in members:
            members[instance.group_id].append(instance)
    shown = [cluster_views.item(one, members[one.id], call) for one in page]
    return ClusterList(clusters=shown, links=[next_page(call, more)] if more else None)


async def show(call: ThisCall, cluster_id: ClusterId) -> ClusterReply:
    """One cluster with its members."""
    async with call.context.store.read() as tx:
        scene = await look_at(tx, call, cluster_id)
        configuration = await tx.configuration(scene.cluster.configuration_id or "")
    shown = cluster_views.detail(
        scene.cluster, scene.members, call, operation=scene.operation, configuration=configuration
    )
    return ClusterReply(cluster=shown)


async def show_member(call: ThisCall, cluster_id: ClusterId, instance_id: InstanceId) -> InstanceReply:
    """One member of a cluster."""
    async with call.context.store.read() as tx:
        scene = await look_at(tx, call, cluster_id)
        found = next((one for one in scene.members if one.id == instance_id.lower()), None)
        if found is None:
            raise Refused(f"Instance {instance_id[:64]} cannot be found.", kind="missing")
        configuration = await tx.configuration(found.configuration_id or "")
    return InstanceReply(instance=views.detail(found, (), call, configuration=configuration))


# --- Changing -----------------------------------------------------------------------------------------------------


async def create(call: ThisCall, body: CreateCluster) -> ClusterReply:
    """Order a cluster: each of `instances` becomes the primary of a shard, the slots are divided evenly."""
    settings = call.context.settings
    if not settings.cluster_support:
        raise Refused(f"Clusters not supported for {DATASTORE_NAME}-{settings.default_version}.", kind="unsupported")
    async with call.context.store.begin() as tx:
        made = await call.context.clusters.create(tx, call, body.cluster)
    await poke(call.context, made.cluster.id)
    shown = cluster_views.detail(
        made.cluster, made.members, call, configuration=made.configuration, password=made.password
    )
    return ClusterReply(cluster=shown)


async def act(call: ThisCall, cluster_id: ClusterId, body: ClusterAction) -> ClusterReply:
    """Grow, shrink, rebalance, restart or upgrade a cluster, and what else it can do."""
    facts = await facts_of(call, (await _scene(call, cluster_id)).members) if body.asked in NEEDS_SIGHT else {}
    async with call.context.store.begin() as tx:
        if body.asked == "configuration_attach":  # a configuration is locked before a group
            await configurations.owned(tx, call, body.configuration_attach.configuration_id, lock=True)
        scene = await look_at(tx, call, cluster_id, lock=True)
        new = await call.context.clusters.act(tx, call, scene, Asked(body, facts))
        after = await look_at(tx, call, cluster_id)
    await poke(call.context, scene.cluster.id)
    return ClusterReply(cluster=cluster_views.detail(after.cluster, after.members, call, shown=new))


async def action(call: ThisCall, cluster_id: ClusterId, body: ClusterAction) -> ClusterReply:
    """The same, at the path that the specification names; stock clients use the other."""
    return await act(call, cluster_id, body)


async def delete(call: ThisCall, cluster_id: ClusterId) -> Response:
    """Delete a cluster with its data."""
    async with call.context.store.begin() as tx:
        scene = await look_at(tx, call, cluster_id, lock=True)
        await call.context.clusters.delete(tx, call, scene)
    await poke(call.context, scene.cluster.id)
    return accepted()


async def _scene(call: Call, cluster_id: str) -> ClusterScene:
    async with call.context.store.read() as tx:
        return await look_at(tx, call, cluster_id)


# --- Root: the user `default` of every member -----------------------------------------------------------------------


async def root_status(call: ThisCall, cluster_id: ClusterId) -> RootStatus:
    """Whether somebody was given root's password."""
    return RootStatus(rootEnabled=(await _scene(call, cluster_id)).group.root_enabled)


async def enable_root(call: ThisCall, cluster_id: ClusterId, body: RootOrder | None = None) -> RootReply:
    """Give root (`default`) another password on every member, and show it once."""
    return await users.enable_root(call, await _anyone(call, cluster_id), body)


async def disable_root(call: ThisCall, cluster_id: ClusterId) -> Response:
    """Give root a password that nobody knows."""
    return await users.disable_root(call, await _anyone(call, cluster_id))


async def _anyone(call: Call, cluster_id: str) -> str:
    """A member that serves: users of one are users of all. Raises Refused."""
    scene = await _scene(call, cluster_id)
    serving = next((one.id for one in scene.members if one.status is Status.ACTIVE), None)
    if serving is None:
        raise Refused(f"No member of cluster {scene.cluster.name} is ready.", kind="busy")
    return serving

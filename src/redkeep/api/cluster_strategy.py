"""What the API does with clusters of Redis: the class that the option `api_strategy` names.

Another one may be named in its place. It is handed a transaction in which the cluster is locked, says no by raising
Refused, and records what is to be done; it never acts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import uuid4

from redkeep.api import configurations
from redkeep.api.call import Call
from redkeep.api.catalogue import find_version, ordered_version
from redkeep.api.cluster_record import Intent, configuring, moved, require_rules_of_redis, take
from redkeep.api.cluster_scene import ClusterScene
from redkeep.api.cluster_schemas import ClusterAction, ClusterOrder, MemberOrder
from redkeep.api.instances import refuse_unoffered
from redkeep.api.ordering import quota_allows
from redkeep.api.record import demand, event, record, wanted
from redkeep.decide import clusters, lifecycle
from redkeep.decide.clusters import NewMember
from redkeep.decide.lifecycle import Amount
from redkeep.decide.parameters import carried_over
from redkeep.errors import Refused, Unavailable
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Configuration, Fault, Flavor, Group, Host, Instance, RedisUser, Secrets, Status
from redkeep.model.operation import Kind, Operation
from redkeep.model.topology import Role
from redkeep.ports import Transaction
from redkeep.vault import digest, new_password

METHODS = ("create", "delete", "act")
"""What a strategy must have."""


@dataclass(frozen=True, slots=True)
class Made:
    """A cluster that was ordered."""

    cluster: Cluster
    members: tuple[Instance, ...]
    password: str
    configuration: Configuration | None


@dataclass(frozen=True, slots=True)
class Asked:
    """An action, and what the servers said just before it (nothing, where the action does not need that)."""

    action: ClusterAction
    facts: Mapping[str, ServerFacts]


class ApiStrategy(Protocol):
    """What is peculiar to a datastore when its clusters are asked for."""

    async def create(self, tx: Transaction, call: Call, order: ClusterOrder) -> Made:
        """Record a new cluster."""
        ...

    async def delete(self, tx: Transaction, call: Call, scene: ClusterScene) -> None:
        """Record that a cluster is to go."""
        ...

    async def act(self, tx: Transaction, call: Call, scene: ClusterScene, asked: Asked) -> tuple[str, ...] | None:
        """Record any other action; the ids of the members that are new by it, None when none is."""
        ...


class RedisApiStrategy:
    """Clusters of Redis: shards of a primary and its replicas, between whom 16384 slots are divided."""

    # --- creating -------------------------------------------------------------------------------------------------

    async def create(self, tx: Transaction, call: Call, order: ClusterOrder) -> Made:
        """The cluster's group, its row, one member for each that was ordered, and their replicas."""
        if order.locality == "affinity":
            raise Refused("Members are always spread over hosts: affinity is not offered.", kind="unsupported")
        hosts = await tx.hosts()
        version = ordered_version(call.context.settings, hosts, order.datastore)
        now, key, password = await tx.now(), str(uuid4()), new_password()
        cluster = Cluster(
            id=key,
            project_id=call.project_id,
            name=order.name,
            version=version,
            task=ClusterTask.BUILDING,
            created=now,
            updated=now,
            replicas_per_shard=order.replicas,
        )
        configuration = (
            await configurations.ordered(tx, call, order.configuration, version) if order.configuration else None
        )
        require_rules_of_redis(configuration.values if configuration else ())
        cluster = replace(cluster, configuration_id=configuration.id if configuration else None)
        members, zones = await _ordered(tx, call, cluster, (), order.instances, hosts, now, configuration)
        cluster = replace(cluster, members_made=clusters.made_after(cluster, (one.name for one in members)))
        seal = call.context.vault.seal
        group = Group(
            id=key,
            project_id=call.project_id,
            secrets=Secrets(admin=seal(new_password()), replication=seal(new_password())),
            primary_id=None,
            users=(RedisUser("default", digest(password)),),
            root_enabled=True,
        )
        rows: list[Group | Cluster | Instance] = [group, cluster, *members]
        args = {"instances": [one.id for one in members], "zones": zones}
        await record(tx, call, Kind.CREATE_CLUSTER, args, about=cluster, rows=rows, now=now)
        return Made(cluster, members, password, configuration)

    # --- deleting -------------------------------------------------------------------------------------------------

    async def delete(self, tx: Transaction, call: Call, scene: ClusterScene) -> None:
        """All members and what they hold."""
        if wanted(clusters.may_delete(scene.cluster)) is None:
            return
        rows = tuple(replace(one, status=Status.SHUTDOWN, updated=scene.now) for one in scene.members)
        await take(tx, call, scene, Intent(Kind.DELETE_CLUSTER, {}, ClusterTask.DELETING, rows))

    # --- acting ---------------------------------------------------------------------------------------------------

    async def act(self, tx: Transaction, call: Call, scene: ClusterScene, asked: Asked) -> tuple[str, ...] | None:
        """One of `ACTIONS`."""
        intent = await self.ACTIONS[asked.action.asked](tx, call, scene, asked)
        if intent is None:
            return None
        await take(tx, call, scene, intent)
        known = {one.id for one in scene.members}
        new = tuple(one.id for one in intent.rows if one.id not in known)
        return new or None

    ACTIONS: Mapping[str, Callable[[Transaction, Call, ClusterScene, Asked], Awaitable[Intent | None]]]


async def _grow(tx: Transaction, call: Call, scene: ClusterScene, asked: Asked) -> Intent:
    grow, cluster = asked.action.grow, scene.cluster
    demand(clusters.may_change(cluster))
    configuration = await tx.configuration(cluster.configuration_id or "")
    new, zones = await _ordered(
        tx, call, cluster, scene.members, grow.instances, await tx.hosts(), scene.now, configuration
    )
    args = {"instances": [one.id for one in new], "zones": zones, "rebalance": grow.rebalance, "pace": grow.pace}
    made = {"members_made": clusters.made_after(cluster, (one.name for one in new))}
    return Intent(Kind.GROW_CLUSTER, args, ClusterTask.GROWING_CLUSTER, new, made)


async def _shrink(_tx: Transaction, _call: Call, scene: ClusterScene, asked: Asked) -> Intent:
    """The runbook looks at the slots once more: between now and then a client may have moved some."""
    shrink = asked.action.shrink
    ids = tuple(dict.fromkeys(one.id.lower() for one in shrink.instances))
    held = clusters.slots_held(scene.members, asked.facts)
    verdict = demand(clusters.may_shrink(scene.cluster, scene.members, ids, held, drain=shrink.drain))
    if not shrink.drain and not any(facts.cluster for facts in asked.facts.values()):
        raise Unavailable("No agent of the cluster answers: which of its members hold slots cannot be known now.")
    args = {"instances": list(verdict.members), "drain": shrink.drain, "pace": shrink.pace}
    return Intent(Kind.SHRINK_CLUSTER, args, ClusterTask.SHRINKING_CLUSTER)


async def _rebalance(_tx: Transaction, _call: Call, scene: ClusterScene, asked: Asked) -> Intent:
    order = asked.action.rebalance
    demand(clusters.may_change(scene.cluster))
    weights = {key.lower(): weight for key, weight in order.weights.items()}
    demand(clusters.weights_fit(scene.members, weights))
    args = {"weights": weights, "pace": order.pace, "dry_run": order.dry_run}
    return Intent(Kind.REBALANCE_CLUSTER, args, ClusterTask.UPDATING_CLUSTER)


async def _promote(_tx: Transaction, _call: Call, scene: ClusterScene, asked: Asked) -> Intent:
    demand(clusters.may_change(scene.cluster))
    key = asked.action.promote.id.lower()
    demand(clusters.may_promote(scene.members, key))
    return Intent(Kind.PROMOTE_SHARD_REPLICA, {"instance": key}, ClusterTask.UPDATING_CLUSTER)


async def _replicas(tx: Transaction, call: Call, scene: ClusterScene, asked: Asked) -> Intent | None:
    cluster, wanted_count = scene.cluster, asked.action.replicas.per_shard
    demand(clusters.may_change(cluster))
    lacking = clusters.new_replicas(cluster, scene.members, wanted_count)
    surplus = clusters.surplus_replicas(scene.members, wanted_count)
    configuration = await tx.configuration(cluster.configuration_id or "")
    new = tuple(_like(cluster, scene.members, one, scene.now, configuration) for one in lacking)
    await _require_room(tx, call, new, await tx.hosts())
    if not new and not surplus:
        await tx.save(replace(cluster, replicas_per_shard=wanted_count, updated=scene.now))
        return None
    args = {"instances": [one.id for one in new], "leaving": list(surplus), "zones": {}}
    made = clusters.made_after(cluster, (one.name for one in new))
    changes = {"members_made": made, "replicas_per_shard": wanted_count}
    task = ClusterTask.GROWING_CLUSTER if new else ClusterTask.SHRINKING_CLUSTER
    return Intent(Kind.CHANGE_REPLICAS, args, task, new, changes)


async def _upgrade(tx: Transaction, call: Call, scene: ClusterScene, asked: Asked) -> Intent:
    hosts, cluster = await tx.hosts(), scene.cluster
    version = find_version(call.context.settings, hosts, asked.action.upgrade.datastore_version).name
    demand(clusters.may_upgrade(cluster, version))
    able = {host.id for host in hosts if version in host.versions}
    for one in scene.members:
        carried_over(one.parameters, version)
        if one.host_id not in able:
            raise Refused(f"Host {one.host_id} of {one.name} has no redis-server {version}: install it there first.")
    rows = moved(scene, Status.UPGRADE)
    return Intent(Kind.ROLL_CLUSTER, {"version": version}, ClusterTask.UPGRADING_CLUSTER, rows)


async def _restart(_tx: Transaction, _call: Call, scene: ClusterScene, _asked: Asked) -> Intent:
    demand(clusters.may_change(scene.cluster))
    return Intent(Kind.ROLL_CLUSTER, {}, ClusterTask.RESTARTING_CLUSTER, moved(scene, Status.REBOOT))


async def _attach(tx: Transaction, call: Call, scene: ClusterScene, asked: Asked) -> Intent:
    key = asked.action.configuration_attach.configuration_id
    return configuring(scene, await configurations.ordered(tx, call, key, scene.cluster.version))


async def _detach(_tx: Transaction, _call: Call, scene: ClusterScene, _asked: Asked) -> Intent:
    return configuring(scene, None)


async def _take_over(tx: Transaction, call: Call, scene: ClusterScene, asked: Asked) -> None:
    """The administrator's word in place of a proof, when the members have lost their majority and elect nobody."""
    if not call.caller.is_admin:
        raise Refused("Only the administrator may replace primaries that may still live.", kind="forbidden")
    lost = [name.lower() for name in asked.action.take_over.instances]
    demand(clusters.may_be_replaced(scene.members, lost))
    if any(one.kind is Kind.FAIL_OVER_SHARD for one in scene.operations):
        raise Refused(f"A failover in cluster {scene.cluster.name} is under way already.", kind="busy")
    args = {"instances": lost, "reason": f"{call.caller.name} says that they are lost", "force": True}
    await record(tx, call, Kind.FAIL_OVER_SHARD, args, about=scene.cluster, rows=(), now=scene.now)


async def _reset_status(tx: Transaction, call: Call, scene: ClusterScene, _asked: Asked) -> None:
    """The administrator's way out of a task that does not end: it ends now, for whoever works on it, too."""
    if not call.caller.is_admin:
        raise Refused("Only the administrator may reset a status.", kind="forbidden")
    if scene.cluster.task is ClusterTask.NONE:
        return
    text = f"reset the task of {scene.cluster.name}, which was {scene.cluster.task}"
    fault = Fault(f"{call.caller.name} {text}", scene.now)
    await tx.save(*_ended(scene), replace(scene.cluster, task=ClusterTask.NONE, fault=fault, updated=scene.now))
    await tx.record(event(call, "cluster.status_reset", text, scene.cluster, scene.now))


async def _cancel(tx: Transaction, call: Call, scene: ClusterScene, _asked: Asked) -> None:
    """What moves slots stops between two of them, and leaves them where they are."""
    if scene.operation is None or scene.operation.kind not in CANCELLABLE:
        raise Refused(f"Nothing that can be cancelled is being done with cluster {scene.cluster.name}.", kind="busy")
    await tx.save(*_ended(scene))
    text = f"cancelled: {scene.operation.kind.replace('_', ' ')} of {scene.cluster.name}"
    await tx.record(event(call, "cluster.cancelled", text, scene.cluster, scene.now))


CANCELLABLE = frozenset({Kind.GROW_CLUSTER, Kind.SHRINK_CLUSTER, Kind.REBALANCE_CLUSTER})

RedisApiStrategy.ACTIONS = {
    "grow": _grow,
    "shrink": _shrink,
    "rebalance": _rebalance,
    "promote": _promote,
    "take_over": _take_over,
    "replicas": _replicas,
    "upgrade": _upgrade,
    "restart": _restart,
    "configuration_attach": _attach,
    "configuration_detach": _detach,
    "reset_status": _reset_status,
    "cancel": _cancel,
}


# --- What the actions are made of -------------------------------------------------------------------------------------


def _ended(scene: ClusterScene) -> list[Operation]:
    """The open operations, told that their time is over: whoever works on one gives it up in order."""
    return [replace(one, deadline=min(one.deadline, scene.now)) for one in scene.operations]


async def _ordered(
    tx: Transaction,
    call: Call,
    cluster: Cluster,
    members: Sequence[Instance],
    orders: Sequence[MemberOrder],
    hosts: Sequence[Host],
    now: float,
    configuration: Configuration | None,
) -> tuple[tuple[Instance, ...], dict[str, str]]:
    """The rows of new shards, and the zones that were asked for, by instance. Raises Refused."""
    refuse_unoffered("modules" for order in orders if order.modules)
    flavors = [_flavor(call, order) for order in orders]
    volumes = [_volume(call, flavor, order) for flavor, order in zip(flavors, orders, strict=True)]
    names = [order.name for order in orders]
    demand(clusters.alike([flavor.id for flavor in flavors], volumes))
    demand(clusters.names_are_new(members, names))
    planned = clusters.new_shards(cluster, members, names)
    demand(clusters.names_are_new(members, [one.name for one in planned]))
    new = tuple(_member(cluster, one, flavors[0].id, volumes[0], now, configuration) for one in planned)
    await _require_room(tx, call, new, hosts)
    asked = {new[at].id: order.availability_zone for at, order in enumerate(orders)}
    zones = {name: zone for name, zone in asked.items() if zone}
    if unknown := sorted(set(zones.values()) - {host.zone for host in hosts}):
        raise Refused(f"No host is in the availability zone {unknown[0]}.")
    return new, zones


def _flavor(call: Call, order: MemberOrder) -> Flavor:
    """Raises Refused with the codes that the specification has for clusters: 403 and 404, where instances get 400."""
    if order.flavorRef is None:
        raise Refused("A flavor is required for each instance in the cluster.", kind="forbidden")
    flavor = call.context.settings.flavor(order.flavorRef)
    if flavor is None:
        raise Refused(f"Flavor {order.flavorRef[:64]} cannot be found.", kind="missing")
    return flavor


def _volume(call: Call, flavor: Flavor, order: MemberOrder) -> int:
    if call.context.settings.volume_support:
        if order.volume is None:
            raise Refused("A volume size is required for each instance in the cluster.")
        return order.volume.size
    if flavor.disk_gb < 1:
        raise Refused(f"Local storage not specified in flavor ID: {flavor.id}.", kind="forbidden")
    return flavor.disk_gb


async def _require_room(tx: Transaction, call: Call, new: Sequence[Instance], hosts: Iterable[Host]) -> None:
    """Raises Refused when the project may not have them, or no host can."""
    if not new:
        return
    first, found = new[0], call.context.settings.flavor(new[0].flavor_id)
    more = Amount(len(new), len(new) * (found.ram_mb if found else 0), len(new) * first.volume_gb)
    saves = lifecycle.may_save_itself(found, first.volume_gb) if found else lifecycle.Allowed()
    demand(
        lifecycle.first_refusal(
            saves,
            await quota_allows(tx, call, more),
            lifecycle.may_place(first.version, first.volume_gb, hosts),
        )
    )


def _member(
    cluster: Cluster, new: NewMember, flavor_id: str, volume_gb: int, now: float, configuration: Configuration | None
) -> Instance:
    plain = Instance(
        id=str(uuid4()),
        group_id=cluster.id,
        project_id=cluster.project_id,
        name=new.name,
        role=new.role,
        status=Status.BUILD,
        flavor_id=flavor_id,
        volume_gb=volume_gb,
        version=cluster.version,
        created=now,
        updated=now,
        shard=new.shard,
    )
    return configurations.configured(plain, configuration)


def _like(
    cluster: Cluster, members: Iterable[Instance], new: NewMember, now: float, configuration: Configuration | None
) -> Instance:
    """A replica of the size of its shard's primary."""
    peers = [one for one in members if one.shard == new.shard]
    model = next((one for one in peers if one.role is Role.PRIMARY), peers[0])
    return _member(cluster, new, model.flavor_id, model.volume_gb, now, configuration)

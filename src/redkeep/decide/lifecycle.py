"""What an owner may ask of an instance, given what it and its neighbours are doing: the rules of sections 4.3 to 5.2 of
the database contract.

Pure: the API looks, asks here, and records. Nothing here knows HTTP; `Refusal.kind` is one of the kinds of
`errors.Refused`. A status that is not settled is the lock of the operation that set it, so whatever would step over it
is refused as busy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from redkeep.model.instance import Flavor, Host, Instance, Status
from redkeep.model.topology import Role

GIGABYTE = 1024**3
MEGABYTES_PER_GIGABYTE = 1024


@dataclass(frozen=True, slots=True)
class Allowed:
    """Record it. `members` are the ids of all instances whose status the operation takes as its lock."""

    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The very same thing has been asked for already: answer as if anew, record nothing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Do not record it; tell the caller why."""

    kind: str
    message: str


_TASKS = {
    Status.BUILD: "BUILDING",
    Status.REBOOT: "REBOOTING",
    Status.RESIZE: "RESIZING",
    Status.PROMOTE: "PROMOTING",
    Status.EJECT: "EJECTING",
    Status.DETACH: "DETACHING",
    Status.UPDATING: "UPDATING",
    Status.UPGRADE: "UPGRADING",
    Status.BACKUP: "BACKING UP",
    Status.SHUTDOWN: "DELETING",
}
"""What Trove calls the task behind a status."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What a project has, may have, or asks for more."""

    instances: int = 0
    ram_mb: int = 0
    volume_gb: int = 0


def first_refusal(*verdicts: Allowed | Refusal) -> Allowed | Refusal:
    """The first that says no, or else the last."""
    return next((verdict for verdict in verdicts if isinstance(verdict, Refusal)), verdicts[-1])


# --- Ordering -----------------------------------------------------------------------------------------------------


def may_place(version: str, volume_gb: int, hosts: Iterable[Host]) -> Allowed | Refusal:
    """Some host has the program, and a disk of that size. Which one, and whether it has room left, is decided when the
    instance is built."""
    able = [host for host in hosts if version in host.versions]
    if not able:
        return Refusal(
            "invalid",
            f"No host has redis-server {version}. Run `redkeep doctor` on a host to see which versions it finds.",
        )
    largest_gb = max(host.disk_free_bytes for host in able) // GIGABYTE
    if volume_gb > largest_gb:
        return Refusal(
            "too_large", f"A volume of {volume_gb} GB fits on no host: the largest has {largest_gb} GB of disk free."
        )
    return Allowed()


def may_save_itself(flavor: Flavor, volume_gb: int) -> Allowed | Refusal:
    """A full server can write its memory to its volume: replicas are made from such a copy."""
    if flavor.ram_mb > volume_gb * MEGABYTES_PER_GIGABYTE:
        return Refusal(
            "invalid",
            f"Volume of {volume_gb} GB is too small: flavor {flavor.id} holds {flavor.ram_mb} MB of memory, and Redis "
            "must be able to save all of it to the volume.",
        )
    return Allowed()


def within_quota(used: Amount, more: Amount, quota: Amount) -> Allowed | Refusal:
    """The project stays within its limits; only what grows can exceed them."""
    checks = (
        ("instances", used.instances, more.instances, quota.instances),
        ("ram", used.ram_mb, more.ram_mb, quota.ram_mb),
        ("volumes", used.volume_gb, more.volume_gb, quota.volume_gb),
    )
    exceeded = [name for name, has, wants, limit in checks if wants > 0 and has + wants > limit]
    if exceeded:
        return Refusal("too_large", f"Quota exceeded for resources: {exceeded}.")
    return Allowed()


def may_replicate(source: Instance) -> Allowed | Refusal:
    """Replicas follow a primary that serves. Others may be under construction at the same time."""
    if source.role is Role.REPLICA:
        return Refusal(
            "forbidden", f"Instance {source.id} is a replica itself: create a replica of {source.replica_of} instead."
        )
    return _serving(source)


def names_of(name: str, count: int) -> tuple[str, ...]:
    """What the replicas of one request are called."""
    return (name,) if count == 1 else tuple(f"{name}-{number}" for number in range(1, count + 1))


# --- Changing -----------------------------------------------------------------------------------------------------


def may_delete(instance: Instance, members: Collection[Instance]) -> Allowed | UnderWay | Refusal:
    """Anything settled but a source that still has replicas."""
    if instance.status is Status.SHUTDOWN:
        return UnderWay()
    if _replicas(instance, members):
        return Refusal("forbidden", "Detach replicas before deleting replica source.")
    return _free(instance)


def may_restart(instance: Instance) -> Allowed | Refusal:
    """Any settled instance that was built, one in ERROR included: a restart may be what it needs."""
    return _built(instance)


def may_roll(instance: Instance, members: Collection[Instance], *, to: str | None = None) -> Allowed | Refusal:
    """A serving source with all of its replicas, one after the other; `to` a newer version, or the same."""
    if instance.role is Role.REPLICA:
        return Refusal(
            "invalid",
            f"Instance {instance.id} is a replica: roll its source {instance.replica_of}, and it comes along.",
        )
    if to is not None and (refusal := _not_newer(instance, to)):
        return refusal
    return first_refusal(*map(_serving, members), _lock(members))


def _not_newer(instance: Instance, version: str) -> Refusal | None:
    old, new = (tuple(map(int, name.split("."))) for name in (instance.version, version))
    if new == old:
        return Refusal("invalid", f"Instance {instance.id} has Redis {version} already.")
    if new < old:
        return Refusal(
            "invalid",
            f"Instance {instance.id} has Redis {instance.version}, whose files Redis {version} cannot read. "
            "Create a new instance and move the data with a client.",
        )
    return None


def may_configure(instance: Instance, members: Collection[Instance]) -> Allowed | Refusal:
    """A source, with all of its replicas: they have the same parameters, since any of them may take its place.

    Members in ERROR do not stand in the way; they take the parameters with their next start.
    """
    if instance.role is Role.REPLICA:
        return Refusal(
            "invalid", f"Instance {instance.id} is a replica: its configuration is that of {instance.replica_of}."
        )
    free = (_free(one) for one in members if one.id != instance.id)
    return first_refusal(_serving(instance), *free, _lock(one for one in members if one.status is Status.ACTIVE))


def may_resize(
    instance: Instance,
    members: Collection[Instance],
    flavors: Sequence[Flavor],
    *,
    flavor: Flavor | None,
    volume_gb: int | None,
) -> Allowed | Refusal:
    """To another flavor, or to a larger volume, or both. A source takes its replicas along."""
    touched = (instance, *_replicas(instance, members))
    size = {one.id: one for one in flavors}
    if flavor and flavor.id == instance.flavor_id:
        return Refusal("invalid", f"Instance {instance.id} has flavor {flavor.id} already.")
    if volume_gb is not None and volume_gb <= instance.volume_gb:
        return Refusal(
            "invalid", f"The new volume size of {volume_gb} GB must be larger than the {instance.volume_gb} GB of now."
        )
    source = next((one for one in members if one.id == instance.replica_of), None)
    held = size.get(source.flavor_id) if source else None
    if flavor and held and flavor.ram_mb < held.ram_mb:
        return Refusal("invalid", f"A replica cannot be smaller than its source: resize {instance.replica_of} instead.")
    target = flavor or size.get(instance.flavor_id)
    fits = may_save_itself(target, volume_gb or instance.volume_gb) if target else Allowed()
    return first_refusal(fits, *map(_built, touched), _lock(touched))


def may_promote(instance: Instance, members: Collection[Instance]) -> Allowed | Refusal:
    """A serving replica takes over from its source, if nobody in the set is busy.

    Members in ERROR do not stand in the way, and stay in ERROR: promoting is one way to get rid of them.
    """
    if instance.role is not Role.REPLICA:
        return _not_a_replica(instance)
    source = next((one for one in members if one.id == instance.replica_of), None)
    if source is not None and source.site != instance.site:
        return Refusal(
            "invalid",
            f"Instance {instance.id} is at site {instance.site}, its source at {source.site}: only a failover of the "
            "whole backend goes there (redkeep failover).",
        )
    busy = (_free(one) for one in members if one.id != instance.id)
    return first_refusal(_serving(instance), *busy, _lock(one for one in members if one.status is Status.ACTIVE))


def may_back_up(instance: Instance) -> Allowed | Refusal:
    """A serving instance, a replica too. Its status is the lock of the instance alone: the data may be copied from any
    member of its set, all of which go on."""
    return _serving(instance)


def may_detach(instance: Instance) -> Allowed | Refusal:
    """A serving replica leaves its source."""
    if instance.role is not Role.REPLICA:
        return _not_a_replica(instance)
    return _serving(instance)


def may_eject(
    instance: Instance, members: Collection[Instance], *, heartbeat_age: float | None, expiry: float
) -> Allowed | Refusal:
    """A source of which nothing was heard for `expiry` seconds. Whether it is busy does not matter: it is dead.

    `heartbeat_age` is None when its host was never heard of.
    """
    replicas = _replicas(instance, members)
    if not replicas:
        return Refusal("invalid", f"Instance {instance.id} is not a replica source.")
    if all(one.site != instance.site for one in replicas):
        return Refusal("invalid", f"Instance {instance.id} has no replica at its own site {instance.site}.")
    if heartbeat_age is not None and heartbeat_age < expiry:
        return Refusal("invalid", f"Replica Source {instance.id} cannot be ejected as it has a current heartbeat")
    return _lock((instance, *replicas))


def has_users(instance: Instance) -> Allowed | Refusal:
    """Users belong to the source, which hands them to its replicas; those of a cluster are the same on every member."""
    if instance.role is Role.REPLICA and instance.shard is None:
        return Refusal("invalid", f"Instance {instance.id} is a replica: its users are those of {instance.replica_of}.")
    return Allowed()


def may_change_users(instance: Instance) -> Allowed | Refusal:
    """A serving source's can be changed at any time."""
    return first_refusal(has_users(instance), _serving(instance))


# --- What the rules are made of -----------------------------------------------------------------------------------


def _replicas(source: Instance, members: Iterable[Instance]) -> tuple[Instance, ...]:
    return tuple(one for one in members if one.replica_of == source.id)


def _lock(members: Iterable[Instance]) -> Allowed:
    return Allowed(tuple(one.id for one in members))


def _not_a_replica(instance: Instance) -> Refusal:
    return Refusal("invalid", f"Instance {instance.id} is not a replica.")


def _free(instance: Instance) -> Allowed | Refusal:
    """No operation owns it."""
    if instance.status is Status.BUILD:
        return Refusal("busy", f"Instance {instance.id} is not ready. (Status is BUILD).")
    if not instance.status.settled:
        return Refusal(
            "busy",
            f"Instance {instance.id} is not currently available for an action to be performed "
            f"(task status was {_TASKS.get(instance.status, instance.status)}).",
        )
    return _lock((instance,))


def _built(instance: Instance) -> Allowed | Refusal:
    """Free, and it has a server somewhere."""
    free = _free(instance)
    if isinstance(free, Allowed) and instance.address is None:
        return Refusal("busy", f"Instance {instance.id} was never built: delete it and create another.")
    return free


def _serving(instance: Instance) -> Allowed | Refusal:
    """Free, and it works."""
    free = _free(instance)
    if isinstance(free, Allowed) and instance.status is not Status.ACTIVE:
        return Refusal("busy", f"Instance {instance.id} is not ready. (Status is {instance.status}).")
    return free

"""What may be done with a backup, and from whom one is taken. Pure, as `decide.lifecycle` is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from redkeep.decide.lifecycle import GIGABYTE, Allowed, Refusal, UnderWay, first_refusal
from redkeep.decide.promotion import lag_bytes, unfitness
from redkeep.model.backup import Backup, BackupStatus, holder_of
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Flavor, Host
from redkeep.model.topology import Role

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Nobody:
    """No member can be copied now."""

    reason: str


def copy_from(
    facts: Mapping[str, ServerFacts],
    primary_id: str | None,
    *,
    named: str,
    failed: Collection[str],
    lag_limit: int,
) -> str | Nobody:
    """The member to copy: a replica that is in step, so that the primary is spared; else the primary.

    Those at which it has failed before come last. Of several replicas the one that was `named` is taken, then the one
    that has applied most, then the lowest id. `lag_limit`: bytes that one may lack and still be in step.
    """
    primary = facts.get(primary_id or "")
    if primary is None or not primary.alive or primary.role is not Role.PRIMARY:
        return Nobody("its primary is not seen, so nobody knows which replica is in step")
    in_step = [one for one in facts.values() if one.instance_id != primary_id and _follows(one, primary, lag_limit)]

    def rank(one: ServerFacts) -> tuple[bool, bool, bool, int, str]:
        name = one.instance_id
        return (name in failed, name == primary_id, name != named, -one.offset, name)

    return min((*in_step, primary), key=rank).instance_id


def _follows(replica: ServerFacts, primary: ServerFacts, lag_limit: int) -> bool:
    return (
        unfitness(replica, primary.replication_id) is None
        and replica.upstream is not None
        and replica.upstream.link_up
        and lag_bytes(replica, primary) <= lag_limit
    )


def may_delete(backup: Backup, restoring: Collection[str]) -> Allowed | UnderWay | Refusal:
    """One that is neither being made nor being used. `restoring`: backups that instances are being made from."""
    if backup.status is BackupStatus.DELETING:
        return UnderWay()
    if backup.status.running:
        return Refusal("busy", f"Backup {backup.id} is running: wait until it is COMPLETED or FAILED.")
    if backup.id in restoring:
        return Refusal("busy", f"Backup {backup.id} is being restored into an instance: wait until that is done.")
    return Allowed()


def may_restore(
    backup: Backup | None, hosts: Iterable[Host], *, version: str, flavor: Flavor, volume_gb: int
) -> Allowed | Refusal:
    """A whole one, by a Redis that can read it, on a host that has it, into an instance that can hold it; or none."""
    return first_refusal(
        Allowed(), *((_whole(backup, hosts), _fits(backup, version, flavor, volume_gb)) if backup else ())
    )


def _whole(backup: Backup, hosts: Iterable[Host]) -> Allowed | Refusal:
    if backup.status is not BackupStatus.COMPLETED:
        return Refusal("busy", f"Backup {backup.id} cannot be restored: it is {backup.status}, not COMPLETED.")
    holder = holder_of(backup.location)
    if holder and all(host.id != holder for host in hosts):
        return Refusal("busy", f"Backup {backup.id} is on host {holder}, which this installation does not know.")
    return Allowed()


def _fits(backup: Backup, version: str, flavor: Flavor, volume_gb: int) -> Allowed | Refusal:
    if _number(version) < _number(backup.version):
        return Refusal(
            "invalid", f"Backup {backup.id} is of Redis {backup.version}, which Redis {version} cannot read."
        )
    if backup.memory_bytes > flavor.maxmemory_bytes:
        needs = -(-backup.memory_bytes // _MIB)
        return Refusal(
            "forbidden",
            f"Backup is too large for given flavor: its data takes {needs} MB of memory, "
            f"flavor {flavor.id} has {flavor.ram_mb} MB.",
        )
    if backup.size_bytes > volume_gb * GIGABYTE:
        needs = -(-backup.size_bytes // GIGABYTE)
        return Refusal(
            "forbidden", f"Backup is too large for given volume: it has {needs} GB, the volume {volume_gb} GB."
        )
    return Allowed()


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))

"""What every order of instances has in common: the quota, and the row of a replica."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from redkeep.api.call import Call
from redkeep.api.settings import ApiSettings
from redkeep.decide import lifecycle
from redkeep.decide.lifecycle import Amount
from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Role
from redkeep.ports import Transaction


def replica_of(source: Instance, name: str, now: float, *, site: str = "") -> Instance:
    """The row of a new one; at the source's site, unless another one is named."""
    return Instance(
        id=str(uuid4()),
        group_id=source.group_id,
        project_id=source.project_id,
        name=name,
        role=Role.REPLICA,
        status=Status.BUILD,
        flavor_id=source.flavor_id,
        volume_gb=source.volume_gb,
        version=source.version,
        created=now,
        updated=now,
        replica_of=source.id,
        configuration_id=source.configuration_id,
        parameters=source.parameters,
        proven=source.proven,
        site=site or source.site,
    )


async def quota_allows(tx: Transaction, call: Call, more: Amount) -> lifecycle.Allowed | lifecycle.Refusal:
    settings = call.context.settings
    quota = Amount(settings.max_instances, settings.max_ram_mb, settings.max_volume_gb)
    return lifecycle.within_quota(used(settings, await tx.instances(project_id=call.project_id)), more, quota)


def used(settings: ApiSettings, instances: Sequence[Instance]) -> Amount:
    """What instances add up to."""
    ram = {flavor.id: flavor.ram_mb for flavor in settings.flavors}
    return Amount(
        len(instances),
        sum(ram.get(one.flavor_id, 0) for one in instances),
        sum(one.volume_gb for one in instances),
    )

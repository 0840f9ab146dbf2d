"""A place for a new server: chosen in the store before anyone acts on it, given up only when it proves to be taken."""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.hosts import NoPlace, place
from redkeep.decide.sites import active_site
from redkeep.errors import NotNow, Refused
from redkeep.model.facts import ServerFacts
from redkeep.model.orders import EnsureRunning
from redkeep.model.topology import Address
from redkeep.operations.context import Run

SILENT = 10.0
"""A host that has said nothing for so many seconds gets no new servers."""


async def ensure_placed(run: Run, instance_id: str, *, only: str | None = None, zone: str = "") -> None:
    """The instance has a host and a port; on host `only`, or in that zone, when they are given. Raises NotNow when
    there is none at the moment."""
    if run.instance(instance_id).address is not None:
        return
    async with run.change() as tx:
        here = active_site(run.tools.backend, await tx.service_clusters())
        instance, now = run.instance(instance_id), await tx.now()
        found = place(
            [host for host in await tx.hosts() if now - host.seen_at < SILENT and only in (None, host.id)],
            await tx.instances(),
            version=instance.version,
            flavor=run.flavor(instance),
            volume_gb=instance.volume_gb,
            group_id=instance.group_id,
            site=instance.site or here,
            shard=instance.shard,
            zone=zone,
            avoid=[(host, port) for host, port in run.operation.choice.get("avoid", ())],
        )
        if isinstance(found, NoPlace):
            raise NotNow(f"{_nobody(only)} can take {instance.name}: {found.reason}")
        address = Address(found.address, found.port)
        await tx.save(replace(instance, host_id=found.host_id, address=address, site=found.site))


def _nobody(only: str | None) -> str:
    return f"no host but {only} has the backup, and it" if only else "no host"


async def start_placed(run: Run, instance_id: str, order: EnsureRunning) -> ServerFacts:
    """Start it there. When a stranger has the port, the place is given up and NotNow says to try again."""
    instance = run.instance(instance_id)
    try:
        return await run.tell(instance, order, timeout=30)
    except Refused as error:
        if error.kind != "conflict" or instance.address is None:
            raise
        avoid = [*run.operation.choice.get("avoid", ()), [instance.host_id, instance.address.port]]
        run.operation = replace(run.operation, choice={**run.operation.choice, "avoid": avoid})
        await run.alter(
            instances=lambda one: replace(one, host_id=None, address=None) if one.id == instance_id else one,
            note=str(error),
            about=instance_id,
        )
        raise NotNow(f"{error}; another port is tried") from error

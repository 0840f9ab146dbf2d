"""Another flavor or volume, without a restart: `maxmemory` and the process limit change under the running server.

`args`: `instance`; `flavor` and `volume_gb`, as far as they change. All members that are in RESIZE change together.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.errors import Refused
from redkeep.model.instance import Status
from redkeep.model.orders import Configure
from redkeep.operations.context import Run


async def run(run: Run) -> None:
    concerned = [one for one in run.instances if one.status is Status.RESIZE]
    flavor = run.tools.flavors.get(str(run.operation.args.get("flavor", "")))
    volume = run.operation.args.get("volume_gb")

    run.mark("check", 0.1)
    facts = await run.look(concerned)
    for one in concerned:
        used = facts[one.id].memory_used if one.id in facts else 0
        if flavor and used > flavor.maxmemory_bytes:
            message = f"{one.name} holds {used >> 20} MB; flavor {flavor.name} has {flavor.ram_mb} MB"
            raise Refused(message, kind="too_large")

    run.mark("decide", 0.3)
    names = {one.id for one in concerned}
    await run.alter(
        instances=lambda one: (
            replace(one, flavor_id=flavor.id if flavor else one.flavor_id, volume_gb=volume or one.volume_gb)
            if one.id in names
            else one
        )
    )

    run.mark("configure", 0.6)
    for one in concerned:
        await run.tell(run.instance(one.id), Configure(run.spec(run.instance(one.id)), run.group.epoch))

    run.mark("record", 1.0)
    await run.settle([one.id for one in concerned], Status.ACTIVE)
    await run.note(f"{', '.join(one.name for one in concerned)} resized", run.arg("instance"))


async def give_up(run: Run, reason: str) -> None:
    await run.settle([one.id for one in run.instances if one.status is Status.RESIZE], Status.ERROR, reason)

"""Add replicas to a group: place and start them as followers of the primary, wait until each has the whole data set.

The primary is told of the larger group before anyone may be promoted: its agent must count the new members before the
managers do (see `decide/fencing.py`).

`args`: `instances`, the new ones.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from redkeep.errors import Refused
from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.orders import AwaitReplicas, Brief, EnsureRunning
from redkeep.operations.context import Run
from redkeep.operations.placing import ensure_placed, start_placed

HURRY_AGAIN = 5.0
"""Seconds between two orders to the primary to await the replicas: less than it would wait without another one."""


async def run(run: Run) -> None:
    names = [name for name in run.arg("instances") if run.find(name)]
    if not names:
        raise Refused("the replicas were deleted before they were made", kind="missing")

    await run.step("check", 0.0)
    await _require_room(run)

    await run.step("place", 0.05)
    for name in names:
        await ensure_placed(run, name)

    await run.step("synchronise", 0.1)
    for at in range(0, len(names), run.tools.full_syncs):
        few = names[at : at + run.tools.full_syncs]
        await _hurry(run, len(few))
        for name in few:
            await _start(run, name)
        await _until_synchronised(run, few, done=at / len(names), share=len(few) / len(names))
    await _hurry(run, 0)

    run.mark("brief the primary", 0.95)
    everyone = (*run.members, *(one for one in run.instances if one.id in names and one.status is Status.BUILD))
    told = run.topology(run.primary.id, everyone)
    await run.tell(run.primary, Brief(run.assignment(run.primary, told)))

    run.mark("record", 1.0)
    await run.alter(
        group=lambda group: replace(group, topology_epoch=group.epoch),
        instances=lambda one: replace(one, status=Status.ACTIVE, fault=None) if one.id in names else one,
        note=f"{', '.join(run.instance(name).name for name in names)} follow {run.primary.name}",
    )

    run.mark("brief the others")
    await run.announce(told)
    await run.brief_members(told)


async def give_up(run: Run, reason: str) -> None:
    """They keep their host, so that deleting them removes them there, and lose their address: they are no members."""
    names = [name for name in run.arg("instances") if (one := run.find(name)) and one.status is Status.BUILD]
    await run.settle(names, Status.ERROR, reason)
    await run.alter(instances=lambda one: replace(one, address=None) if one.id in names else one)


async def _start(run: Run, name: str) -> None:
    instance = run.instance(name)
    told = run.topology(run.primary.id, (*run.members, instance))
    await start_placed(run, name, EnsureRunning(run.spec(instance), run.assignment(instance, told)))


async def _hurry(run: Run, replicas: int) -> None:
    """Have the primary serve that many at once. It saves time, and nothing else: it goes on without."""
    await run.try_tell(run.primary, AwaitReplicas(run.primary.id, run.group.id, run.group.epoch, replicas))


async def _require_room(run: Run) -> None:
    """The primary can save what it holds: persistence must never fail while it has replicas. Raises Refused."""
    primary = run.primary
    facts = (await run.look([primary])).get(primary.id)
    if primary.status is Status.ERROR and (facts is None or not facts.alive):
        raise Refused(f"{primary.name}, of which they were to be replicas, does not serve", kind="busy")
    async with run.tools.store.read() as tx:
        free = next((host.disk_free_bytes for host in await tx.hosts() if host.id == primary.host_id), None)
    if facts is not None and free is not None and facts.memory_used > free:
        message = f"{primary.name} holds {facts.memory_used >> 20} MB and its host has {free >> 20} MB of disk free"
        raise Refused(f"{message}: it could not save itself; free some, or choose a larger host", kind="too_large")


async def _until_synchronised(run: Run, names: list[str], *, done: float, share: float) -> None:
    """Each has completed its first synchronisation, and applied more than the primary had then: the stream flows.

    Until a replica's first acknowledgement, up to a second later, a primary that sends without a file keeps all that is
    new to itself, though the link is up on both sides. A briefing moves the offset at once, its pings each second.
    """
    pending = list(names)
    marks: dict[str, int] = {}
    told = asyncio.get_running_loop().time()
    while pending:
        if asyncio.get_running_loop().time() > told + HURRY_AGAIN:
            told = asyncio.get_running_loop().time()
            await _hurry(run, len(names))
        facts = await run.look([run.primary, *(run.instance(name) for name in pending)])
        offset = facts[run.primary.id].offset if run.primary.id in facts else -1
        linked = [name for name in pending if offset >= 0 and name in facts and _linked(facts[name])]
        if new := [name for name in linked if name not in marks]:
            marks |= dict.fromkeys(new, offset)
            await run.try_tell(run.primary, Brief(run.assignment(run.primary, run.topology(run.primary.id))))
        behind = {name for name in pending if name not in facts or facts[name].offset <= marks.get(name, sys.maxsize)}
        pending = [name for name in pending if name in behind]
        if pending:
            part = 1 - sum(1 - _received(facts.get(name)) for name in pending) / len(names)
            run.operation = replace(run.operation, progress=0.1 + 0.8 * (done + share * part))
            await asyncio.gather(*(_restart_if_gone(run, run.instance(name), facts) for name in pending))
            await run.wait(0.05)


def _received(facts: ServerFacts | None) -> float:
    """How much of its first synchronisation a replica has, from 0 to 1, as far as it is known."""
    link = facts.upstream if facts else None
    return min(1.0, link.received_bytes / link.total_bytes) if link and link.total_bytes else 0.0


def _linked(facts: ServerFacts) -> bool:
    return facts.alive and facts.synced_once and facts.upstream is not None and facts.upstream.link_up


async def _restart_if_gone(run: Run, instance: Instance, facts: dict[str, ServerFacts]) -> None:
    if instance.id in facts and facts[instance.id].process is Process.ABSENT:
        await _start(run, instance.id)

"""What all runbooks about clusters share: who is in one, how members start and leave, and how a task ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from redkeep.decide.forming import Place
from redkeep.decide.slots import even_ranges
from redkeep.errors import NotNow, RedkeepError, StaleEpoch
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.cluster_orders import ClusterForget
from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Fault, Instance, Status
from redkeep.model.orders import EnsureRemoved, EnsureRunning
from redkeep.model.slots import Ranges
from redkeep.model.topology import Role
from redkeep.operations.context import Overtaken, Run
from redkeep.operations.placing import ensure_placed, start_placed

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Servers that are started at the same time."""
WATCH_INTERVAL = 0.3
"""Seconds between two looks for members that have died while they are being introduced."""
LOST_AFTER = 90.0
"""Seconds without a word after which a host counts as lost, as for an eject."""
FORGET_LIMIT = 60.0
"""Seconds for which Redis does not hear of a node that it was told to forget."""


# --- Who is in it -----------------------------------------------------------------------------------------------------


def in_cluster(run: Run) -> tuple[Instance, ...]:
    """Those that have joined: whose node id is known. One that failed to join never counts."""
    return tuple(one for one in run.instances if one.node_id is not None)


def by_shard(members: Iterable[Instance]) -> list[Instance]:
    """Primaries first, each by the number of its shard, then by name."""
    return sorted(
        members,
        key=lambda one: (one.role is Role.REPLICA, len(one.shard or ""), one.shard or "", len(one.name), one.name),
    )


def places(members: Sequence[Instance], *, first_epoch: int, slots: bool = False) -> tuple[Place, ...]:
    """What each is to be: a primary, or a replica of its shard's primary. Epochs are distinct and rise from the first.

    With `slots` the primaries divide all of them among themselves, in order.
    """
    ordered = by_shard(members)
    primaries = [one for one in ordered if one.role is Role.PRIMARY]
    owned: Mapping[str, Ranges] = (
        dict(zip((one.id for one in primaries), even_ranges(len(primaries)), strict=True)) if slots else {}
    )
    leads = {one.shard: one.id for one in primaries}
    return tuple(
        Place(
            instance_id=one.id,
            group_id=one.group_id,
            address=one.address,
            config_epoch=first_epoch + at,
            ranges=owned.get(one.id, ()),
            follows=None if one.role is Role.PRIMARY else leads.get(one.shard),
        )
        for at, one in enumerate(ordered)
        if one.address is not None
    )


# --- Starting ---------------------------------------------------------------------------------------------------------


async def start_members(run: Run, names: Sequence[str]) -> None:
    """Each has a place, and a server that knows nobody yet runs there, with its data loaded."""
    zones = run.operation.args.get("zones", {})
    for name in names:
        await ensure_placed(run, name, zone=zones.get(name, ""))
    few = asyncio.Semaphore(AT_ONCE)

    async def start(name: str) -> None:
        async with few:
            await _ensure_running(run, name)
            await run.until_loaded(run.instance(name))

    await _all_or_first_error(start(name) for name in names)


async def _ensure_running(run: Run, name: str) -> None:
    await start_placed(run, name, running(run, run.instance(name)))


def running(run: Run, instance: Instance, *, restart_token: str = "") -> EnsureRunning:
    """The order to run a member. Its role is the cluster's affair: the assignment names none."""
    assigned = run.assignment(instance, run.topology(None, [instance]))
    return EnsureRunning(run.spec(instance), assigned, restart_token=restart_token)


async def _all_or_first_error(work: Iterable[Awaitable[object]]) -> None:
    """Wait for all, so that nothing goes on behind the runbook's back; then raise what the first raised."""
    for one in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(one, BaseException):
            raise one


@contextlib.asynccontextmanager
async def kept_running(run: Run, names: Sequence[str]) -> AsyncIterator[None]:
    """While the block runs, members among these whose process is gone are started again: their agent would wait until
    the others have elected a successor, which they cannot yet."""
    watch = asyncio.create_task(_restart_the_dead(run, names))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _restart_the_dead(run: Run, names: Sequence[str]) -> None:
    while True:
        await asyncio.sleep(WATCH_INTERVAL)
        try:
            facts = await run.look([run.instance(name) for name in names])
            gone = [name for name, one in facts.items() if one.process in (Process.EXITED, Process.ABSENT)]
            for name in gone:
                log.warning("%s has died while its cluster is formed: it is started again", run.instance(name).name)
                await run.tell(run.instance(name), running(run, run.instance(name)), timeout=30)
        except RedkeepError as error:
            log.info("group %s: %s", run.group.id, error)


# --- Leaving ----------------------------------------------------------------------------------------------------------


async def take_out(run: Run, leaving: Sequence[Instance], node_ids: Collection[str]) -> set[str]:
    """These are stopped and their files are gone; whoever stays knows them no more, and hears of them from nobody.

    First they stop, so that they cannot introduce themselves again, then all others are told at once: who is told
    later than a minute after the first could hand the name back to it. Raises NotNow until that is so.

    Returns those that could only be forgotten, since nothing was heard of their hosts for long: nobody listens to a
    node that it does not know, so they do not come back into the cluster, but their files are there still.
    """
    gone = {one.id for one in leaving}
    staying = [one for one in in_cluster(run) if one.id not in gone]
    run.mark("stop")
    silent = await _silent_hosts(run)
    lost = {one.id for one in leaving if one.host_id in silent}
    orders = (
        run.tell(one, EnsureRemoved(one.id, run.group.id, run.group.epoch), timeout=30)
        for one in leaving
        if one.host_id is not None and one.id not in lost
    )
    await _all_or_first_error(orders)
    run.mark("forget")
    deadline = asyncio.get_running_loop().time() + FORGET_LIMIT
    while node_ids and staying:
        await asyncio.gather(*(_forget(run, one, node_ids) for one in staying))
        facts = await run.look(staying)
        if not (late := _who_know(staying, facts, node_ids)):
            return lost
        if asyncio.get_running_loop().time() > deadline:
            raise NotNow(f"{', '.join(late)} cannot be told to forget who has left")
        await run.wait(0.1)
    return lost


async def _silent_hosts(run: Run) -> set[str]:
    """Those of which nothing was heard for so long that nobody waits for them."""
    async with run.tools.store.read() as tx:
        now = await tx.now()
        return {host.id for host in await tx.hosts() if now - host.seen_at > LOST_AFTER}


async def _forget(run: Run, one: Instance, node_ids: Collection[str]) -> None:
    await run.try_tell(one, ClusterForget(one.id, run.group.id, run.group.epoch, tuple(sorted(node_ids))))


def _who_know(staying: Iterable[Instance], facts: Mapping[str, ServerFacts], node_ids: Collection[str]) -> list[str]:
    """Those that still know one of these, or cannot be asked."""
    found = []
    for one in staying:
        said = facts[one.id].cluster if one.id in facts and facts[one.id].alive else None
        if said is None or set(node_ids) & ({each.id for each in said.view.members} | set(said.nameless)):
            found.append(one.name)
    return found


def require_nobody_follows(staying: Iterable[Instance], facts: Mapping[str, ServerFacts], node_ids: set[str]) -> None:
    """Redis does not forget whom it replicates, and a replica without a primary would be nobody's. Raises NotNow."""
    for one in staying:
        said = facts[one.id].cluster if one.id in facts else None
        if said is not None and said.primary_id in node_ids:
            raise NotNow(f"{one.name} still follows a member that is to leave")


# --- How a task ends --------------------------------------------------------------------------------------------------


async def joined(run: Run, names: Collection[str], facts: Mapping[str, ServerFacts], note: str) -> None:
    """New members are members: their rows say so, with what Redis calls them."""

    def settled(one: Instance) -> Instance:
        said = facts[one.id].cluster if one.id in facts else None
        if one.id not in names or said is None:
            return one
        status = Status.ACTIVE if one.status is Status.BUILD else one.status
        return replace(one, status=status, node_id=said.node_id, fault=None)

    await run.alter(instances=settled, note=note)


async def finish(run: Run, task: ClusterTask, note: str, **changes: object) -> None:
    """The cluster is free again, unless somebody has taken it meanwhile."""

    def free(cluster: Cluster) -> Cluster:
        ours = cluster.task is task
        freed = replace(cluster, task=ClusterTask.NONE, fault=None) if ours else cluster
        return replace(freed, **changes)  # type: ignore[arg-type]

    await run.alter(cluster=free, note=note)


async def fail(run: Run, task: ClusterTask, reason: str) -> None:
    """The cluster is free again, and says why the task came to nothing."""
    async with run.change() as tx:
        if run.cluster is not None and run.cluster.task is task:
            now = await tx.now()
            await tx.save(replace(run.cluster, task=ClusterTask.NONE, fault=Fault(reason, now), updated=now))


async def drop_unfinished(run: Run, names: Collection[str], reason: str) -> None:
    """New members that never joined go, so that the cluster is as it was; those that cannot be removed now stay, in
    ERROR, to be taken out by a shrink."""
    new = [one for name in names if (one := run.find(name)) and one.status is Status.BUILD]
    facts = await run.look([one for one in new if one.host_id])
    node_ids = {said.node_id for one in facts.values() if (said := one.cluster) is not None}
    stuck: set[str] = set()
    try:
        stuck = await take_out(run, new, node_ids)
    except StaleEpoch:
        raise
    except (RedkeepError, Overtaken) as error:
        log.warning("group %s: new members cannot be removed: %s", run.group.id, error)
        stuck = {one.id for one in new}
    async with run.change() as tx:
        now = await tx.now()
        told = Fault(reason, now)
        ours = [one for one in run.instances if one.id in {each.id for each in new}]
        await tx.save(
            *(replace(one, status=Status.ERROR, fault=told, updated=now) for one in ours if one.id in stuck),
            *(replace(one, deleted=True, updated=now) for one in ours if one.id not in stuck),
        )

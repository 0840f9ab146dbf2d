"""What a runbook acts with: the rows, guarded changes, orders to agents, and the marks between its steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from redkeep.decide.durability import confirmations, promised
from redkeep.decide.topology import assignment, elsewhere, members, topology
from redkeep.errors import NotNow, RedkeepError, Refused, StaleEpoch
from redkeep.model.cluster import Cluster
from redkeep.model.facts import Assignment, Process, ServerFacts, ServerSpec
from redkeep.model.instance import Event, Fault, Flavor, Group, Instance, Status
from redkeep.model.operation import Kind, Operation, State
from redkeep.model.orders import Brief, ExpectAbsence, Order, target
from redkeep.model.site import Backend
from redkeep.model.topology import Topology
from redkeep.orders import HA, encode_news
from redkeep.ports import Agents, Bus, Store, Transaction

log = logging.getLogger(__name__)

StepHook = Callable[[Kind, str], None]
"""Called at every mark. Tests let it kill the doer there."""


Row = TypeVar("Row", Group, Instance, Cluster)


def _as_it_is(row: Row) -> Row:
    return row


class Overtaken(Exception):
    """Something more urgent waits for this group; the operation goes on later, from the top."""


def no_hook(kind: Kind, step: str) -> None:
    """What is called at every mark in production."""


def nobody_seen(instance_id: str) -> ServerFacts | None:
    """When there is nobody who watches."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What all operations of one manager share."""

    store: Store
    agents: Agents
    bus: Bus
    flavors: Mapping[str, Flavor]
    backend: Backend = field(default_factory=Backend)
    """What this manager and its like serve, and its sites."""
    word_seconds: float = 1.5
    """How long an agent's primaries may write after their last confirmation."""
    full_syncs: int = 4
    """How many replicas of one primary may be in their first synchronisation at once."""
    lag_limit_bytes: int = 64 * 1024 * 1024
    """A replica that lacks more than this is not promoted: writers would wait for too long."""
    last_seen: Callable[[str], ServerFacts | None] = nobody_seen
    """What this manager last heard of a server that may not answer any more."""
    roll_patience: float = 120.0
    """Seconds that a server which was started anew may take to come back, those not counted in which it gets on."""
    host_lost: float = 120.0
    """Seconds after which an operation gives up waiting for a host that says nothing, where it can do nothing else."""
    at_step: StepHook = no_hook


@dataclass(slots=True)
class Run:
    """One operation being worked on by one manager, under the lease that `group` carries."""

    tools: Tools
    holder: str
    operation: Operation
    group: Group
    instances: tuple[Instance, ...]
    """Those of the group that are not deleted."""
    overtaken: asyncio.Event = field(default_factory=asyncio.Event)
    cluster: Cluster | None = None
    """The cluster that the instances are members of, if they are."""

    # --- marks ----------------------------------------------------------------------------------------------------

    def mark(self, step: str, progress: float | None = None) -> None:
        """Enter a step. It is written down with the next change: free of cost where milliseconds count."""
        self.operation = replace(
            self.operation,
            state=State.RUNNING,
            step=step,
            progress=self.operation.progress if progress is None else progress,
        )
        self.tools.at_step(self.operation.kind, step)

    async def step(self, step: str, progress: float | None = None) -> None:
        """Enter a step and write it down, for everyone who watches the progress."""
        self.mark(step, progress)
        async with self.change():
            pass

    # --- rows -----------------------------------------------------------------------------------------------------

    def arg(self, name: str) -> Any:
        return self.operation.args[name]

    def instance(self, instance_id: str) -> Instance:
        """Raises Refused (`missing`) when it is gone."""
        for one in self.instances:
            if one.id == instance_id:
                return one
        raise Refused(f"instance {instance_id} is not there any more", kind="missing")

    def find(self, instance_id: str | None) -> Instance | None:
        return next((one for one in self.instances if one.id == instance_id), None)

    @property
    def primary(self) -> Instance:
        """The present primary, as the store has it."""
        return self.instance(self.group.primary_id or "")

    @property
    def members(self) -> tuple[Instance, ...]:
        return members(self.instances)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Transaction]:
        """Change rows, provided that the lease still holds; the operation's state is written with them.

        Raises StaleEpoch when somebody else has the lease, and Refused when the operation was told to stop. Inside the
        block `group` and `instances` are as the store has them now: build what is saved from them, since the API may
        have changed them since they were last read.
        """
        async with self.tools.store.begin() as tx:
            await self._read(tx, lock=True)
            yield tx
            await tx.save(self.operation)
            await self._read(tx)

    async def _read(self, tx: Transaction, *, lock: bool = False) -> None:
        found = await tx.whole_group(self.group.id, lock=lock)
        if found is None or found.group.epoch != self.group.epoch or found.group.holder != self.holder:
            seen = found.group.epoch if found else 0
            raise StaleEpoch(f"the lease of group {self.group.id} is lost", seen=seen)
        self.group, self.instances, self.cluster = found.group, found.instances, found.cluster
        self._heed(found.operations, found.now)

    def _heed(self, open_ones: Iterable[Operation], now: float) -> None:
        """Somebody may have said meanwhile that the operation's time is over. Raises Refused once, so that it is given
        up in order; what giving it up writes is not stopped again."""
        said = next((one.deadline for one in open_ones if one.id == self.operation.id), 0.0)
        if said and said < self.operation.deadline:
            self.operation = replace(self.operation, deadline=said)
            if said <= now:
                raise Refused("It was stopped on request.", kind="busy")

    async def alter(
        self,
        *,
        group: Callable[[Group], Group] = _as_it_is,
        instances: Callable[[Instance], Instance] = _as_it_is,
        cluster: Callable[[Cluster], Cluster] = _as_it_is,
        note: str = "",
        about: str | None = None,
    ) -> None:
        """One guarded change: rows become what these make of them; with `note` an event (about an instance)."""
        async with self.change() as tx:
            now = await tx.now()
            altered = [(one, instances(one)) for one in self.instances]
            await tx.save(group(self.group), *(replace(new, updated=now) for old, new in altered if new != old))
            if self.cluster is not None and (changed := cluster(self.cluster)) != self.cluster:
                await tx.save(replace(changed, updated=now))
            if note:
                await tx.record(self._event(now, note, about))

    async def note(self, text: str, about: str | None = None) -> None:
        """Record what happened, for the operator."""
        await self.alter(note=text, about=about)

    async def settle(self, instance_ids: Iterable[str], status: Status, fault: str | None = None) -> None:
        """Give instances back to their owner, in this status."""
        concerned = set(instance_ids)
        async with self.change() as tx:
            now = await tx.now()
            told = Fault(fault, now) if fault else None
            ours = [one for one in self.instances if one.id in concerned]
            await tx.save(*(replace(one, status=status, fault=told, updated=now) for one in ours))

    def _event(self, now: float, text: str, about: str | None) -> Event:
        return Event(
            at=now,
            kind=self.operation.kind,
            text=text,
            project_id=self.group.project_id,
            group_id=self.group.id,
            instance_id=about,
            operation_id=self.operation.id,
            actor=self.holder,
        )

    # --- what servers are told ------------------------------------------------------------------------------------

    def flavor(self, instance: Instance) -> Flavor:
        """Raises NotNow when the operator has taken it out of the settings."""
        if (flavor := self.tools.flavors.get(instance.flavor_id)) is None:
            raise NotNow(f"{instance.name} has flavor {instance.flavor_id}, which [api] flavor does not name any more")
        return flavor

    def spec(self, instance: Instance) -> ServerSpec:
        flavor = self.flavor(instance)
        if instance.address is None:
            raise Refused(f"{instance.name} has no place yet")
        return ServerSpec(
            instance_id=instance.id,
            group_id=instance.group_id,
            version=instance.version,
            address=instance.address,
            maxmemory_bytes=flavor.maxmemory_bytes,
            process_limit_bytes=flavor.process_limit_bytes,
            secrets=self.group.secrets,
            users=self.group.users,
            durability=promised(self.group, instance),
            parameters=instance.parameters,
            cluster=instance.shard is not None,
        )

    def topology(self, primary_id: str | None, among: Iterable[Instance] | None = None) -> Topology:
        """The group with this primary, at the epoch of our lease."""
        told = topology(self.group.id, self.group.epoch, self.members if among is None else among, primary_id)
        remote = len(elsewhere(self.instances, told))
        wanted = confirmations(promised(self.group, self.find(primary_id)), len(told.nodes) - remote, remote)
        return replace(told, confirmations=wanted)

    def assignment(self, instance: Instance, told: Topology) -> Assignment:
        return assignment(instance, told, elsewhere(self.instances, told))

    async def tell(self, instance: Instance, order: Order, *, timeout: float = 10.0) -> ServerFacts:
        """Have the agent of an instance execute an order."""
        if target(order).epoch != self.group.epoch:
            raise StaleEpoch(f"the order is of epoch {target(order).epoch}", seen=self.group.epoch)
        return await self.tools.agents.tell(instance.host_id or "", order, timeout=timeout)

    async def try_tell(self, instance: Instance, order: Order, *, timeout: float = 10.0) -> str | None:
        """The same, for what may be done later as well; returns why it was not done."""
        try:
            await self.tell(instance, order, timeout=timeout)
        except StaleEpoch:
            raise
        except RedkeepError as error:
            log.info("%s: %s", instance.name, error)
            return str(error)
        return None

    async def expect_absence(self, leaving: Instance) -> None:
        """A replica is about to be stopped on purpose: its primary shall not take that for a partition."""
        primary = self.find(self.group.primary_id)
        if primary is not None and primary.id != leaving.id and primary.shard is None:
            await self.try_tell(primary, ExpectAbsence(primary.id, self.group.id, self.group.epoch), timeout=2)

    async def look(self, instances: Collection[Instance], *, timeout: float = 2.0) -> dict[str, ServerFacts]:
        """Fresh facts by instance; those whose agent does not answer are left out."""
        by_host: dict[str, list[str]] = {}
        for one in instances:
            if one.host_id:
                by_host.setdefault(one.host_id, []).append(one.id)
        looks = (self._look(host_id, names, timeout) for host_id, names in by_host.items())
        return {facts.instance_id: facts for found in await asyncio.gather(*looks) for facts in found}

    async def _look(self, host_id: str, names: list[str], timeout: float) -> tuple[ServerFacts, ...]:
        try:
            return await self.tools.agents.look(host_id, names, timeout=timeout)
        except RedkeepError as error:
            log.info("host %s: %s", host_id, error)
            return ()

    async def until_loaded(self, instance: Instance) -> ServerFacts:
        """Wait until the server has loaded its data; the operation's deadline bounds it."""
        while True:
            facts = (await self.look([instance])).get(instance.id)
            if facts is not None and facts.process is Process.RUNNING:
                return facts
            if facts is not None and facts.process in (Process.EXITED, Process.ABSENT):
                raise NotNow(f"{instance.name} is {facts.process}: {facts.detail}")
            if facts is None:
                await self.require_host(instance)
            await self.wait(0.05)

    async def require_host(self, instance: Instance) -> None:
        """Raises Refused when the host of an instance has said nothing for so long that it counts as lost."""
        async with self.tools.store.read() as tx:
            now, hosts = await tx.now(), await tx.hosts()
        silence = max((now - host.seen_at for host in hosts if host.id == instance.host_id), default=0.0)
        if silence > self.tools.host_lost:
            message = f"host {instance.host_id} of {instance.name} has said nothing for {silence:.0f} s"
            raise Refused(f"{message}: delete the instance and order it again")

    async def wait(self, seconds: float) -> None:
        """Sleep between two looks. Raises Overtaken when something more urgent waits for the group."""
        try:
            async with asyncio.timeout(seconds):
                await self.overtaken.wait()
        except TimeoutError:
            return
        raise Overtaken

    async def announce(self, told: Topology) -> None:
        """Tell everyone who listens to the control plane. A hint: its loss costs time, nothing else."""
        try:
            await self.tools.bus.publish(HA, encode_news(told))
        except RedkeepError as error:
            log.info("topology of %s not announced: %s", told.group_id, error)

    async def brief_members(self, told: Topology) -> None:
        """Tell every member the topology; those out of reach learn it when they are realigned."""
        orders = (self.try_tell(one, Brief(self.assignment(one, told))) for one in self.members)
        await asyncio.gather(*orders)

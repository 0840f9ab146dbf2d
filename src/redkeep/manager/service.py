"""The manager: hears reports and hints, looks at every group now and then, decides, and works on what is open.

Everything it hears only makes it look sooner: what it acts on is in the store, or was asked of the agents afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from redkeep.decide.recovery import (
    Degraded,
    Doubt,
    FailOver,
    GroupView,
    Healthy,
    Realign,
    RestartPrimary,
    TakeOver,
    Verdict,
    judge,
)
from redkeep.decide.sites import may_write_at
from redkeep.errors import RedkeepError
from redkeep.manager.alerts import Alerts
from redkeep.manager.canary import Canary
from redkeep.manager.clusters import ClusterWatch, is_cluster
from redkeep.manager.membership import Membership
from redkeep.manager.settings import ManagerSettings
from redkeep.manager.sightings import Sightings
from redkeep.manager.words import REPAIR_LIMIT, Words
from redkeep.model.instance import FAILOVER_PAUSED, Event, Group, Instance
from redkeep.model.operation import BACKGROUND, Kind, Operation
from redkeep.operations.cluster_strategy import METHODS
from redkeep.operations.context import Tools
from redkeep.operations.runner import RUNBOOKS, Runner
from redkeep.orders import HA, HINTS, MANAGERS, REPORTS, Exit, decode_report, hint
from redkeep.ports import Bus, Message, Store, Transaction, WholeGroup
from redkeep.strategies import load_class

log = logging.getLogger(__name__)

UNSEEN_LOOK_LIMIT = 0.5
"""Seconds that an agent gets to show servers that no heartbeat has told of yet."""
WATCH_INTERVAL = 0.2
"""Seconds between two looks at groups whose primary's host has just fallen silent."""
FORGET_INTERVAL = 3600.0
"""Seconds between two prunings."""


class Manager:
    """Any number may run; leases keep them out of each other's way. `run` goes on until `stop`."""

    def __init__(self, settings: ManagerSettings, tools: Tools, membership: Membership | None = None) -> None:
        """`membership`: what it is to the other managers of its backend. Without, it is nothing to them."""
        self._settings = settings
        self._membership = membership
        self._store: Store = tools.store
        self._bus: Bus = tools.bus
        self._agents = tools.agents
        self._backend = tools.backend
        self._canary = Canary(
            tools.backend, settings.name, tools.store, tools.agents, tools.bus, settings.canary_interval
        )
        self._sightings = Sightings(time.monotonic())
        tools = replace(tools, last_seen=self._sightings.last_seen)
        strategy = load_class(settings.taskmanager_strategy, needs=METHODS)()
        books = {**RUNBOOKS, **strategy.runbooks()}
        self._runner = Runner(tools, settings.name, lease_seconds=settings.lease_seconds, runbooks=books)
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._repaired: dict[str, float] = {}
        self._degraded: dict[str, str] = {}
        self._clusters = ClusterWatch(
            tools.store, settings.limits, self._submit, self._hurry, settings.failover_deadline
        )
        self._groups_by_instance: dict[str, str] = {}
        self._words = Words(self._store, tools.backend, settings.word_seconds)
        self._hints: set[asyncio.Future[None]] = set()
        self._alerts = Alerts(self._store, settings.name)
        self._asking: set[str] = set()
        """Groups about whose primary somebody is being asked."""
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop` is called or the task is cancelled; running operations may finish first.

        Raises Refused when its backend's driver is not one that it may start with.
        """
        if self._membership is not None:
            await self._membership.join()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._bus.serve(MANAGERS, self._words.confirm)),
                group.create_task(self._hear(REPORTS, self._on_report)),
                group.create_task(self._hear(HINTS, self._on_hint)),
                group.create_task(self._hear(HA, self._on_topology)),
                group.create_task(self._every(self._settings.look_interval, self._consider_all)),
                group.create_task(self._every(WATCH_INTERVAL, self._watch_silent_hosts)),
                group.create_task(self._forget_old()),
                group.create_task(self._canary.run()),
            ]
            if self._membership is not None:
                tasks.append(group.create_task(self._membership.run()))
            await self._stopping.wait()
            await self._finish_work()
            for task in tasks:
                task.cancel()

    def stop(self) -> None:
        """Take no more work; `run` returns when what is running has finished, or `stop_limit` is over."""
        self._stopping.set()

    async def _finish_work(self) -> None:
        workers = [task for task in self._workers.values() if not task.done()]
        if workers:
            _, late = await asyncio.wait(workers, timeout=self._settings.stop_limit)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # --- hearing --------------------------------------------------------------------------------------------------

    async def _hear(self, topic: str, handle: Callable[[Message], Awaitable[None]]) -> None:
        async for message in self._bus.listen(topic):
            try:
                await handle(message)
            except RedkeepError as error:
                log.warning("%s %s: %s", topic, message.id, error)
            except Exception:
                log.exception("%s %s could not be handled", topic, message.id)

    async def _on_report(self, message: Message) -> None:
        report, now = decode_report(message.body), time.monotonic()
        if isinstance(report, Exit):
            log.warning("%s on %s has ended: %s", report.facts.instance_id, report.host_id, report.facts.detail)
            self._sightings.hear(report.host_id, now)
            self._sightings.see(report.facts, now)
            await self._consider_owner(report.facts.instance_id)
        else:
            self._sightings.fold(report, now)
            if news := self._alerts.news(report):
                self._background(self._alerts.write(news))

    async def _on_hint(self, message: Message) -> None:
        group_id = str(message.body["group"])
        if message.body.get("urgent"):
            self._runner.overtake(group_id)
        self._work_on(group_id)

    async def _on_topology(self, message: Message) -> None:
        self._sightings.changed(str(message.body["group"]), time.monotonic())

    # --- looking and deciding -------------------------------------------------------------------------------------

    async def _every(self, interval: float, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            started = time.monotonic()
            try:
                await look()
            except RedkeepError as error:
                log.warning("the store cannot be read: %s", error)
            except Exception:
                log.exception("a look at the groups failed; the next one comes")
            await asyncio.sleep(max(0.05, started + interval - time.monotonic()))

    async def _forget_old(self) -> None:
        """What is older than anyone will ask for goes; several managers may do it at once."""
        while True:
            with contextlib.suppress(RedkeepError):
                async with self._store.begin() as tx:
                    await tx.prune(await tx.now() - self._settings.keep_seconds)
            await asyncio.sleep(FORGET_INTERVAL)

    async def _watch_silent_hosts(self) -> None:
        """Groups whose primary's host has just fallen silent are looked at more often than all the others."""
        limits = self._settings.limits
        patience = limits.orphan + limits.cool_down + limits.silence
        if silent := self._sightings.silent(time.monotonic(), limits.doubt, most=patience):
            await self._consider_all(frozenset(silent))

    async def _consider_all(self, hosts: frozenset[str] | None = None) -> None:
        """Look at every group, or at those whose primary is on one of these hosts."""
        async with self._store.read() as tx:
            groups = await tx.groups()
            instances = await tx.instances()
            operations = await tx.open_operations()
            paused = await tx.switch(FAILOVER_PAUSED)
            sites = may_write_at(self._backend, await tx.service_clusters())
        busy = {one.group_id for one in operations if one.kind not in BACKGROUND}
        members: dict[str, list[Instance]] = {}
        for one in instances:
            members.setdefault(one.group_id, []).append(one)
        self._groups_by_instance = {one.id: one.group_id for one in instances}
        on_them = {one.id for one in instances if hosts is not None and one.host_id in hosts}
        for group in groups:
            if hosts is None or group.rightful_primary_id in on_them:
                view = self._view(group, tuple(members.get(group.id, ())), paused=paused, sites=sites)
                await self._consider(view, group.id in busy)
        for group_id in {one.group_id for one in operations}:
            self._work_on(group_id)

    async def _consider_owner(self, instance_id: str) -> None:
        """Look at the group of one instance now."""
        async with self._store.read() as tx:
            found = await self._group_of(tx, instance_id)
            paused = await tx.switch(FAILOVER_PAUSED)
            sites = may_write_at(self._backend, await tx.service_clusters())
        if found is not None:
            await self._look_at_unseen(found.instances)
            view = self._view(found.group, found.instances, paused=paused, sites=sites)
            await self._consider(view, any(one.kind not in BACKGROUND for one in found.operations))

    def _view(
        self, group: Group, instances: tuple[Instance, ...], *, paused: bool, sites: frozenset[str] | None
    ) -> GroupView:
        view = self._sightings.view(group, instances, time.monotonic(), paused=paused)
        return replace(view, sites=sites)

    async def _look_at_unseen(self, instances: tuple[Instance, ...]) -> None:
        """Those that are so new that no heartbeat has told of them: a decision about their group needs them."""
        await self._look_at([one for one in instances if self._sightings.last_seen(one.id) is None])

    async def _look_at(self, instances: Iterable[Instance]) -> None:
        """Ask their agents, all at once; those that do not answer are as they were."""
        by_host: dict[str, list[str]] = {}
        for one in instances:
            if one.host_id:
                by_host.setdefault(one.host_id, []).append(one.id)
        await asyncio.gather(*(self._look_on(host_id, names) for host_id, names in by_host.items()))

    async def _look_on(self, host_id: str, names: list[str]) -> None:
        with contextlib.suppress(RedkeepError):
            found = await self._agents.look(host_id, names, timeout=UNSEEN_LOOK_LIMIT)
            self._sightings.hear(host_id, time.monotonic())
            for facts in found:
                self._sightings.see(facts, time.monotonic())

    async def _group_of(self, tx: Transaction, instance_id: str) -> WholeGroup | None:
        """The group in which the last look at all found it; where that is not true any more, the one of its row."""
        known = self._groups_by_instance.get(instance_id)
        found = await tx.whole_group(known) if known else None
        if found is not None and any(one.id == instance_id for one in found.instances):
            return found
        instance = await tx.instance(instance_id)
        return await tx.whole_group(instance.group_id) if instance else None

    async def _consider(self, view: GroupView, busy: bool) -> None:
        if is_cluster(view.instances):
            if await self._clusters.consider(view, busy):
                self._work_on(view.group.id)
            return
        verdict = judge(view, time.monotonic(), self._settings.limits)
        if isinstance(verdict, RestartPrimary) and len(view.instances) > 1:
            await self._look_at(view.instances)  # what is known may be from before they became fit to take its place
            view = self._view(view.group, view.instances, paused=view.paused, sites=view.sites)
            verdict = judge(view, time.monotonic(), self._settings.limits)
        self._report_degraded(view.group, verdict)
        match verdict:
            case FailOver() | TakeOver():
                await self._submit_failover(view, verdict)
            case Doubt() if view.group.id not in self._asking:
                self._asking.add(view.group.id)
                self._background(self._ask_and_consider(view, verdict, busy))
            case RestartPrimary() if not busy and self._may_repair(view.group.id):
                await self._submit_repair(view.group, (view.group.rightful_primary_id or "",), verdict.reason)
            case Realign() if not busy and self._may_repair(view.group.id):
                await self._submit_repair(view.group, verdict.instance_ids, verdict.reason)
            case _:
                pass

    async def _ask_and_consider(self, view: GroupView, doubt: Doubt, busy: bool) -> None:
        """Have the hosts of the replicas try to reach the silent primary's server, then judge again."""
        try:
            primary = next(one for one in view.instances if one.id == view.group.rightful_primary_id)
            witnesses = [one for one in view.instances if one.id in doubt.witness_ids]
            await asyncio.gather(*(self._ask(one, primary) for one in witnesses))
        finally:
            self._asking.discard(view.group.id)
        anew = self._view(view.group, view.instances, paused=view.paused, sites=view.sites)
        await self._consider(anew, busy)

    async def _ask(self, witness: Instance, primary: Instance) -> None:
        """What does not answer has said nothing."""
        if witness.host_id and primary.host_id and primary.address:
            with contextlib.suppress(RedkeepError):
                answers = await self._agents.reaches(witness.host_id, primary.address)
                self._sightings.answered(witness.id, primary.host_id, answers, time.monotonic())

    def _report_degraded(self, group: Group, verdict: Verdict) -> None:
        reason = verdict.reason if isinstance(verdict, Degraded) else ""
        if reason and group.id not in self._degraded:
            log.warning("group %s is degraded: %s", group.id, reason)
        if reason:
            self._degraded[group.id] = reason
        elif isinstance(verdict, Healthy):
            self._degraded.pop(group.id, None)

    async def _submit_failover(self, view: GroupView, verdict: FailOver | TakeOver) -> None:
        args: dict[str, object] = {"reason": verdict.reason, "history": view.history, "proven": False}
        match verdict:
            case FailOver(proven=proven, agent_gone=agent_gone):
                args |= {"proven": proven, "agent_gone": agent_gone}
            case TakeOver():
                args |= {"take_over": True}
        if await self._submit(view.group, Kind.FAIL_OVER, args, verdict.reason, self._settings.failover_deadline):
            self._sightings.failed_over(view.group.id, time.monotonic())
            self._hurry(view.group.id)
        self._work_on(view.group.id)

    def _hurry(self, group_id: str) -> None:
        """Whoever works on the group makes room, be it another manager."""
        self._runner.overtake(group_id)
        self._background(self._bus.publish(HINTS, {**hint(group_id), "urgent": True}))

    def _background(self, act: Awaitable[object]) -> None:
        """Nobody waits for it, and its failure costs a second: the next look comes."""
        task = asyncio.ensure_future(_quietly(act))
        self._hints.add(task)
        task.add_done_callback(self._hints.discard)

    def _may_repair(self, group_id: str) -> bool:
        return time.monotonic() - self._repaired.get(group_id, float("-inf")) > self._settings.repair_pause

    async def _submit_repair(self, group: Group, instance_ids: tuple[str, ...], reason: str) -> None:
        self._repaired[group.id] = time.monotonic()
        args: dict[str, object] = {"instances": list(instance_ids), "reason": reason}
        await self._submit(group, Kind.REPAIR, args, reason, REPAIR_LIMIT)
        self._work_on(group.id)

    async def _submit(self, group: Group, kind: Kind, args: dict[str, object], reason: str, limit: float) -> bool:
        """Record an operation, unless one of its kind is open for the group already or it has another primary."""
        async with self._store.begin() as tx:
            found = await tx.whole_group(group.id, lock=True)
            if found is None or any(one.kind is kind for one in found.operations):
                return False
            if found.group.rightful_primary_id != group.rightful_primary_id:
                return False
            now = found.now
            operation = Operation(
                id=str(uuid.uuid4()),
                group_id=group.id,
                kind=kind,
                created=now,
                args=args,
                deadline=now + limit,
                requested_by=self._settings.name,
            )
            await tx.save(operation)
            await tx.record(_decision(operation, group, reason, now))
        log.warning("%s of group %s: %s", kind, group.id, reason)
        return True

    # --- working --------------------------------------------------------------------------------------------------

    def _work_on(self, group_id: str) -> None:
        """One worker per group; told again while it works, it looks again when it is through."""
        if self._stopping.is_set():
            return
        worker = self._workers.get(group_id)
        self._news.setdefault(group_id, asyncio.Event()).set()
        if worker is not None and not worker.done():
            return
        self._workers[group_id] = asyncio.create_task(self._work(group_id), name=f"work on {group_id}")

    async def _work(self, group_id: str) -> None:
        """The runner's supervisor."""
        news = self._news[group_id]
        while not self._stopping.is_set():
            news.clear()
            try:
                again_after = await self._runner.work(group_id)
            except RedkeepError as error:
                log.warning("group %s cannot be worked on: %s", group_id, error)
                again_after = 1.0
            except Exception:
                log.exception("work on group %s failed", group_id)
                again_after = 1.0
            self._sightings.changed(group_id, time.monotonic())
            if again_after is None and not news.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_after):
                    await news.wait()


async def _quietly(act: Awaitable[object]) -> None:
    with contextlib.suppress(RedkeepError):
        await act


def _decision(operation: Operation, group: Group, reason: str, now: float) -> Event:
    return Event(
        at=now,
        kind=operation.kind,
        text=f"decided: {reason}",
        project_id=group.project_id,
        group_id=group.id,
        operation_id=operation.id,
        actor=operation.requested_by,
    )

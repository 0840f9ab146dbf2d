"""Fail a backend over to another site: by whoever holds the lease of its service cluster.

    begin       the next attempt is on record; whether it must be forced is chosen, and saved
    look        which volumes there are
    fail over   the driver moves the storage
    record      one transaction: the cluster's row, all members, the epoch
    tell        `failover_completed` is announced; every member's driver follows by itself, those that are down when
                they start

All of it may be run again from the top, by another manager: what is chosen is saved before it is acted on, the driver
finds what it has done already, and what was recorded is not open any more. Every end is one transaction (G19).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from redkeep.decide.lifecycle import Refusal
from redkeep.decide.site import (
    Change,
    check_result,
    failed,
    followed,
    given_up,
    must_be_forced,
    succeeded,
    unchanged,
    volumes,
)
from redkeep.errors import NotNow, OutcomeUnknown, RedkeepError, Refused, StaleEpoch, Unavailable
from redkeep.model.instance import Event
from redkeep.model.site import Backend, FailoverResult, ReplicationStatus, Service, ServiceCluster, SiteFailover, Volume
from redkeep.ports import BackendDriver, Store, Transaction

log = logging.getLogger(__name__)

STEPS = ("begin", "look", "fail over", "record", "tell")

SiteHook = Callable[[str], None]
"""Called at every step. Tests let it kill the doer there."""


def no_hook(step: str) -> None:
    """What is called at every step in production."""


@dataclass(slots=True)
class SiteRun:
    """One failover being worked on by one manager, under the lease that `cluster` carries."""

    store: Store
    driver: BackendDriver
    backend: Backend
    cluster: ServiceCluster
    service_id: str
    """Who works, and holds the lease."""
    tell: Callable[[ServiceCluster, Sequence[Service]], Awaitable[None]]
    at_step: SiteHook = no_hook
    progress: list[float] = field(default_factory=lambda: [0.0])
    """The last that the driver reported, from 0 to 1."""

    @property
    def failover(self) -> SiteFailover:
        assert self.cluster.failover is not None  # noqa: S101 (for the type checker: `change` has looked)
        return self.cluster.failover

    @asynccontextmanager
    async def change(self) -> AsyncIterator[tuple[Transaction, list[Service], float]]:
        """Change rows, provided that the lease still holds and the failover is still open. Raises StaleEpoch."""
        async with self.store.begin() as tx:
            found = await tx.service_cluster(self.cluster.id, lock=True)
            ours = found is not None and (found.holder, found.lease_epoch) == (
                self.service_id,
                self.cluster.lease_epoch,
            )
            if found is None or not ours or found.replication_status is not ReplicationStatus.FAILING_OVER:
                seen = found.lease_epoch if found else 0
                raise StaleEpoch(f"the lease of {self.cluster.id} is lost, or its failover has ended", seen=seen)
            self.cluster = found
            yield tx, await tx.services(cluster_id=found.id), await tx.now()

    async def note(self, **changes: object) -> None:
        """Write down how far it is."""
        async with self.change() as (tx, _, _):
            self.cluster = replace(self.cluster, failover=replace(self.failover, **changes))  # type: ignore[arg-type]
            await tx.save(self.cluster)

    async def step(self, name: str, **changes: object) -> None:
        self.at_step(name)
        await self.note(step=name, **changes)

    async def end(self, make: Callable[[list[Service], float], Change], kind: str, text: str) -> Sequence[Service]:
        """Write one of the ends: the cluster and all members at once."""
        async with self.change() as (tx, services, now):
            change = make(services, now)
            await tx.save(change.cluster, *change.services)
            await tx.record(Event(at=now, kind=f"site.{kind}", text=text, actor=self.service_id))
        log.warning("%s", text)
        self.cluster = change.cluster
        return change.services


async def run(run: SiteRun) -> float | None:
    """Work on the open failover, to one of its ends. Returns None, or after how many seconds to try again.

    Raises StaleEpoch when somebody else works on it, and what the store raises.
    """
    run.at_step("begin")
    if not await _begin(run):
        return None
    found = await _look(run)
    await run.step("fail over", volumes=len(found))
    try:
        result = await _call_driver(run, found)
    except (NotNow, Unavailable, OutcomeUnknown) as error:
        # It may pass: the driver is called again until the deadline. Nobody has died of it.
        log.info("failover of %s is tried again: %s", run.cluster.id, error)
        await run.note(error=str(error), attempts=run.failover.attempts - 1)
        return 1.0
    if result is not None:
        await _record(run, result)
    return None


async def _begin(run: SiteRun) -> bool:
    async with run.store.read() as tx:
        hosts, now = await tx.hosts(), await tx.now()
    if reason := given_up(run.cluster, now):
        await _fail(run, reason)
        return False
    needed = must_be_forced(hosts, run.backend.site_label(run.cluster.site), now)
    async with run.change() as (tx, _, _):
        # As the row has it now: somebody may have forced it since.
        forced = needed if run.failover.forced is None else run.failover.forced
        begun = replace(run.failover, step="begin", attempts=run.failover.attempts + 1, forced=forced)
        run.cluster = replace(run.cluster, failover=begun)
        await tx.save(run.cluster)
    return True


async def _look(run: SiteRun) -> tuple[Volume, ...]:
    """Two queries, however many there are (G21); nothing is written about any of them (G9)."""
    await run.step("look")
    async with run.store.read() as tx:
        return volumes(await tx.groups(), await tx.instances())


async def _call_driver(run: SiteRun, found: Sequence[Volume]) -> FailoverResult | None:
    """The driver's answer; None when it has ended otherwise, and that is recorded."""
    act = run.driver.failover_host if run.cluster.solitary else run.driver.failover
    target, forced = run.failover.target, bool(run.failover.forced)
    async with run.store.read() as tx:
        time_left = asyncio.timeout(max(0.0, run.failover.deadline - await tx.now()))
    watch = Watch(run, forced, time_left)
    try:
        async with time_left, watch.watching():
            result = await act(found, target, forced=forced)
    except Refused as error:
        reason = str(error)
        await run.end(
            lambda services, now: unchanged(run.cluster, services, reason, now),
            "failover_refused",
            f"{run.cluster.id} stays where it is: {reason}",
        )
        return None
    except (NotNow, Unavailable, OutcomeUnknown, StaleEpoch):
        raise
    except Exception as error:
        if watch.overruled:
            raise NotNow("it is forced now: the driver is called again for that") from error
        log.exception("the driver of %s failed", run.cluster.id)
        late = run.failover.error or "it was not done in time, at step 'fail over'"
        await _fail(run, late if time_left.expired() else f"{type(error).__name__}: {error}")
        return None
    wrong = check_result(run.cluster, result)
    if isinstance(wrong, Refusal):
        await _fail(run, wrong.message)
        return None
    return result


@dataclass(slots=True)
class Watch:
    """While the driver works: its progress is written down once a second, and it is called off when what it does in
    order is to be forced."""

    run: SiteRun
    forced: bool
    """As the driver was told."""
    time_left: asyncio.Timeout
    overruled: bool = False

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while not self.overruled:
            await asyncio.sleep(1.0)
            with contextlib.suppress(RedkeepError):
                await self._look()
        self.time_left.reschedule(asyncio.get_running_loop().time())

    async def _look(self) -> None:
        run = self.run
        if run.progress[0] != run.failover.progress:
            await run.note(progress=run.progress[0])
        async with run.store.read() as tx:
            row = await tx.service_cluster(run.cluster.id)
        self.overruled = bool(row and row.failover and row.failover.forced and not self.forced)


async def _record(run: SiteRun, result: FailoverResult) -> None:
    run.at_step("record")

    def make(services: list[Service], now: float) -> Change:
        change = succeeded(run.cluster, services, result, now)
        if not run.cluster.solitary:
            return change
        # The only member has just done both halves.
        return replace(change, services=tuple(followed(one, change.cluster, now) for one in change.services))

    target = result.active_backend_id
    services = await run.end(make, "failed_over", f"{run.cluster.id} is active at {target}")
    run.at_step("tell")
    await run.tell(run.cluster, services)


async def _fail(run: SiteRun, reason: str) -> None:
    await run.end(
        lambda services, now: failed(run.cluster, services, reason, now),
        "failover_error",
        f"{run.cluster.id} has not failed over: {reason}",
    )

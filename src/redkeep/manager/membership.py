"""A manager as a member of its service cluster: it registers, shows that it lives, follows to the active site, and
works on a failover when nobody else does.

What it acts on is in the database. What it hears only makes it look sooner, so a lost, late or doubled message changes
nothing (G1, G6). It never changes the cluster's state by starting (G2, G3, G4).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from redkeep import __version__
from redkeep.backends.loading import DriverClass, abilities
from redkeep.decide.lifecycle import Refusal
from redkeep.decide.site import (
    Duty,
    configured,
    could_not_follow,
    duty,
    followed,
    freeze,
    in_step,
    joined,
    may_start,
)
from redkeep.errors import RedkeepError, Refused, StaleEpoch
from redkeep.manager.settings import ManagerSettings
from redkeep.model.instance import Event
from redkeep.model.site import Service, ServiceCluster
from redkeep.news import (
    NEWEST,
    SITES,
    SiteNews,
    common_version,
    decode_freeze,
    decode_news,
    encode_news,
    members_name,
)
from redkeep.operations.fail_over_site import SiteHook, SiteRun, no_hook, run
from redkeep.ports import Agents, BackendContext, BackendDriver, Body, Bus, Store, Transaction

log = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Seconds after which a driver that cannot follow is asked again, however often it has refused."""


class Membership:
    """One run of one service. `join` once, then `run` until it is cancelled."""

    def __init__(
        self,
        settings: ManagerSettings,
        store: Store,
        bus: Bus,
        agents: Agents,
        make: DriverClass,
        *,
        at_step: SiteHook = no_hook,
        reads: str = NEWEST,
        release: str = __version__,
    ) -> None:
        """`reads`: the newest form of messages that this release knows; tests play an older one."""
        self._settings = settings
        self._store, self._bus, self._agents = store, bus, agents
        self._make, self._at_step, self._reads, self._release = make, at_step, reads, release
        self._backend = settings.backend
        self._targets = tuple(one.backend_id for one in settings.backend.targets)
        self.service_id = f"{settings.service or settings.name}@{self._backend.name}"
        self.cluster_id = f"{settings.cluster}@{self._backend.name}" if settings.cluster else self.service_id
        self._incarnation = str(uuid4())
        self._driver: BackendDriver | None = None
        self._driving = asyncio.Lock()
        """The two halves never run at once in one driver. Freezing may come at any time."""
        self._look_now = asyncio.Event()
        self._worker: asyncio.Task[float | None] | None = None
        self._work_again_at = 0.0
        self._refusals = 0
        self._follow_again_at = 0.0
        self._progress = [0.0]

    @property
    def driver(self) -> BackendDriver:
        assert self._driver is not None, "join() comes first"  # noqa: S101
        return self._driver

    # --- starting -------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Register, and make the driver for the site where the cluster is. Raises Refused when it must not start."""
        reason = may_start(abilities(self._make), solitary=not self._settings.cluster, targets=self._targets)
        if reason is not None:
            raise Refused(reason, kind="unsupported")
        built, is_new = await self._register()
        context = BackendContext(
            backend=self._backend,
            manager=self._settings.name,
            active_backend_id=built.site,
            frozen=built.frozen,
            store=self._store,
            agents=self._agents,
            bus=self._bus,
            progress=self._on_progress,
        )
        self._driver = self._make(context)
        if built.frozen:
            await self._freeze_own()
        async with self._store.begin() as tx:
            cluster, service = await self._rows(tx)
            now = await tx.now()
            # As it was made; if the cluster has moved since, the first look follows.
            row = in_step(joined(service, built, now, is_new=is_new), cluster, now)
            await tx.save(replace(row, frozen=cluster.frozen))
            await tx.beat(self.service_id, self._incarnation)
        log.info("%s serves %s at %s", self.service_id, self.cluster_id, built.site)

    async def _register(self) -> tuple[ServiceCluster, bool]:
        """The rows are there; the targets are those of the settings. Nothing of the replication state is touched."""
        async with self._store.begin() as tx:
            now = await tx.now()
            solitary = not self._settings.cluster
            await tx.add(ServiceCluster(self.cluster_id, created_at=now, solitary=solitary))
            found = await tx.service_cluster(self.cluster_id, lock=True)
            assert found is not None  # noqa: S101 (nobody deletes it)
            cluster = configured(found, self._targets, now)
            if cluster is not found:
                await tx.save(cluster)
            plain = Service(self.service_id, self.cluster_id, created_at=now, heartbeat_at=now)
            is_new = await tx.add(plain)
            (row,) = [one for one in await tx.services() if one.id == self.service_id]
            moved = row.cluster_id != self.cluster_id
            await tx.save(
                replace(
                    row,
                    cluster_id=self.cluster_id,
                    incarnation=self._incarnation,
                    release=self._release,
                    object_version=self._reads,
                    applied_epoch=0 if moved else row.applied_epoch,
                )
            )
            return cluster, is_new or moved

    async def _rows(self, tx: Transaction) -> tuple[ServiceCluster, Service]:
        """The cluster, locked, and this service. Raises StaleEpoch when another run has taken the service's name."""
        cluster = await tx.service_cluster(self.cluster_id, lock=True)
        mine = [one for one in await tx.services(cluster_id=self.cluster_id) if one.id == self.service_id]
        if cluster is None or not mine or mine[0].incarnation != self._incarnation:
            raise StaleEpoch(f"{self.service_id} has been registered by another process")
        return cluster, mine[0]

    # --- running --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._hear())
                group.create_task(self._keep_looking())
                group.create_task(self._bus.serve(members_name(self.cluster_id), self._on_freeze))
        finally:
            if self._worker is not None:
                self._worker.cancel()
                await asyncio.gather(self._worker, return_exceptions=True)
            if self._driver is not None:
                await self._driver.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.report_interval)
            try:
                async with self._store.begin() as tx:
                    alive = await tx.beat(self.service_id, self._incarnation)
                if not alive:
                    await self._come_back()
            except RedkeepError as error:
                log.warning("no sign of life could be given: %s", error)

    async def _come_back(self) -> None:
        """The row is gone, or another process uses the name: two that have it would hide each other."""
        async with self._store.read() as tx:
            taken = any(one.id == self.service_id for one in await tx.services())
        if taken:
            other = f"{self._settings.name}-{self._incarnation[:8]}@{self._backend.name}"
            log.error(
                "another manager is called %s: give each a [manager] name. This is %s now", self.service_id, other
            )
            self.service_id = other
        built, _ = await self._register()
        async with self._store.begin() as tx:
            cluster, service = await self._rows(tx)
            now = await tx.now()
            # What its driver does is not known from a new row: it follows, which may be done again.
            behind = replace(service, applied_epoch=min(service.applied_epoch, built.epoch - 1))
            await tx.save(in_step(behind, cluster, now))
        self._look_now.set()

    async def _hear(self) -> None:
        async for message in self._bus.listen(SITES):
            news = decode_news(message.body, self._reads)
            if news is None or news.cluster == self.cluster_id:
                self._look_now.set()

    async def _keep_looking(self) -> None:
        while True:
            self._look_now.clear()
            try:
                await self._look()
            except RedkeepError as error:
                log.warning("%s cannot look at its cluster: %s", self.service_id, error)
            except Exception:
                log.exception("a look of %s failed; the next one comes", self.service_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.look_interval):
                    await self._look_now.wait()

    async def _look(self) -> None:
        async with self._store.read() as tx:
            cluster = await tx.service_cluster(self.cluster_id)
            services = await tx.services(cluster_id=self.cluster_id)
            now = await tx.now()
        service = next((one for one in services if one.id == self.service_id), None)
        todo = duty(cluster, service, now) if cluster and service else Duty()
        if todo.work and (self._worker is None or self._worker.done()) and time.monotonic() >= self._work_again_at:
            self._worker = asyncio.create_task(self._work(), name=f"failover of {self.cluster_id}")
        if todo.follow and cluster and time.monotonic() >= self._follow_again_at and not self._driving.locked():
            await self._follow(cluster)

    # --- following ------------------------------------------------------------------------------------------------

    async def _follow(self, cluster: ServiceCluster) -> None:
        """Have the driver use the site of this epoch, and write down that it does."""
        reason, time_left = "", asyncio.timeout(self._settings.follow_limit)
        try:
            async with self._driving, time_left:
                await self.driver.failover_completed(cluster.site)
        except Exception as error:  # noqa: BLE001 (the service's supervisor: a vendor's driver may raise anything)
            log.warning("%s does not follow to %s: %r", self.service_id, cluster.site, error)
            late = f"its driver did not follow to {cluster.site} within {self._settings.follow_limit:g} s"
            reason = late if time_left.expired() else f"{type(error).__name__}: {error}"
        async with self._store.begin() as tx:
            latest, service = await self._rows(tx)
            now = await tx.now()
            if reason:
                row = could_not_follow(service, reason, now)
                await tx.record(self._event("follow_failed", f"{self.service_id}: {reason}", now))
            else:
                row = in_step(followed(service, cluster, now), latest, now)
            await tx.save(replace(row, frozen=latest.frozen))
        self._refusals = self._refusals + 1 if reason else 0
        pause = min(LONGEST_PAUSE, self._settings.follow_pause * 2.0 ** max(0, self._refusals - 1)) if reason else 0.0
        self._follow_again_at = time.monotonic() + pause

    # --- failing over ---------------------------------------------------------------------------------------------

    def _on_progress(self, done: float) -> None:
        self._progress[0] = min(1.0, max(0.0, done))

    async def _work(self) -> float | None:
        """Claim the cluster, and work on its failover while the lease holds."""
        seconds = self._settings.lease_seconds
        cluster = await self._store.claim_cluster(self.cluster_id, self.service_id, seconds)
        if cluster is None:
            return None
        self._progress[0] = 0.0
        work = SiteRun(
            self._store,
            self.driver,
            self._backend,
            cluster,
            self.service_id,
            self._tell,
            at_step=self._at_step,
            progress=self._progress,
        )
        keeper = asyncio.create_task(self._keep_lease(cluster, asyncio.current_task()))
        try:
            async with self._driving:
                again_after = await run(work)
        except StaleEpoch as error:
            log.info("%s: %s", self.cluster_id, error)
            return None
        except RedkeepError as error:
            log.warning("the failover of %s is tried again: %s", self.cluster_id, error)
            again_after = 1.0
        finally:
            keeper.cancel()
        self._work_again_at = time.monotonic() + (again_after or 0.0)
        await self._store.release_cluster(self.cluster_id, self.service_id, cluster.lease_epoch)
        self._look_now.set()
        return again_after

    async def _keep_lease(self, cluster: ServiceCluster, worker: asyncio.Task[object] | None) -> None:
        seconds = self._settings.lease_seconds
        good_until = time.monotonic() + seconds
        while time.monotonic() < good_until:
            await asyncio.sleep(seconds / 3)
            asked_at = time.monotonic()
            try:
                if not await self._store.renew_cluster(cluster.id, self.service_id, cluster.lease_epoch, seconds):
                    break
                good_until = asked_at + seconds
            except RedkeepError as error:
                log.warning("the lease of %s could not be renewed: %s", cluster.id, error)
        log.warning("%s has lost the lease of %s and stops its failover", self.service_id, cluster.id)
        if worker is not None:
            worker.cancel()

    async def _tell(self, cluster: ServiceCluster, services: Sequence[Service]) -> None:
        """Announce it, in a form that every member reads. Its loss costs a second."""
        failover = cluster.failover.id if cluster.failover else ""
        news = SiteNews(cluster.id, cluster.epoch, cluster.site, failover, cluster.replication_status)
        body = encode_news(news, common_version([self._reads, *(one.object_version for one in services)]))
        try:
            await self._bus.publish(SITES, body)
        except RedkeepError as error:
            log.info("the failover of %s is not announced: %s", cluster.id, error)

    # --- freezing -------------------------------------------------------------------------------------------------

    async def _on_freeze(self, body: Body) -> Body:
        """The API wants one driver told. It has frozen the rows by itself; a thaw is written here, when it is done."""
        if decode_freeze(body):
            return {"complaint": await self._freeze_own()}
        async with self._store.read() as tx:
            row = await tx.service_cluster(self.cluster_id)
        if row is not None and row.frozen:
            await self._thaw_own()
        async with self._store.begin() as tx:
            cluster = await tx.service_cluster(self.cluster_id, lock=True)
            now = await tx.now()
            change = (
                freeze(cluster, await tx.services(cluster_id=self.cluster_id), now, frozen=False) if cluster else None
            )
            if change is not None and not isinstance(change, Refusal):
                await tx.save(change.cluster, *change.services)
                await tx.record(self._event("thawed", f"{self.cluster_id} may be changed again", now))
        return {"complaint": ""}

    async def _freeze_own(self) -> str:
        """Tell this driver; what it has against it changes nothing, since the API refuses changes by itself."""
        try:
            async with asyncio.timeout(self._settings.follow_limit):
                await self.driver.freeze_backend()
        except Exception as error:  # noqa: BLE001 (as above)
            log.warning("the driver of %s complains about a freeze: %r", self.service_id, error)
            return f"{type(error).__name__}: {error}"
        return ""

    async def _thaw_own(self) -> None:
        """Raises Refused when the driver does: then it stays frozen."""
        try:
            async with asyncio.timeout(self._settings.follow_limit):
                await self.driver.thaw_backend()
        except Exception as error:  # as above
            log.warning("the driver of %s does not thaw: %r", self.service_id, error)
            text = f"Backend reported error during thaw_host operation; {self.cluster_id} stays frozen: {error}"
            raise Refused(text) from error

    def _event(self, kind: str, text: str, now: float) -> Event:
        return Event(at=now, kind=f"site.{kind}", text=text, actor=self.service_id)

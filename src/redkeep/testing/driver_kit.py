"""What every driver of a backend has to do, as tests that any vendor can run against theirs.

    class TestOurDriver(BackendDriverContract):
        targets = ("dr1", "dr2")

        def make(self, context: BackendContext) -> BackendDriver:
            return OurDriver(context)

pytest with pytest-asyncio (`asyncio_mode = "auto"`) collects the methods. Each test gets a storage of its own when
`fresh` makes one. What a driver is called with is what the managers call it with, in the order in which they may:
again, by another manager, after one that died at any `await`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from redkeep.backends.loading import abilities
from redkeep.errors import Refused
from redkeep.model.site import FAILBACK, Backend, ReplicationStatus, ReplicationTarget, Volume
from redkeep.ports import Agents, BackendContext, BackendDriver, Bus, Store

MOST_AWAITS = 200
"""A driver that awaits more often in one failover is not killed at the later ones."""


class BackendDriverContract:
    """Inherit from it, and override what is yours."""

    targets: tuple[str, ...] = ("dr1",)

    # --- to be overridden -----------------------------------------------------------------------------------------

    def make(self, context: BackendContext) -> BackendDriver:
        """A driver, as a manager makes it."""
        raise NotImplementedError

    async def fresh(self) -> None:
        """A storage of its own for the test that begins: everything is at the default site."""

    async def observe(self) -> Any:
        """The state of the storage, as anything that can be compared; None when it cannot be told."""
        return None

    def volumes(self) -> Sequence[Volume]:
        """What there is to be moved."""
        return tuple(Volume(f"volume-{n}", f"group-{n}", ReplicationStatus.ENABLED, "default") for n in range(3))

    def doors(self) -> tuple[Store, Agents, Bus]:
        """For drivers that use them; most do not."""
        return cast("Store", None), cast("Agents", None), cast("Bus", None)

    # --- helpers --------------------------------------------------------------------------------------------------

    def context(self, manager: str = "m1", active: str = FAILBACK, *, frozen: bool = False) -> BackendContext:
        store, agents, bus = self.doors()
        backend = Backend(targets=tuple(ReplicationTarget(one, one) for one in self.targets))
        return BackendContext(backend, manager, active, frozen, store, agents, bus)

    async def moved(self, driver: BackendDriver, target: str) -> None:
        result = await driver.failover(self.volumes(), target, forced=True)
        assert result.active_backend_id == target  # noqa: S101
        known = {one.id for one in self.volumes()}
        assert {one.volume_id for one in result.updates} <= known, "it speaks of volumes that it was not told of"  # noqa: S101

    # --- what it has to do ----------------------------------------------------------------------------------------

    async def test_it_brings_the_two_halves(self) -> None:
        """Without them no manager starts with it where there are targets."""
        await self.fresh()
        able = abilities(cast("Any", type(self.make(self.context()))))
        assert able.halves, "failover and failover_completed"  # noqa: S101

    async def test_it_moves_to_every_target_and_back(self) -> None:
        await self.fresh()
        driver = self.make(self.context())
        for target in (*self.targets, FAILBACK):
            await self.moved(driver, target)
            await driver.failover_completed(target)
        await driver.close()

    async def test_the_first_half_may_be_called_again_by_anybody(self) -> None:
        """The manager that called it may have died right after: the second call finds it done."""
        await self.fresh()
        first, second = self.make(self.context("m1")), self.make(self.context("m2"))
        await self.moved(first, self.targets[0])
        once = await self.observe()
        await self.moved(first, self.targets[0])
        await self.moved(second, self.targets[0])
        assert await self.observe() == once  # noqa: S101
        await asyncio.gather(first.close(), second.close())

    async def test_the_second_half_runs_in_managers_that_did_not_run_the_first_and_more_than_once(self) -> None:
        await self.fresh()
        doer, other = self.make(self.context("m1")), self.make(self.context("m2"))
        await self.moved(doer, self.targets[0])
        for driver in (doer, other, other):
            await driver.failover_completed(self.targets[0])
        await asyncio.gather(doer.close(), other.close())

    async def test_one_that_is_made_after_a_failover_is_at_the_new_site(self) -> None:
        """It is made with the site that the cluster is at, and may be told of it again."""
        await self.fresh()
        doer = self.make(self.context("m1"))
        await self.moved(doer, self.targets[0])
        late = self.make(self.context("m2", self.targets[0]))
        await late.failover_completed(self.targets[0])
        await self.moved(late, FAILBACK)
        await asyncio.gather(doer.close(), late.close())

    async def test_killed_at_any_await_another_one_finishes(self) -> None:
        await self.fresh()
        for awaits in range(1, MOST_AWAITS):
            doer, other = self.make(self.context("m1")), self.make(self.context("m2"))
            done = await _killed_after(doer, self.volumes(), self.targets[0], awaits)
            await self.moved(other, self.targets[0])
            await other.failover_completed(self.targets[0])
            await self.moved(other, FAILBACK)
            await asyncio.gather(doer.close(), other.close())
            if done:
                return

    async def test_a_target_that_is_not_configured_changes_nothing(self) -> None:
        """The API asks for none such; what a driver refuses must have changed nothing."""
        await self.fresh()
        driver = self.make(self.context())
        before = await self.observe()
        try:
            result = await driver.failover(self.volumes(), "no such target", forced=True)
        except Refused:
            assert await self.observe() == before  # noqa: S101
        else:
            raise AssertionError(f"it moved to a target that it does not have: {result}")
        await driver.close()

    async def test_both_halves_in_one_for_a_manager_that_is_alone(self) -> None:
        await self.fresh()
        driver = self.make(self.context())
        result = await driver.failover_host(self.volumes(), self.targets[0], forced=True)
        assert result.active_backend_id == self.targets[0]  # noqa: S101
        await driver.close()

    async def test_it_may_be_frozen_and_thawed_more_than_once_and_by_different_managers(self) -> None:
        await self.fresh()
        first, second = self.make(self.context("m1")), self.make(self.context("m2", frozen=True))
        for act in (first.freeze_backend, second.freeze_backend, first.thaw_backend, second.thaw_backend):
            await act()
        await asyncio.gather(first.close(), second.close())


async def _killed_after(driver: BackendDriver, volumes: Sequence[Volume], target: str, awaits: int) -> bool:
    """Start a failover and cancel it after so many turns of the loop; whether it had ended before."""
    task = asyncio.ensure_future(driver.failover(volumes, target, forced=True))
    for _ in range(awaits):
        await asyncio.sleep(0)
        if task.done():
            break
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return ended

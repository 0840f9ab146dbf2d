"""Claims groups, runs their operations one after the other, and records how each ended.

An operation whose doer died is still open; when the lease has run out any manager claims the group and runs it again
from the top. What makes that safe is in the runbooks; what ends every operation is here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from redkeep.errors import RedkeepError, Refused, StaleEpoch
from redkeep.model.instance import Event
from redkeep.model.operation import BACKGROUND, URGENT, Kind, Operation, State
from redkeep.operations import (
    add_replicas,
    become_independent,
    configure,
    create_backup,
    create_instance,
    delete_backup,
    delete_instance,
    detach_replica,
    eject_primary,
    fail_over,
    promote_replica,
    repair,
    resize_instance,
    restart_instance,
    roll_group,
    update_users,
)
from redkeep.operations.cluster_strategy import RedisTaskManagerStrategy
from redkeep.operations.context import Overtaken, Run, Tools
from redkeep.operations.runbook import Runbook

log = logging.getLogger(__name__)


RUNBOOKS: Mapping[Kind, Runbook] = {
    Kind.CREATE_INSTANCE: Runbook(create_instance.run, create_instance.give_up),
    Kind.ADD_REPLICAS: Runbook(add_replicas.run, add_replicas.give_up),
    Kind.DELETE_INSTANCE: Runbook(delete_instance.run, delete_instance.give_up),
    Kind.RESTART_INSTANCE: Runbook(restart_instance.run, restart_instance.give_up),
    Kind.RESIZE_INSTANCE: Runbook(resize_instance.run, resize_instance.give_up),
    Kind.UPDATE_USERS: Runbook(update_users.run, update_users.give_up),
    Kind.CONFIGURE: Runbook(configure.run, configure.give_up),
    Kind.ROLL_GROUP: Runbook(roll_group.run, roll_group.give_up),
    Kind.PROMOTE_REPLICA: Runbook(promote_replica.run, promote_replica.give_up),
    Kind.FAIL_OVER: Runbook(fail_over.run, fail_over.give_up),
    Kind.REPAIR: Runbook(repair.run, repair.give_up),
    Kind.DETACH_REPLICA: Runbook(detach_replica.run, detach_replica.give_up),
    Kind.EJECT_PRIMARY: Runbook(eject_primary.run, eject_primary.give_up),
    Kind.BECOME_INDEPENDENT: Runbook(become_independent.run, become_independent.give_up),
    Kind.CREATE_BACKUP: Runbook(create_backup.run, create_backup.give_up),
    Kind.DELETE_BACKUP: Runbook(delete_backup.run, delete_backup.give_up),
    **RedisTaskManagerStrategy().runbooks(),
}

CRASHES_ALLOWED = 5
"""An operation that raises what it should not is given up after so many attempts."""


def retry_pause(attempts: int) -> float:
    """Seconds until an operation is tried again: 0.05 s doubling up to 5 s."""
    return min(5.0, 0.05 * 2.0 ** min(max(0, attempts - 1), 16))


def next_up(operations: Sequence[Operation], now: float) -> Operation | None:
    """The urgent one first, then the oldest whose time has come. Others wait behind one that is to be retried, but
    nobody waits behind one that works in the background."""
    urgent = [one for one in operations if one.kind in URGENT]
    others = [one for one in operations if one.kind not in BACKGROUND]
    first = (urgent or others or operations)[:1]
    return next((one for one in first if one.not_before <= now), None)


class Runner:
    """Works on groups for one manager."""

    def __init__(
        self,
        tools: Tools,
        holder: str,
        *,
        lease_seconds: float = 5.0,
        runbooks: Mapping[Kind, Runbook] = RUNBOOKS,
    ) -> None:
        self._tools = tools
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._runbooks = runbooks
        self._overtaken: dict[str, asyncio.Event] = {}

    def overtake(self, group_id: str) -> None:
        """Something urgent was recorded: whoever waits in an operation of this group makes room."""
        if group_id in self._overtaken:
            self._overtaken[group_id].set()

    async def work(self, group_id: str) -> float | None:
        """Run what is open for a group, as far as it can be run now.

        Returns after how many seconds there may be more to do, or None when nothing is open. Raises Unavailable when
        the store is out of reach.
        """
        group = await self._tools.store.claim(group_id, self._holder, self._lease_seconds)
        if group is None:
            return self._lease_seconds / 2
        keeper = asyncio.create_task(self._keep_lease(group_id, group.epoch))
        self._overtaken[group_id] = asyncio.Event()
        try:
            again_after = await self._run_open(group_id)
        except StaleEpoch as error:
            log.info("group %s: %s", group_id, error)
            return self._lease_seconds / 2
        except (RedkeepError, asyncio.CancelledError):
            await self._tools.store.release(group_id, self._holder, group.epoch)
            raise
        finally:
            del self._overtaken[group_id]
            keeper.cancel()
        await self._tools.store.release(group_id, self._holder, group.epoch)
        return again_after

    async def _run_open(self, group_id: str) -> float | None:
        while True:
            async with self._tools.store.read() as tx:
                found = await tx.whole_group(group_id)
            if found is None or not found.operations:
                return None
            operation = next_up(found.operations, found.now)
            if operation is None:
                return max(0.01, min(one.not_before for one in found.operations) - found.now)
            self._overtaken[group_id].clear()
            overtaken = self._overtaken[group_id]
            run = Run(self._tools, self._holder, operation, found.group, found.instances, overtaken, found.cluster)
            await self._run_one(run, found.now)

    async def _run_one(self, run: Run, now: float) -> None:
        book = self._runbooks[run.operation.kind]
        run.operation = replace(run.operation, attempts=run.operation.attempts + 1, state=State.RUNNING)
        limit = max(0.0, run.operation.deadline - now) if run.operation.deadline else None
        try:
            async with asyncio.timeout(limit):
                await book.run(run)
        except Overtaken:
            await self._close(run, State.PENDING)
        except StaleEpoch:
            raise
        except Refused as error:
            await self._give_up(run, book, str(error))
        except TimeoutError:
            late = f"it was not done in time, at step {run.operation.step!r}"
            await self._give_up(run, book, run.operation.error or late)
        except RedkeepError as error:
            await self._try_later(run, str(error))
        except Exception:
            log.exception("%s of group %s failed at %r", run.operation.kind, run.group.id, run.operation.step)
            if run.operation.attempts >= CRASHES_ALLOWED:
                await self._give_up(run, book, "an internal error; the manager's log has it")
            else:
                await self._try_later(run, "an internal error; it is tried again")
        else:
            await self._close(run, State.DONE)

    async def _try_later(self, run: Run, reason: str) -> None:
        log.info("%s of group %s is tried again: %s", run.operation.kind, run.group.id, reason)
        async with run.change() as tx:
            later = await tx.now() + retry_pause(run.operation.attempts)
            run.operation = replace(run.operation, state=State.PENDING, not_before=later, error=reason)

    async def _give_up(self, run: Run, book: Runbook, reason: str) -> None:
        log.warning("%s of group %s is given up: %s", run.operation.kind, run.group.id, reason)
        await book.give_up(run, reason)
        await self._close(run, State.FAILED, reason)

    async def _close(self, run: Run, state: State, error: str | None = None) -> None:
        async with run.change() as tx:
            now = await tx.now()
            finished = None if state.open else now
            run.operation = replace(run.operation, state=state, error=error, finished=finished)
            if state is State.FAILED:
                await tx.record(_failure(run, now, error or ""))

    async def _keep_lease(self, group_id: str, epoch: int) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                if not await self._tools.store.renew(group_id, self._holder, epoch, self._lease_seconds):
                    return
            except RedkeepError as error:
                log.warning("the lease of group %s could not be renewed: %s", group_id, error)


def _failure(run: Run, now: float, reason: str) -> Event:
    return Event(
        at=now,
        kind=run.operation.kind,
        text=f"given up: {reason}",
        project_id=run.group.project_id,
        group_id=run.group.id,
        operation_id=run.operation.id,
        actor=run.holder,
    )

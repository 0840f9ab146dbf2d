"""Copies of this host's data sets, out to the storage of backups and in from it.

Each runs on its own, so that no order to a server waits for gigabytes; how far it is, is part of what is seen of the
server. What a restarted agent was doing is forgotten: whoever wanted it sees that, and asks again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from redkeep.agent import restoring, saving
from redkeep.agent.server import Server
from redkeep.agent.settings import AgentSettings
from redkeep.errors import NotNow, RedkeepError, Refused
from redkeep.model.backup import Phase, Transfer
from redkeep.model.orders import DropCopy, RestoreCopy, TakeCopy
from redkeep.ports import BackupStorage

log = logging.getLogger(__name__)

Tell = Callable[[Phase, float], None]
"""Told which phase a copy is in, and how much of that is done, from 0 to 1."""

Work = Callable[[Tell], Awaitable[Transfer]]


@dataclass
class _Copy:
    transfer: Transfer
    task: asyncio.Task[None] | None = None


class Copies:
    """At most one copy for each server: the last that was asked for."""

    def __init__(self, settings: AgentSettings, storage: BackupStorage | None) -> None:
        self._settings = settings
        self._storage = storage
        self._copies: dict[str, _Copy] = {}

    def seen(self, instance_id: str) -> Transfer | None:
        """How far the copy of this server is."""
        copy = self._copies.get(instance_id)
        return copy.transfer if copy else None

    def take(self, server: Server, order: TakeCopy) -> None:
        """See `TakeCopy`."""
        source = saving.Source(server, self._require_storage(), self._program(server.record.spec.version))
        self._begin(order, lambda tell: saving.take(source, order, tell))

    def restore(self, order: RestoreCopy) -> None:
        """See `RestoreCopy`, for an instance of which no server was started here."""
        target = restoring.Target(
            self._settings.directory / order.instance_id, self._require_storage(), self._program(order.version)
        )
        self._begin(order, lambda tell: restoring.restore(target, order, tell))

    def restored(self, order: RestoreCopy) -> None:
        """A server was started here already: what was to be restored is its data by now."""
        self._copies[order.instance_id] = _Copy(Transfer(order.backup_id, order.attempt, Phase.DONE, 1.0))

    async def require_restored(self, instance_id: str) -> None:
        """Raises NotNow when the data of a server that was never started is not (any more) where it will look."""
        if not restoring.is_in_place(self._settings.directory / instance_id):
            await self.stop(instance_id)
            raise NotNow(f"the restored data of {instance_id} is not there any more; it is fetched again")

    async def drop(self, order: DropCopy) -> None:
        """See `DropCopy`."""
        for name in [name for name, copy in self._copies.items() if copy.transfer.backup_id == order.backup_id]:
            await self.stop(name)
        await self._require_storage().remove(order.backup_id)

    async def stop(self, instance_id: str) -> None:
        """End what is under way for a server, and forget it."""
        copy = self._copies.pop(instance_id, None)
        if copy and copy.task:
            copy.task.cancel()
            await asyncio.wait({copy.task})

    def clean(self) -> None:
        """Remove what copies of an agent that was killed have left in the servers' directories."""
        for draft in self._settings.directory.glob(f"*/{saving.DRAFTS}"):
            draft.unlink(missing_ok=True)

    async def close(self) -> None:
        for name in tuple(self._copies):
            await self.stop(name)

    def _begin(self, order: TakeCopy | RestoreCopy, work: Work) -> None:
        """Unless it has begun. Another attempt, or another backup, ends the one before."""
        before = self._copies.get(order.instance_id)
        if before and (before.transfer.backup_id, before.transfer.attempt) == (order.backup_id, order.attempt):
            return
        copy = _Copy(Transfer(order.backup_id, order.attempt, Phase.SAVING))
        name = f"copy {order.backup_id} of {order.instance_id}"
        self._copies[order.instance_id] = copy
        copy.task = asyncio.create_task(self._run(copy, work, before), name=name)
        copy.task.add_done_callback(_log_crash)

    async def _run(self, copy: _Copy, work: Work, before: _Copy | None) -> None:
        if before and before.task:
            before.task.cancel()
            await asyncio.wait({before.task})

        def tell(phase: Phase, fraction: float) -> None:
            copy.transfer = replace(copy.transfer, phase=phase, fraction=fraction)

        started = time.monotonic()
        reason, final = "an internal error; the agent's log has it", False
        try:
            copy.transfer = await work(tell)
        except RedkeepError as error:
            reason, final = str(error), isinstance(error, Refused)
        finally:
            if not copy.transfer.phase.over:
                copy.transfer = replace(copy.transfer, phase=Phase.FAILED, detail=reason, final=final)
            took, said = time.monotonic() - started, copy.transfer
            log.info("copy of backup %s: %s after %.1f s %s", said.backup_id, said.phase, took, said.detail)

    def _require_storage(self) -> BackupStorage:
        if self._storage is None:
            raise Refused(f"host {self._settings.host_id} has no storage for backups", kind="unsupported")
        return self._storage

    def _program(self, version: str) -> Path:
        program = self._settings.programs.get(version)
        if program is None:
            raise Refused(f"host {self._settings.host_id} has no redis-server {version}", kind="missing")
        return program


def _log_crash(task: asyncio.Task[None]) -> None:
    """What nobody foresaw. That the copy failed is said already."""
    if not task.cancelled() and (error := task.exception()):
        log.error("%s failed", task.get_name(), exc_info=error)

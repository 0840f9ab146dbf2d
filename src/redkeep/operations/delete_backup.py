"""Delete a backup: its file goes first, then its row.

`args`: `backup`.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.errors import NotNow
from redkeep.model.backup import Backup, BackupStatus, holder_of
from redkeep.model.orders import DropCopy
from redkeep.operations.context import Run
from redkeep.operations.placing import SILENT

LIMIT = 60.0
"""Seconds that removing one file may take."""


async def run(run: Run) -> None:
    async with run.tools.store.read() as tx:
        backup = await tx.backup(run.arg("backup"))
    if backup is None or backup.status is BackupStatus.DELETED:
        return

    await run.step("remove", 0.3)
    if backup.member_id is not None:  # else nobody was ever told to copy anything
        order = DropCopy(backup.instance_id, run.group.id, run.group.epoch, backup.id)
        await run.tools.agents.tell(await _whom(run, backup), order, timeout=LIMIT)

    run.mark("record", 1.0)
    await _settle(run, BackupStatus.DELETED)
    await run.note(f"backup {backup.name} is gone", backup.instance_id)


async def give_up(run: Run, reason: str) -> None:
    await _settle(run, BackupStatus.DELETE_FAILED, f"{reason} Delete it again.")


async def _whom(run: Run, backup: Backup) -> str:
    """The host that has it, or any that is heard of. Raises NotNow when there is none."""
    holder = holder_of(backup.location)
    async with run.tools.store.read() as tx:
        now = await tx.now()
        heard = [host.id for host in await tx.hosts() if now - host.seen_at < SILENT]
        member = await tx.instance(backup.member_id or "")
    wanted = holder or (member.host_id if member else None)
    if wanted in heard:
        return wanted
    if holder or not heard:
        raise NotNow(f"backup {backup.name} is on host {holder or 'nobody knows which'}, which is not heard of")
    return heard[0]


async def _settle(run: Run, status: BackupStatus, fault: str = "") -> None:
    async with run.change() as tx:
        backup = await tx.backup(run.arg("backup"), lock=True)
        if backup is not None and backup.status is BackupStatus.DELETING:
            await tx.save(replace(backup, status=status, fault=fault, updated=await tx.now()))

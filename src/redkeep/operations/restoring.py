"""A backup's way into an instance that is being created."""

from __future__ import annotations

from dataclasses import replace

from redkeep.errors import NotNow, Refused, Unavailable
from redkeep.model.backup import Backup, BackupStatus, Phase, Transfer, name_of
from redkeep.model.orders import RestoreCopy
from redkeep.operations.context import Run

POLL = 0.1
MOST_FETCHES = 5


async def restorable(run: Run) -> Backup | None:
    """The backup that was ordered; None when none was. Raises Refused when it is not whole (any more)."""
    backup_id = run.operation.args.get("backup")
    if backup_id is None:
        return None
    async with run.tools.store.read() as tx:
        backup = await tx.backup(backup_id)
    if backup is None or backup.status is not BackupStatus.COMPLETED:
        raise Refused(f"backup {backup_id} is not there, or not complete", kind="missing")
    return backup


async def fetch(run: Run, instance_id: str, backup: Backup) -> None:
    """The copy lies checked where the server will find it. Raises Refused when it is not what was stored."""
    attempt = run.operation.choice.get("fetches", 0)
    instance = run.instance(instance_id)
    order = RestoreCopy(
        instance_id=instance_id,
        group_id=run.group.id,
        epoch=run.group.epoch,
        version=instance.version,
        backup_id=backup.id,
        attempt=attempt,
        name=name_of(backup.location),
        size_bytes=backup.size_bytes,
        sha256=backup.sha256,
    )
    await run.require_host(instance)
    await run.tell(instance, order)
    while True:
        facts = (await run.look([instance])).get(instance_id)
        if facts is None:
            await run.require_host(instance)
        transfer = facts.transfer if facts else None
        if facts and (transfer is None or (transfer.backup_id, transfer.attempt) != (backup.id, attempt)):
            raise Unavailable(f"the agent of {instance.name} was started again while it fetched the backup")
        if transfer and transfer.phase is Phase.DONE:
            return
        if transfer and transfer.phase is Phase.FAILED:
            await _try_again(run, attempt, transfer)
        if transfer:
            run.operation = replace(run.operation, progress=0.2 + 0.3 * transfer.fraction)
        await run.wait(POLL)


async def _try_again(run: Run, attempt: int, failed: Transfer) -> None:
    """Raises Refused when it would be in vain, NotNow otherwise."""
    if failed.final or attempt + 1 >= MOST_FETCHES:
        raise Refused(f"backup {failed.backup_id} cannot be restored: {failed.detail}")
    run.operation = replace(run.operation, choice={**run.operation.choice, "fetches": attempt + 1})
    raise NotNow(f"backup {failed.backup_id} was not fetched: {failed.detail}")

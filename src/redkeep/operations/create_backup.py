"""Make a backup: choose the member that is to be copied, have its agent copy it, record what it is.

It works in the background: whatever else is to be done to the group is done first, a failover at once. The copy goes on
meanwhile; if the change spoils it, another attempt is made, on whichever member is fit then.

`args`: `backup`; `instance`, whose status shows that it is made. `choice`: `member` and `attempt`, saved before the
agent is told; `failures`, what became of earlier attempts; `hosts`, those that may have stored something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from redkeep.decide.backups import Nobody, copy_from
from redkeep.errors import NotNow, OutcomeUnknown, RedkeepError, Refused, Unavailable
from redkeep.model.backup import Backup, BackupStatus, Phase, Transfer
from redkeep.model.instance import Instance, Status
from redkeep.model.operation import BACKGROUND
from redkeep.model.orders import DropCopy, TakeCopy
from redkeep.operations.context import Overtaken, Run, log
from redkeep.ports import Transaction

POLL = 0.1
"""Seconds between two looks at the copy."""
YIELD = 1.0
"""Seconds between two looks whether somebody waits for the group."""
SILENCE = 15.0
"""Seconds after which an agent that does not answer is given up for this copy."""
MOST_ATTEMPTS = 4


async def run(run: Run) -> None:
    await run.step("choose", 0.05)
    member = await _choose(run)

    run.mark("copy", 0.1)
    attempt = run.operation.choice["attempt"]
    try:
        await run.tell(member, TakeCopy(member.id, run.group.id, run.group.epoch, run.arg("backup"), attempt))
        copied = await _until_over(run, member, attempt)
    except (NotNow, Unavailable, OutcomeUnknown) as error:
        await _another_attempt(run, member, str(error))
        raise
    if copied.phase is Phase.FAILED:
        await _another_attempt(run, member, copied.detail)
        raise NotNow(copied.detail)

    run.mark("record", 1.0)
    await _record(run, member, copied)


async def give_up(run: Run, reason: str) -> None:
    await _drop(run, run.operation.choice.get("hosts", ()))
    async with run.change() as tx:
        backup = await _backup(run, tx)
        if backup.status.running:
            now = await tx.now()
            await tx.save(replace(backup, status=BackupStatus.FAILED, fault=reason, updated=now))
        await tx.save(*_released(run.instances, run.arg("instance")))


async def _choose(run: Run) -> Instance:
    """The member of an attempt that was begun, else the best one of now. Raises NotNow when nobody is fit."""
    choice = run.operation.choice
    if chosen := run.find(choice.get("member")):
        return chosen
    facts = await run.look(run.members)
    named, failures = run.arg("instance"), choice.get("failures", {})
    found = copy_from(facts, run.group.primary_id, named=named, failed=failures, lag_limit=run.tools.lag_limit_bytes)
    if isinstance(found, Nobody):
        raise NotNow(f"there is nobody to copy from: {found.reason}")
    member = run.instance(found)
    hosts = sorted({*choice.get("hosts", ()), member.host_id or ""})
    attempt = choice.get("attempt", 0) + 1
    run.operation = replace(run.operation, choice={**choice, "member": member.id, "attempt": attempt, "hosts": hosts})
    async with run.change() as tx:
        backup = await _backup(run, tx)
        await tx.save(replace(backup, status=BackupStatus.BUILDING, member_id=member.id, version=member.version))
    return member


async def _until_over(run: Run, member: Instance, attempt: int) -> Transfer:
    """Raises NotNow when nobody is at work on this attempt any more, Overtaken when somebody else waits."""
    clock = asyncio.get_running_loop().time
    heard = looked = clock()
    while True:
        facts = (await run.look([member])).get(member.id)
        transfer = facts.transfer if facts else None
        if facts is not None:
            heard = clock()
            if transfer is None or (transfer.backup_id, transfer.attempt) != (run.arg("backup"), attempt):
                raise NotNow(f"the agent of {member.name} was started again while it copied")
        elif clock() - heard > SILENCE:
            raise NotNow(f"the agent of {member.name} has not answered for {SILENCE:g} s")
        if transfer is not None:
            run.operation = replace(run.operation, progress=_progress(transfer))
            if transfer.phase.over:
                return transfer
        if clock() - looked > YIELD:
            await _yield(run)
            looked = clock()
        await run.wait(POLL)


async def _yield(run: Run) -> None:
    """Let others go first; the copy goes on. Raises Overtaken."""
    async with run.tools.store.read() as tx:
        if any(one.kind not in BACKGROUND for one in await tx.open_operations(group_id=run.group.id)):
            raise Overtaken


def _progress(transfer: Transfer) -> float:
    begins = {Phase.SAVING: 0.1, Phase.CHECKING: 0.5, Phase.SENDING: 0.6}
    return begins.get(transfer.phase, 0.9) + 0.35 * transfer.fraction * (transfer.phase is not Phase.CHECKING)


async def _another_attempt(run: Run, member: Instance, reason: str) -> None:
    """Raises Refused when there were enough."""
    choice = dict(run.operation.choice)
    del choice["member"]
    choice["failures"] = {**choice.get("failures", {}), member.id: reason}
    run.operation = replace(run.operation, choice=choice)
    if choice["attempt"] >= MOST_ATTEMPTS:
        raise Refused(f"{reason} (at {member.name}; {choice['attempt']} attempts were made)")
    await run.note(f"a copy of {member.name} failed and another one is made: {reason}", member.id)


async def _record(run: Run, member: Instance, copied: Transfer) -> None:
    async with run.change() as tx:
        backup, now = await _backup(run, tx), await tx.now()
        done = replace(
            backup,
            status=BackupStatus.COMPLETED,
            size_bytes=copied.size_bytes,
            sha256=copied.sha256,
            memory_bytes=copied.memory_bytes,
            location=copied.location,
            replication_id=copied.replication_id,
            offset=copied.offset,
            fault="",
            updated=now,
        )
        await tx.save(done, *_released(run.instances, run.arg("instance")))
    await run.note(f"backup {backup.name} was made from {member.name}, at offset {copied.offset}", run.arg("instance"))


async def _backup(run: Run, tx: Transaction) -> Backup:
    """Raises Refused when it is gone."""
    backup = await tx.backup(run.arg("backup"), lock=True)
    if backup is None:
        raise Refused(f"backup {run.arg('backup')} is not there any more", kind="missing")
    return backup


def _released(instances: Iterable[Instance], instance_id: str) -> list[Instance]:
    """The instance that showed it, if nothing else has taken it meanwhile."""
    return [
        replace(one, status=Status.ACTIVE) for one in instances if one.id == instance_id and one.status is Status.BACKUP
    ]


async def _drop(run: Run, hosts: Iterable[str]) -> None:
    """As far as they can be reached; deleting the backup does it again."""
    for host in hosts:
        order = DropCopy(run.arg("instance"), run.group.id, run.group.epoch, run.arg("backup"))
        try:
            await run.tools.agents.tell(host, order)
        except RedkeepError as error:
            log.info("backup %s may have left something on %s: %s", run.arg("backup"), host, error)

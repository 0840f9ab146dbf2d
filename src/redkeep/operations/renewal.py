"""One server is started anew: by its row, in its present role, once for each token. Whether it came back, and if not,
what it ran with before.

Shared by the restart of one instance and the roll of a group.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from redkeep.decide.parameters import carried_over
from redkeep.decide.rolling import gets_on, not_in_step
from redkeep.errors import RedkeepError, Refused, StaleEpoch
from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Applied, Instance
from redkeep.model.orders import Configure, EnsureRunning, Promote
from redkeep.operations.context import Run

log = logging.getLogger(__name__)

START_LIMIT = 90.0
"""Seconds for an orderly stop, which saves the data set, and a start."""
SAY_INTERVAL = 1.0
"""Seconds between two records of what is being waited for."""


async def renew(run: Run, name: str, token: str) -> str | None:
    """Start it anew and wait until it is back: open for writes, or in step with its primary. Else why it is not."""
    if reason := await start_anew(run, name, token):
        return reason
    if run.group.primary_id != name:
        return await _until_in_step(run, run.instance(name))
    instance = run.instance(name)
    try:
        await run.until_loaded(instance)
        await run.tell(instance, Promote(run.assignment(instance, run.topology(name))))
    except StaleEpoch:
        raise
    except RedkeepError as error:
        if await _is_gone(run, instance):
            return str(error)
        raise
    return None


async def start_anew(run: Run, name: str, token: str) -> str | None:
    """Stop and start it, unless that was done with this token. Why it ended at its start, or None.

    Raises Unavailable or OutcomeUnknown when its agent cannot be asked.
    """
    instance = run.instance(name)
    assigned = run.assignment(instance, run.topology(run.group.primary_id))
    await run.expect_absence(instance)
    try:
        await run.tell(instance, EnsureRunning(run.spec(instance), assigned, restart_token=token), timeout=START_LIMIT)
    except StaleEpoch:
        raise
    except Refused as error:
        return str(error)
    except RedkeepError as error:
        if not await _is_gone(run, instance):
            raise
        return str(error)
    return None


def is_unproven(instance: Instance) -> bool:
    """Whether it is configured otherwise than when it last came up."""
    good = instance.proven
    return (good.configuration_id, carried_over(good.parameters, instance.version)) != (
        instance.configuration_id,
        instance.parameters,
    )


def proven(instance: Instance) -> Instance:
    """The row of one that came up as it is."""
    return replace(instance, proven=Applied(instance.configuration_id, instance.parameters))


async def restore(run: Run, name: str, version: str) -> None:
    """Its row says again what it last came up with. A configuration that it did not come up with, nobody keeps."""
    failed = run.instance(name)
    good, everyone = failed.proven, is_unproven(failed)

    def back(one: Instance) -> Instance:
        former = replace(one, version=version) if one.id == name else one
        if not everyone and one.id != name:
            return one
        values = carried_over(good.parameters, former.version)
        return replace(former, configuration_id=good.configuration_id, parameters=values)

    await run.alter(instances=back)
    others = [one for one in run.members if one.id != name] if everyone else []
    await asyncio.gather(*(run.try_tell(one, Configure(run.spec(one), run.group.epoch)) for one in others))


async def _is_gone(run: Run, instance: Instance) -> bool:
    facts = (await run.look([instance])).get(instance.id)
    return facts is not None and facts.process in (Process.EXITED, Process.ABSENT)


async def _until_in_step(run: Run, instance: Instance) -> str | None:
    clock = asyncio.get_running_loop().time
    patience, looked_at, said_at = run.tools.roll_patience, clock(), clock()
    before: ServerFacts | None = None
    mark = -1
    while True:
        facts = await run.look([run.primary, instance])
        mine, primary = facts.get(instance.id), facts.get(run.primary.id)
        if mark < 0 and primary is not None:
            mark = primary.offset
        reason = not_in_step(mine, primary, mark)
        if reason is None:
            run.operation = replace(run.operation, error=None)
            return None
        now = clock()
        if not gets_on(before, mine):
            patience -= now - looked_at
        if patience < 0:
            return reason
        if now - said_at > SAY_INTERVAL:
            said_at = now
            await _say(run, f"waits for {instance.name}: {reason}")
        before, looked_at = mine, now
        await run.wait(0.05)


async def _say(run: Run, text: str) -> None:
    """Where whoever looks at the operation sees it."""
    run.operation = replace(run.operation, error=text)
    await run.alter()

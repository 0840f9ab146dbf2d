"""Every server of a group is started anew, with another version of Redis if one is asked for: the replicas first, one
by one, each back and in step before the next; then one of them is promoted; the old primary comes last.

Where a server does not come back the roll stops, and that server is put back to what it last came up with: with
replicas there, before anybody who writes has noticed. What was renewed until then stays.

`args`: `instance`, the source; `version`, if it changes. `choice`: `renewed`, those who are through; `at`, whose turn
it is; `before`, the version that one had; `stopped`, why the roll goes no further.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.parameters import carried_over
from redkeep.decide.promotion import NobodyFit, most_current
from redkeep.decide.rolling import in_order
from redkeep.decide.sites import local
from redkeep.errors import NotNow, RedkeepError, Refused, StaleEpoch
from redkeep.model.instance import Instance, Status
from redkeep.operations import promote_replica
from redkeep.operations.context import Overtaken, Run
from redkeep.operations.renewal import is_unproven, proven, renew, restore
from redkeep.operations.rolling import choose, concerned, renewed, with_version


async def run(run: Run) -> None:
    if stopped := run.operation.choice.get("stopped"):
        raise Refused(stopped, kind="busy")
    everyone = in_order(run.members, run.group.primary_id)
    for one in everyone[:-1]:
        await _renew(run, one.id)

    if len(local(everyone, run.primary)) > 1 and run.primary.id not in renewed(run):
        successor = await _successor(run)
        await promote_replica.switch(run, successor)
        await run.announce(run.topology(successor.id))
    for one in in_order(run.members, run.group.primary_id):
        await _renew(run, one.id)

    run.mark("finish", 1.0)
    await run.settle(concerned(run), Status.ACTIVE)
    await run.note(f"all servers of the group were restarted{with_version(run)}", run.arg("instance"))


async def give_up(run: Run, reason: str) -> None:
    await promote_replica.undo(run)
    name = run.operation.choice.get("at")
    failed = run.find(name) if name not in renewed(run) else None
    lost = await _put_back(run, failed) if failed else None
    told = {run.arg("instance"), *([failed.id] if failed else [])}
    ours = concerned(run)
    await run.settle([one for one in ours if one not in told], Status.ACTIVE)
    await run.settle([one for one in ours if one in told], Status.ACTIVE, reason)
    if failed and lost:
        await run.settle([failed.id], Status.ERROR, f"{reason} It is not in order: {lost}.")


async def _renew(run: Run, name: str) -> None:
    if name in renewed(run):
        return
    instance = run.instance(name)
    version = run.operation.args.get("version") or instance.version
    values = carried_over(instance.parameters, version)
    done = 0.1 + 0.8 * len(renewed(run)) / len(run.members)
    run.mark("renew", done)
    if run.operation.choice.get("at") != name:
        choose(run, at=name, before=instance.version)
    await run.alter(
        instances=lambda one: replace(one, version=version, parameters=values) if one.id == name else one,
    )
    if reason := await renew(run, name, run.operation.id):
        choose(run, stopped=f"The roll stopped at {instance.name}, which did not come back: {reason}.")
        await run.alter(note=run.operation.choice["stopped"], about=name)
        raise Refused(run.operation.choice["stopped"], kind="busy")
    choose(run, renewed=[*renewed(run), name])
    await run.alter(
        instances=lambda one: proven(one) if one.id == name else one,
        note=f"{instance.name} was restarted{with_version(run)}",
        about=name,
    )


async def _put_back(run: Run, failed: Instance) -> str | None:
    """Why it is not back even so, or None."""
    version = run.operation.choice["before"]
    if version == failed.version and not is_unproven(failed):
        return "there is nothing to put back"
    await restore(run, failed.id, version)
    await run.note(f"{failed.name} is put back to what it last ran with", failed.id)
    try:
        return await renew(run, failed.id, f"{run.operation.id}/back")
    except StaleEpoch:
        raise
    except RedkeepError as error:
        return str(error)
    except Overtaken:
        return "something more urgent came first"


async def _successor(run: Run) -> Instance:
    """Whom an earlier attempt has chosen, since that may have been acted on; else the replica that has most.

    Raises NotNow when none is fit at the moment.
    """
    if chosen_before := run.find(run.group.successor_id):
        return chosen_before
    facts = await run.look(run.members)
    primary = facts.get(run.primary.id)
    if primary is None:
        raise NotNow(f"the agent of {run.primary.name} does not answer")
    candidates = {one.id for one in local(run.members, run.primary)} - {run.primary.id}
    replicas = [found for name, found in facts.items() if name in candidates]
    chosen = most_current(replicas, history=primary.replication_id)
    if isinstance(chosen, NobodyFit):
        raise NotNow(f"nobody can take the place of {run.primary.name}: {chosen.reason}")
    return run.instance(chosen.instance_id)

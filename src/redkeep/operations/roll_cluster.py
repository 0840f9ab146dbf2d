"""Every server of a cluster is started anew, one after the other, with another version or as it is.

In each shard the replicas go first; then one of them is promoted, so that clients see nothing of it but a pause of
milliseconds, and the former primary follows. A primary without replicas is restarted in place: its slots are away
meanwhile. It stops at the first that does not come back, which gets what it last ran with.

`args`: `version`, if it is to be another one. `choice`: `renewed`, who has come back; `at` and `before`, who is started
now and with what version it ran; `stopped`, why it goes no further.
"""

from __future__ import annotations

from dataclasses import replace

from redkeep.decide.parameters import carried_over
from redkeep.decide.rolling import by_shards
from redkeep.errors import NotNow, RedkeepError, Refused, StaleEpoch
from redkeep.model.cluster import ClusterTask
from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Role
from redkeep.operations.context import Run
from redkeep.operations.forming import until_agreed
from redkeep.operations.membership import fail, finish, in_cluster, running
from redkeep.operations.promote_shard_replica import promote, release_held
from redkeep.operations.renewal import START_LIMIT, proven, restore
from redkeep.operations.rolling import choose, concerned, renewed, with_version
from redkeep.operations.shards import adopt, see

TASKS = (ClusterTask.UPGRADING_CLUSTER, ClusterTask.RESTARTING_CLUSTER)
BACK_LIMIT = 120.0
"""Seconds that a member gets to be one of mind with the others after its start."""


async def run(run: Run) -> None:
    if stopped := run.operation.choice.get("stopped"):
        raise Refused(stopped, kind="busy")
    run.mark("agree", 0.05)
    await until_agreed(run, in_cluster(run), BACK_LIMIT)
    await adopt(run, await see(run))
    for shard in by_shards(in_cluster(run)):
        for one in shard:
            await _renew(run, one.id)

    run.mark("finish", 1.0)
    await run.settle(concerned(run), Status.ACTIVE)
    version = run.operation.args.get("version")
    told = f"all members were restarted{with_version(run)}"
    for task in TASKS:
        await finish(run, task, told, **({"version": version} if version else {}))


async def give_up(run: Run, reason: str) -> None:
    await release_held(run)
    name = run.operation.choice.get("at")
    failed = run.find(name) if name not in renewed(run) else None
    if failed is not None:
        await _put_back(run, failed)
    await run.settle([one for one in concerned(run) if one != (failed.id if failed else None)], Status.ACTIVE)
    if failed is not None:
        await run.settle([failed.id], Status.ACTIVE, reason)
    for task in TASKS:
        await fail(run, task, reason)


async def _renew(run: Run, name: str) -> None:
    if name in renewed(run):
        return
    if run.instance(name).role is Role.PRIMARY and (successor := _successor(run, name)) is not None:
        await promote(run, successor)
    instance = run.instance(name)
    version = run.operation.args.get("version") or instance.version
    run.mark("renew", 0.1 + 0.8 * len(renewed(run)) / len(in_cluster(run)))
    if run.operation.choice.get("at") != name:
        choose(run, at=name, before=instance.version)
    values = carried_over(instance.parameters, version)
    await run.alter(instances=lambda one: replace(one, version=version, parameters=values) if one.id == name else one)
    if reason := await _start_anew(run, name, run.operation.id):
        choose(run, stopped=f"The roll stopped at {instance.name}, which did not come back: {reason}.")
        await run.alter(note=run.operation.choice["stopped"], about=name)
        raise Refused(run.operation.choice["stopped"], kind="busy")
    choose(run, renewed=[*renewed(run), name])
    await run.alter(
        instances=lambda one: proven(one) if one.id == name else one,
        note=f"{instance.name} was restarted{with_version(run)}",
        about=name,
    )


async def _start_anew(run: Run, name: str, token: str) -> str | None:
    """Stop and start it, unless that was done with this token, and wait until all agree with it. Why it is not back, or
    None. Raises Unavailable or OutcomeUnknown when its agent cannot be asked."""
    instance = run.instance(name)
    try:
        await run.tell(instance, running(run, instance, restart_token=token), timeout=START_LIMIT)
        await run.until_loaded(instance)
        await until_agreed(run, in_cluster(run), BACK_LIMIT)
    except StaleEpoch:
        raise
    except (Refused, NotNow) as error:
        return str(error)
    return None


def _successor(run: Run, name: str) -> Instance | None:
    """Who takes the place of a primary that is to be restarted: a replica of its shard that was renewed already."""
    shard = run.instance(name).shard
    replicas = (one for one in in_cluster(run) if one.shard == shard and one.id != name)
    return next((one for one in replicas if one.id in renewed(run)), None)


async def _put_back(run: Run, failed: Instance) -> None:
    """With what it last came up with. What comes of it stands in its row and in the events."""
    await restore(run, failed.id, run.operation.choice["before"])
    await run.note(f"{failed.name} is put back to what it last ran with", failed.id)
    instance = run.instance(failed.id)
    try:
        await run.tell(instance, running(run, instance, restart_token=f"{run.operation.id}/back"), timeout=START_LIMIT)
    except StaleEpoch:
        raise
    except RedkeepError as error:
        await run.note(f"{failed.name} is not back: {error}", failed.id)

"""Parameters of a group: each server takes up at once what it can, and has the rest in its redis.conf for its next
start. A replica goes first; when its Redis refuses a value, everybody has what they had before.

`args`: `instance`, the source; `configuration`, the group of parameters that is attached, or null; `parameters`, its
values; `before`, an object with the same two.

Where the durability changes, clients are told how many confirmations to wait for; what is promised holds from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from redkeep.decide.parameters import DURABILITY, carried_over, waiting
from redkeep.decide.rolling import in_order
from redkeep.model.instance import Applied, Instance, Status
from redkeep.model.orders import Configure
from redkeep.operations.context import Run


async def run(run: Run) -> None:
    await apply(run)
    await run.note(summary(run), run.arg("instance"))


async def apply(run: Run) -> None:
    """Every member has the values, and is given back."""
    wanted = _applied(run.operation.args)
    first, *others = in_order(run.members, run.group.primary_id)
    run.mark("first", 0.2)
    await _configure(run, first, wanted)

    run.mark("others", 0.5)
    for one in others:
        await _configure(run, one, wanted)

    await _promise(run)
    run.mark("record", 1.0)
    await run.settle(_ours(run), Status.ACTIVE)


async def give_up(run: Run, reason: str) -> None:
    before = _applied(run.arg("before"))
    await run.alter(instances=lambda one: _with(one, before))
    for one in run.members:
        await run.try_tell(one, Configure(run.spec(one), run.group.epoch))
    await _promise(run)
    await run.settle(_ours(run), Status.ACTIVE, f"The configuration was not changed: {reason}")


async def _promise(run: Run) -> None:
    """Servers and clients know what the group promises by now, if the change was one of that."""
    said = {dict(_applied(args).parameters).get(DURABILITY) for args in (run.operation.args, run.arg("before"))}
    if len(said) > 1 and run.group.primary_id is not None:
        run.mark("promise", 0.9)
        await run.alter(group=lambda group: replace(group, topology_epoch=group.epoch))
        told = run.topology(run.group.primary_id)
        await run.announce(told)
        await run.brief_members(told)


async def _configure(run: Run, instance: Instance, wanted: Applied) -> None:
    """The row first: whoever repairs the server meanwhile must not undo it. One in ERROR takes it when it can."""
    await run.alter(instances=lambda one: _with(one, wanted) if one.id == instance.id else one)
    order = Configure(run.spec(run.instance(instance.id)), run.group.epoch)
    if instance.status is Status.ERROR:
        await run.try_tell(instance, order)
    else:
        await run.tell(instance, order)


def _with(one: Instance, applied: Applied) -> Instance:
    values = carried_over(applied.parameters, one.version)
    return replace(one, configuration_id=applied.configuration_id, parameters=values)


def _applied(said: Mapping[str, Any]) -> Applied:
    return Applied(said["configuration"], tuple((name, value) for name, value in said["parameters"]))


def summary(run: Run) -> str:
    """What has been configured, and what waits."""
    wanted = _applied(run.operation.args)
    values = ", ".join(f"{name} {value!r}" for name, value in wanted.parameters) or "the defaults"
    later = ", ".join(sorted({name for one in run.members for name in waiting(one)}))
    return f"configured: {values}; with the next restart: {later or 'nothing'}"


def _ours(run: Run) -> list[str]:
    return [one.id for one in run.instances if one.status is Status.UPDATING]

"""Fail over shards of a cluster whose primaries are dead: the replica with most of the history takes over at once.
Where there is none that is fit, and where nobody has to take over, the dead one is started again with the data it has.

The proof is the exit that the kernel told the agent. So nobody has to wait until the members suspect it and vote: the
replica claims the slots under a new epoch, and all others believe the higher one. Slots that were half-way with the
dead one are half-way with its successor from the same instant on.

An administrator may say so without proof (`force`), when the members have lost their majority and cannot elect. Then
the old primary may still be writing where nobody sees it, and what it acknowledged since is lost: the event says so.

`args`: `instances`, the dead; `reason`; `force`. `choice`: `successors`, by who is dead, saved before anybody acts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from redkeep.decide.promotion import Chosen
from redkeep.decide.shards import is_dead, marks_to_inherit, owns, quorum, successor
from redkeep.model.cluster_orders import ClusterTakeOver
from redkeep.model.instance import Instance
from redkeep.model.orders import EnsureRunning
from redkeep.operations.context import Run
from redkeep.operations.shards import Seen, adopt, see

log = logging.getLogger(__name__)

LOOK_LIMIT = 0.5
"""Seconds that a look may take here: whoever does not answer by then is not chosen."""
ROUNDS = 3
"""Those who die meanwhile are seen to at once; whoever dies again and again waits for the manager's next look."""


async def run(run: Run) -> None:
    for _ in range(ROUNDS):
        run.mark("look", 0.1)
        seen = await see(run, timeout=LOOK_LIMIT)
        dead = [one for one in seen.members if _is_dead(run, one, seen)]
        if not dead:
            return
        await _replace(run, seen, dead)


async def _replace(run: Run, seen: Seen, dead: list[Instance]) -> None:
    """All who are dead by now, not only those who were when it was decided: they may have been on one host."""
    chosen = _choose(run, seen, dead)

    run.mark("choose", 0.3)
    if chosen:
        run.operation = replace(run.operation, choice={"successors": chosen})
        names = ", ".join(run.instance(name).name for name in chosen.values())
        await run.note(f"chosen to take over: {names}")

    run.mark("take over", 0.5)
    taken = await asyncio.gather(
        *(_take_over(run, seen, run.instance(old), run.instance(new)) for old, new in chosen.items())
    )

    run.mark("record", 0.7)
    note = "; ".join(taken) or f"nobody takes over: {run.arg('reason')}"
    await adopt(run, await see(run, timeout=LOOK_LIMIT), note, replaced=chosen)

    run.mark("bring back", 1.0)
    missed = await asyncio.gather(*(_bring_back(run, one) for one in dead))
    if told := "; ".join(text for text in missed if text):
        await run.note(told)


async def give_up(run: Run, reason: str) -> None:
    """The manager judges the cluster anew."""
    await run.note(f"failover did not succeed: {reason}")


def _is_dead(run: Run, one: Instance, seen: Seen) -> bool:
    """With `force` also one of those named that cannot be seen. One that is seen alive is never replaced."""
    facts = seen.facts.get(one.id)
    if run.operation.args.get("force") and one.id in run.arg("instances"):
        return (facts is None or not facts.alive) and bool(owns(seen.truth, one.node_id))
    return facts is not None and is_dead(facts)


def _choose(run: Run, seen: Seen, dead: list[Instance]) -> dict[str, str]:
    """By who is dead; an earlier choice stands while it lives.

    A dead one that owns nothing needs no successor: Redis has elected, or an earlier attempt came so far. One for which
    nobody is fit is left out.
    """
    found: dict[str, str] = {}
    earlier: Mapping[str, str] = run.operation.choice.get("successors", {})
    for one in dead:
        if not owns(seen.truth, one.node_id):
            continue
        before = seen.facts.get(earlier.get(one.id, ""))
        if before is not None and before.alive:
            found[one.id] = before.instance_id
            continue
        fit = successor(one, seen.members, seen.facts, seen.truth, quorum(seen.members, one, run.group.durability))
        if isinstance(fit, Chosen):
            found[one.id] = fit.instance_id
        else:
            log.warning("nobody can take over from %s: %s", one.name, fit.reason)
    return found


async def _take_over(run: Run, seen: Seen, old: Instance, new: Instance) -> str:
    migrating, importing = marks_to_inherit(old, seen.facts)
    order = ClusterTakeOver(
        new.id,
        run.group.id,
        run.group.epoch,
        former_node_id=old.node_id or "",
        ranges=owns(seen.truth, old.node_id),
        migrating=migrating,
        importing=importing,
    )
    facts = await run.tell(new, order)
    doubt = ""
    if run.operation.args.get("force"):
        doubt = f"; what {old.name} acknowledged after offset {facts.offset} is lost, how much that is nobody can know"
    return f"{new.name} took over from {old.name}: {run.arg('reason')}{doubt}"


async def _bring_back(run: Run, one: Instance) -> str:
    """It finds out from the others that it is a replica now."""
    assigned = run.assignment(one, run.topology(None, [one]))
    missed = await run.try_tell(one, EnsureRunning(run.spec(one), assigned))
    return f"{one.name} is away: {missed}" if missed else ""

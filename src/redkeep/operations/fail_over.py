"""Fail over: the primary is gone, a replica takes its place.

With proof (its own agent saw the process end) the most current replica is promoted at once. Without proof the old
primary may still be writing behind a partition: then its word is revoked in the store, its replicas are isolated so
that they carry it no longer, and its word is waited out before anyone is promoted (see `decide/fencing.py`). One that
serves while its agent is gone is fenced from the successor's host, which is proof as well; then nothing is lost.

`args`: `reason`; `proven`; `take_over`, the agent alone is gone; `agent_gone`, it was before its host was; `history`,
the replication id of the primary when it was last seen. With `site` it goes to another site: see `take_over_site`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from redkeep.decide.durability import promised, replicas_to_see
from redkeep.decide.fencing import CONFIRMED_UNSEEN, SELF_FENCE, may_replace, sure_size
from redkeep.decide.promotion import Chosen, NobodyFit, most_current, unfitness
from redkeep.decide.sites import local
from redkeep.errors import NotNow, Refused, Unavailable
from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Instance
from redkeep.model.orders import EnsureRunning, FenceNeighbour, Follow, Isolate, Promote, ReleaseWrites
from redkeep.model.topology import Role
from redkeep.operations import take_over_site
from redkeep.operations.context import Run
from redkeep.operations.succession import record_primary

LOOK_LIMIT = 0.5
"""Seconds that a look may take here: whoever does not answer by then is not chosen."""
ACKNOWLEDGEMENT_FADES = 0.5
"""Seconds after which an isolated replica's last acknowledgement cannot carry the old primary any more: its agent asks
for a fresh one several times a second."""
MARGIN = 0.25
"""For clocks that do not run alike and fences that come late."""
CATCH_UP = 1.0
"""Seconds that a successor gets to apply the last of what its fenced primary has sent."""
GONE_LIMIT = 2.0
"""Seconds that the agent of the old primary gets to answer, where nothing was heard of it lately."""


async def run(run: Run) -> None:
    if run.operation.args.get("site"):
        await take_over_site.run(run)
    else:
        await _run(run)


async def _run(run: Run) -> None:
    old = run.instance(run.operation.choice.get("old") or run.group.primary_id or "")
    if run.group.primary_id == old.id and not await _replace(run, old):
        return
    successor = run.primary
    told = run.topology(successor.id)

    run.mark("repoint", 0.9)
    await run.announce(told)
    others = [one for one in run.members if one.id not in (successor.id, old.id)]
    await asyncio.gather(*(run.try_tell(one, Follow(run.assignment(one, told))) for one in others))

    run.mark("bring back", 1.0)
    patience = 10.0 if run.operation.args.get("proven") else GONE_LIMIT
    missed = await run.try_tell(old, EnsureRunning(run.spec(old), run.assignment(old, told)), timeout=patience)
    became = f"{old.name} follows {successor.name}" if missed is None else f"{old.name} is away: {missed}"
    await run.note(became, old.id)


async def _replace(run: Run, old: Instance) -> bool:
    """Put a successor in its place; False when there is no need, since it is back."""
    run.mark("look", 0.1)
    facts = await run.look(run.members, timeout=LOOK_LIMIT)
    if _is_back(facts.get(old.id)) and not run.operation.choice:
        await run.note(f"{old.name} is back: no failover", old.id)
        return False
    chosen = _choose(run, old, facts)

    run.mark("choose", 0.3)
    doubted = _doubted(run, old, chosen, facts)
    await save_choice(run, old, chosen)
    if doubted and run.operation.args.get("take_over"):
        await _take_over(run, old, run.instance(chosen.instance_id))
    elif doubted:
        chosen = await make_sure(run, old, chosen)
    successor = run.instance(chosen.instance_id)

    run.mark("promote", 0.5)
    await run.tell(successor, Promote(run.assignment(successor, run.topology(successor.id))))

    run.mark("record", 0.7)
    await record_primary(run, successor.id, f"{successor.name} is primary: {run.arg('reason')}")
    return True


async def give_up(run: Run, reason: str) -> None:
    """The choice stays: it may have been acted on. The manager judges the group anew."""
    if run.operation.args.get("site"):
        await take_over_site.give_up(run, reason)
    else:
        await run.note(f"failover did not succeed: {reason}")


def _is_back(facts: ServerFacts | None) -> bool:
    return facts is not None and facts.alive and facts.role is Role.PRIMARY


def _choose(run: Run, old: Instance, facts: Mapping[str, ServerFacts]) -> Chosen:
    """An earlier choice stands while its server lives: it may have been promoted. Raises NotNow when nobody is fit."""
    earlier = facts.get(run.group.successor_id or "")
    if earlier is not None and earlier.instance_id != old.id and _stands(earlier, run.arg("history")):
        return Chosen(earlier.instance_id, earlier.offset, "it was chosen before")
    candidates = {one.id for one in local(run.members, old) if one.id != old.id}
    others = [found for name, found in facts.items() if name in candidates]
    fit = most_current(others, history=run.arg("history"), quorum=quorum(run))
    if isinstance(fit, NobodyFit):
        message = f"nobody can take the place of {old.name}: {fit.reason}"
        raise NotNow(message) if run.operation.choice else Refused(message, kind="busy")  # nobody has acted: judge anew
    return fit


def quorum(run: Run) -> int:
    """How many fit replicas must be seen so that the best of them has all that was promised."""
    return replicas_to_see(promised(run.group, run.primary), len(local(run.members, run.primary)))


async def _not_there(run: Run, instances: list[Instance]) -> int:
    """How many of them their agents say do not run."""
    facts = await run.look(instances, timeout=LOOK_LIMIT)
    return sum(found.process in (Process.ABSENT, Process.EXITED) for found in facts.values())


def _stands(earlier: ServerFacts, history: str) -> bool:
    """Whether an earlier choice is still good: promoted by now, or still fit to be."""
    return (earlier.alive and earlier.role is Role.PRIMARY) or unfitness(earlier, history) is None


def _doubted(run: Run, old: Instance, chosen: Chosen, facts: Mapping[str, ServerFacts]) -> bool:
    """Whether the old primary, or one that was told to take its place, may be writing out of our sight."""
    if chosen.instance_id in facts and facts[chosen.instance_id].role is Role.PRIMARY:
        return False  # it was promoted, after it had been made sure
    suspects = {old.id} if not run.arg("proven") else set()
    if (earlier := run.group.successor_id) and earlier != chosen.instance_id:
        suspects.add(earlier)
    return any(name not in facts or facts[name].process is not Process.EXITED for name in suspects)


async def save_choice(run: Run, old: Instance, chosen: Chosen) -> None:
    """From now on nobody but the chosen one may be confirmed as primary."""
    choice = {"old": old.id, "successor": chosen.instance_id, "reason": chosen.reason}
    run.operation = replace(run.operation, choice=choice)
    await run.alter(group=lambda group: replace(group, successor_id=chosen.instance_id))


async def _take_over(run: Run, old: Instance, successor: Instance) -> None:
    """The old primary refuses writes, and the successor has what it acknowledged, as far as it gets there in time.

    Raises Refused, with the choice taken back, when its agent may still open it again, or when it cannot be fenced.
    """
    run.mark("fence from afar")
    async with run.tools.store.read() as tx:
        now = await tx.now()
        seen = next((host.seen_at for host in await tx.hosts() if host.id == old.host_id), now)
    if now - seen <= CONFIRMED_UNSEEN + run.tools.word_seconds + MARGIN:
        await _withdraw(run)
        await run.try_tell(old, ReleaseWrites(old.id, run.group.id, run.group.epoch), timeout=GONE_LIMIT)
        raise Refused(f"the agent of {old.name} was heard of {now - seen:.1f} s ago", kind="busy")
    order = FenceNeighbour(successor.id, run.group.id, run.group.epoch, old.id, run.spec(old).address, old.version)
    try:
        final = await run.tell(successor, order, timeout=2 * LOOK_LIMIT)
    except (Refused, Unavailable, NotNow) as error:  # nothing was done; not so if the outcome is not known
        await _withdraw(run)
        raise Refused(
            f"{old.name} could not be fenced from the host of {successor.name}: {error}", kind="busy"
        ) from error

    run.mark("catch up")
    assigned = run.assignment(successor, run.topology(successor.id))
    try:
        await run.tell(successor, Promote(assigned, final.replication_id, final.offset, CATCH_UP))
    except NotNow as error:
        await run.note(f"{successor.name} takes the place of {old.name} though {error}", successor.id)


async def _withdraw(run: Run) -> None:
    """Nobody has acted on the choice: the old primary may be confirmed again."""
    await run.alter(group=lambda group: replace(group, successor_id=None))


async def make_sure(run: Run, old: Instance, chosen: Chosen) -> Chosen:
    """Take the old primary's supporters away, wait until its word has run out, choose again among those left.

    Raises Refused when too few replicas can be reached, with the choice taken back; NotNow when nobody is left.
    """
    around = local(run.instances, old)
    replicas = [one for one in around if one.id != old.id and one.host_id is not None]
    run.mark("isolate")
    orders = (run.try_tell(one, Isolate(one.id, run.group.id, run.group.epoch)) for one in replicas)
    isolated = [one for one, missed in zip(replicas, await asyncio.gather(*orders), strict=True) if missed is None]
    away = await _not_there(run, [one for one in replicas if one not in isolated and one not in run.members])
    followers = len(replicas) - len(isolated) - away
    if not may_replace(group_size=sure_size(around), may_still_follow=followers):
        await _withdraw(run)
        raise Refused(f"too few replicas can be reached to be sure that nobody follows {old.name}", kind="busy")

    run.mark("wait out its word", 0.4)
    fenced_after = SELF_FENCE if run.operation.args.get("agent_gone") else ACKNOWLEDGEMENT_FADES
    await asyncio.sleep(max(run.tools.word_seconds, fenced_after) + MARGIN)

    run.mark("choose again")
    facts = await run.look([one for one in isolated if one in run.members], timeout=LOOK_LIMIT)
    final = most_current(facts.values(), history=run.operation.args.get("history", ""), quorum=quorum(run))
    if isinstance(final, NobodyFit):
        raise NotNow(f"nobody can take the place of {old.name}: {final.reason}")
    if final.instance_id != chosen.instance_id:
        await save_choice(run, old, final)
    return final

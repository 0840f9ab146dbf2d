"""Rounds of random faults on a group of three under load, and what must hold after each: `./run chaos`.

The seed says which faults come, not when exactly they strike: a round that failed is played again with its seed, and
fails again often enough to be understood.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from redkeep.decide.recovery import Limits
from redkeep.model.instance import Durability, Instance, Status
from redkeep.model.topology import Address, Role
from redkeep.testing import invariants
from redkeep.testing.history import Entry, Findings
from redkeep.testing.invariants import Probes
from redkeep.testing.load import Load, load
from redkeep.testing.stack import Part, Stack, stack

HOSTS = ("host-1", "host-2", "host-3")
WORD = 1.0
LOSS_BOUND = WORD + 3.0
"""Seconds before a fault in which a write may be lost where nobody was asked to confirm it."""
AWAY = (0.0, 1.5)
"""Seconds that a part stays away, at the least and at the most."""
LONG_AWAY = 6.0
"""Seconds that an agent stays away when its primaries are to be taken over."""
QUICK: dict[str, Any] = {
    "word_seconds": WORD,
    "look_interval": 0.2,
    "repair_pause": 1.0,
    "lease_seconds": 2.0,
    "limits": Limits(orphan=4.0),
}
WHOLE_LIMIT = 60.0
"""Seconds after which a group that is still not whole has been given up."""
PROMOTE: dict[str, Any] = {"promote_to_replica_source": {}}
CALM = 20
"""Acknowledged writes before a fault, and after everything is whole again."""


@dataclass
class Arena:
    """The group, everybody who manages it, and everybody who writes to it."""

    found: Stack
    chance: random.Random
    durability: Durability
    agents: dict[str, Part] = field(default_factory=dict)
    manager: Part | None = None
    managers: int = 0
    struck: list[float] = field(default_factory=list)
    left: set[Address] = field(default_factory=set)
    """Servers that were detached: they are primaries of their own, and nobody's rivals."""

    async def members(self) -> list[Instance]:
        return sorted(await self.found.rows(), key=lambda one: one.created)

    async def one_of(self, role: Role | None = None) -> Instance:
        fit = [one for one in await self.members() if role is None or one.role is role]
        return self.chance.choice(fit)

    def process(self, instance: Instance) -> psutil.Process | None:
        """Its server, if it runs at this moment."""
        mine = (one for one in self.found.redis_processes() if one.cwd().endswith(instance.id))
        return next(mine, None)

    async def start_manager(self) -> None:
        self.managers += 1
        self.manager = await self.found.start_manager(f"manager-{self.managers}", **QUICK)

    async def away(self) -> None:
        await asyncio.sleep(self.chance.uniform(*AWAY))

    async def ask(self, method: str, path: str, body: Any) -> bool:
        """Whether the API took the order: in the middle of a fault it may well refuse it."""
        try:
            await self.found.call(method, path, body)
        except httpx.HTTPStatusError as error:
            if error.response.status_code >= 500 and error.response.status_code != 503:
                raise
            return False
        return True


# --- faults ----------------------------------------------------------------------------------------------------------


async def _signal(arena: Arena, number: signal.Signals) -> None:
    process = arena.process(await arena.one_of(Role.PRIMARY if arena.chance.random() < 0.7 else None))
    if process is not None:
        process.send_signal(number)


async def kill_server(arena: Arena) -> None:
    await _signal(arena, signal.SIGKILL)


async def stop_server(arena: Arena) -> None:
    await _signal(arena, signal.SIGSTOP)


async def kill_agent(arena: Arena) -> None:
    name = arena.chance.choice(HOSTS)
    await arena.agents[name].kill()
    await (asyncio.sleep(LONG_AWAY) if arena.chance.random() < 0.4 else arena.away())
    arena.agents[name] = await arena.found.start_agent(name)


async def kill_manager(arena: Arena) -> None:
    if arena.manager is not None:
        gone, arena.manager = arena.manager, None
        await gone.kill()
        await arena.away()
        await arena.start_manager()


async def kill_control(arena: Arena) -> None:
    arena.found.control.kill()
    await arena.away()
    await asyncio.to_thread(arena.found.control.start)


async def promote(arena: Arena) -> None:
    replica = await arena.one_of(Role.REPLICA)
    await arena.ask("POST", f"/instances/{replica.id}/action", PROMOTE)


async def restart(arena: Arena) -> None:
    member = await arena.one_of()
    await arena.ask("POST", f"/instances/{member.id}/action", {"restart": {}})


async def replace_replica(arena: Arena) -> None:
    """Detach one, delete it, and have another one made."""
    leaving = await arena.one_of(Role.REPLICA)
    if not await arena.ask("PUT", f"/instances/{leaving.id}", {"instance": {"replica_of": None}}):
        return
    await arena.found.eventually(lambda: _dealt_with(arena, leaving), 60, what="the end of a detached replica")
    if any(one.id == leaving.id for one in await arena.members()):
        return
    source = await arena.one_of(Role.PRIMARY)
    body = {"instance": {"name": f"replica-{arena.chance.randrange(10**6)}", "replica_of": source.id}}
    await arena.found.eventually(lambda: arena.ask("POST", "/instances", body), 60, what="an order of a replica")


async def _dealt_with(arena: Arena, leaving: Instance) -> bool:
    """Detached and deleted; or it stays, since it has become primary before it could leave."""
    row = next((one for one in await arena.members() if one.id == leaving.id), None)
    if row is None:
        return True
    if row.group_id == leaving.group_id:
        return row.status is Status.ACTIVE
    if leaving.address is not None:
        arena.left.add(leaving.address)
    await arena.ask("DELETE", f"/instances/{leaving.id}", None)
    return False


Fault = Callable[[Arena], Awaitable[None]]
FAULTS: Sequence[Fault] = (
    *(kill_server, stop_server, kill_agent, kill_manager, kill_control),
    *(promote, restart, replace_replica),
)


def choose(chance: random.Random) -> list[Fault]:
    """What one round brings: mostly one fault, now and then two different ones at once."""
    return chance.sample(FAULTS, 2 if chance.random() < 0.35 else 1)


# --- rounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one round did, and how it ended. `wrong` is empty when all held."""

    faults: tuple[str, ...]
    seconds: float
    findings: Findings
    wrong: tuple[str, ...] = ()


@asynccontextmanager
async def arena(seed: int, durability: Durability = Durability.SYNC) -> AsyncIterator[Arena]:
    """A group of three on three hosts, one manager."""
    async with stack(manager_options=QUICK, agent_options={"word_seconds": WORD}) as found:
        made = Arena(found, random.Random(seed), durability)  # noqa: S311 (to be repeated, not to be secret)
        for name in HOSTS:
            made.agents[name] = await found.start_agent(name)
        await made.start_manager()
        source = await found.create(durability=durability.value)
        body = {"name": "replica", "replica_of": source["id"], "replica_count": 2}
        await found.call("POST", "/instances", {"instance": body})
        await invariants.whole(found)
        yield made


@asynccontextmanager
async def writers(made: Arena) -> AsyncIterator[Load]:
    """Clients that ask for as many confirmations as the group's promise needs."""
    confirmations = 1 if made.durability is Durability.SYNC else 0
    seeds = [one.address for one in await made.members() if one.address]
    async with load(seeds, made.found.passwords["db"], confirmations=confirmations) as writing:
        yield writing


async def play(made: Arena, writing: Load, faults: Sequence[Fault], limit: float = WHOLE_LIMIT) -> Outcome:
    """One round."""
    began = time.monotonic()
    before = await invariants.keys(made.found)
    wrong: list[str] = []
    probes = Probes(await _addresses(made), made.found.passwords["db"])
    try:
        async with probes.running(), writing.running():
            await writing.further(CALM)
            made.struck.append(time.monotonic())
            await asyncio.gather(*(fault(made) for fault in faults))
            await invariants.whole(made.found, limit)
            await writing.further(CALM)
    except* (AssertionError, TimeoutError) as errors:
        wrong += [str(one) or type(one).__name__ for one in _leaves(errors)]
    accepted = (one for one in probes.accepted if one.address not in made.left)
    wrong += [f"two primaries: {one} and {other}" for one, other in invariants.rivals(accepted)]
    wrong += [f"{name} has lost all keys" for name in invariants.emptied(before, await invariants.keys(made.found))]
    findings = Findings()
    if not wrong:
        findings, impossible = await writing.verdict()
        wrong += _breaches(made, findings, impossible)
        wrong += await _changed_by_asking_again(made)
    return Outcome(tuple(fault.__name__ for fault in faults), time.monotonic() - began, findings, tuple(wrong))


async def _changed_by_asking_again(made: Arena) -> list[str]:
    """The present primary is promoted once more."""
    primary = await made.one_of(Role.PRIMARY)
    return await invariants.changed_by_repeating(made.found, "POST", f"/instances/{primary.id}/action", PROMOTE)


async def _addresses(made: Arena) -> list[Address]:
    return [one.address for one in await made.members() if one.address]


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for one in group.exceptions:
        found += _leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found


def _breaches(made: Arena, findings: Findings, impossible: list[str]) -> list[str]:
    """What the group's promise does not allow."""
    if made.durability is Durability.SYNC:
        return ([] if findings.sound else [str(findings)]) + [f"{key} cannot hold what it holds" for key in impossible]
    late = [one for one in findings.lost if not promised_away(one, made.struck)]
    invented = len(findings.unexpected) + len(findings.doubled)
    return [f"{len(late)} lost beyond the bound, {invented} invented: {findings}"] if late or invented else []


def promised_away(lost: Entry, struck: Sequence[float], bound: float = LOSS_BOUND) -> bool:
    """Whether a write without confirmation may be lost: it was acknowledged shortly before a fault, or during one."""
    return any(moment - bound <= lost.ended <= moment + bound for moment in struck)


async def rounds(count: int, seed: int, durability: Durability, told: Callable[[str], None] = print) -> list[Outcome]:
    """So many rounds, up to the first that goes wrong."""
    outcomes: list[Outcome] = []
    async with arena(seed, durability) as made, writers(made) as writing:
        for number in range(1, count + 1):
            faults = choose(made.chance)
            told(f"round {number}/{count}: {' + '.join(fault.__name__ for fault in faults)}")
            outcomes.append(await play(made, writing, faults))
            last = outcomes[-1]
            told(f"  {last.seconds:.1f} s, {last.findings}")
            if last.wrong:
                told("\n".join(last.wrong))
                break
        told(f"seed {seed}: {len(writing.history.acknowledged())} writes acknowledged")
        told(summary(outcomes, durability))
    return outcomes


def summary(outcomes: Sequence[Outcome], durability: Durability) -> str:
    """What was lost in all rounds, beside what may be lost."""
    lost = sum(len(one.findings.lost) for one in outcomes)
    allowed = "nothing" if durability is Durability.SYNC else f"what was acknowledged {LOSS_BOUND:g} s around a fault"
    late = "as promised" if not outcomes[-1].wrong else "AND NOT AS PROMISED"
    return f"{durability}: {lost} acknowledged writes lost in {len(outcomes)} rounds, {late}: {allowed} may be lost"


def main() -> int:
    """The command; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="./run chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, help="play these faults again; by default others each time")
    parser.add_argument("--durability", choices=[*Durability], default=Durability.SYNC, type=Durability)
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ends like Ctrl-C: cleaned up
    outcomes = asyncio.run(rounds(asked.rounds, seed, asked.durability, told=_say))
    return 1 if outcomes[-1].wrong else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

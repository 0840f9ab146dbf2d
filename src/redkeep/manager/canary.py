"""The canary: for each site that a backend can fail over to, how far behind it is, measured without pause.

What is written at the active site is a message in the stream that replicas are fed by; it has arrived when the replica
at the other site has applied the stream as far as that. So the way is measured that every write takes, and no key of
anybody is touched. The age of the last message that has arrived is what a forced failover would lose (RPO).

Each manager measures by itself, and remembers what it saw: what is left when a site is gone was seen by who is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from redkeep.decide.sites import active_site
from redkeep.decide.topology import members
from redkeep.errors import RedkeepError
from redkeep.model.instance import Group, Instance
from redkeep.model.orders import WriteCanary
from redkeep.model.site import Backend
from redkeep.orders import CANARIES
from redkeep.ports import Agents, Body, Bus, Store

log = logging.getLogger(__name__)

ARRIVAL_LIMIT = 3.0
"""Seconds that a message gets to arrive; it may still do so later, and is asked for with the next one."""
POLL = 0.01
LOOK_LIMIT = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A group's primary at the active site, and its replica at the target."""

    group: Group
    primary: Instance
    replica: Instance


@dataclass(frozen=True, slots=True)
class Sight:
    """What one manager knows of one group at one target. Monotonic seconds."""

    primary: str
    measured_at: float
    lag: float | None
    """Seconds from writing to reading of the last message; None when that has not arrived."""
    safe_at: float | None
    """When the last message that has arrived was written: what is older is there. None: none has."""


@dataclass
class Canary:
    """`run` goes on until it is cancelled."""

    backend: Backend
    name: str
    """Of this manager."""
    store: Store
    agents: Agents
    bus: Bus
    interval: float = 5.0
    """Seconds between two rounds."""
    most: int = 8
    """Groups that are measured in one round of one target; the others take their turns."""
    _seen: dict[str, dict[str, Sight]] = field(default_factory=dict)
    """By target and group."""
    _turn: int = 0

    async def run(self) -> None:
        """Nothing, for a backend with one site."""
        if not self.backend.targets:
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.bus.serve(CANARIES, self._answer))
            tasks.create_task(self._measure_for_ever())

    async def _measure_for_ever(self) -> None:
        """The canary's supervisor."""
        while True:
            try:
                await self.round()
            except RedkeepError as error:
                log.info("the canary: %s", error)
            except Exception:
                log.exception("a round of the canary failed; the next one comes")
            await asyncio.sleep(self.interval)

    async def round(self) -> None:
        """Measure some groups of each target."""
        async with self.store.read() as tx:
            groups, instances = await tx.groups(), await tx.instances()
            here = active_site(self.backend, await tx.service_clusters())
        self._turn += 1
        for label, target in self.backend.names.items():
            pairs = list(pairs_of(groups, instances, here, label)) if label != here else []
            known = self._seen.get(target, {})
            self._seen[target] = {one.group.id: known[one.group.id] for one in pairs if one.group.id in known}
            first = (self._turn * self.most) % len(pairs) if len(pairs) > self.most else 0
            chosen = (pairs + pairs)[first : first + min(self.most, len(pairs))]
            for one, sight in zip(chosen, await asyncio.gather(*map(self._measure, chosen)), strict=True):
                before = known.get(one.group.id)
                safe_at = sight.safe_at if sight.safe_at is not None else (before.safe_at if before else None)
                self._seen[target][one.group.id] = replace(sight, safe_at=safe_at)

    async def _measure(self, pair: Pair) -> Sight:
        began = time.monotonic()
        lag: float | None = None
        with contextlib.suppress(RedkeepError):
            order = WriteCanary(pair.primary.id, pair.group.id, pair.group.epoch)
            written = await self.agents.tell(pair.primary.host_id or "", order, timeout=LOOK_LIMIT)
            while lag is None and time.monotonic() - began < ARRIVAL_LIMIT:
                (seen,) = await self.agents.look(pair.replica.host_id or "", [pair.replica.id], timeout=LOOK_LIMIT)
                if seen.replication_id == written.replication_id and seen.offset >= written.offset:
                    lag = time.monotonic() - began
                else:
                    await asyncio.sleep(POLL)
        safe_at = began if lag is not None else None
        return Sight(pair.primary.name, time.monotonic(), lag, safe_at)

    async def _answer(self, _body: Body) -> Body:
        """What this manager knows, for the API."""
        now = time.monotonic()
        return {"manager": self.name, "targets": {name: told(seen, now) for name, seen in self._seen.items() if seen}}


def pairs_of(groups: Iterable[Group], instances: Iterable[Instance], here: str, there: str) -> Iterable[Pair]:
    """Groups whose primary is at the one site and that have a member at the other."""
    by_group: dict[str, list[Instance]] = {}
    for one in members(instances):
        by_group.setdefault(one.group_id, []).append(one)
    for group in groups:
        ours = by_group.get(group.id, [])
        primary = next((one for one in ours if one.id == group.primary_id and one.site == here), None)
        replica = next((one for one in ours if one.site == there), None)
        if primary is not None and replica is not None:
            yield Pair(group, primary, replica)


def told(seen: dict[str, Sight], now: float) -> dict[str, object]:
    """One target in figures, the worst group's first. JSON types only."""
    lags = [one.lag for one in seen.values() if one.lag is not None]
    missing = sorted(one.primary for one in seen.values() if one.lag is None)
    losses = [now - one.safe_at for one in seen.values() if one.lag is None and one.safe_at is not None]
    unknown = any(one.lag is None and one.safe_at is None for one in seen.values())
    return {
        "groups": len(seen),
        "lag_seconds": max(lags) if lags else None,
        "rpo_seconds": None if unknown else max([*losses, *lags], default=None),
        "not_arrived": missing,
        "measured_seconds_ago": now - max(one.measured_at for one in seen.values()),
    }

"""Slots on their way from one member of a cluster to another, with their keys.

The order of the steps is what keeps keys: the target is marked first, so that it takes in what is sent to it; then the
source, which from there on sends clients after a key that it has not; then the keys, each on one side at any moment;
then the target owns the slot, under a higher epoch, and last the source hears it. Whoever dies in between leaves a slot
that is half-way: it is moved again from the top, which does only what is left.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from redkeep.errors import NotNow, OutcomeUnknown
from redkeep.model.cluster_orders import MoveSlots
from redkeep.model.facts import ClusterFacts
from redkeep.model.slots import Pace, slots_in
from redkeep.model.topology import Address
from redkeep.redis import cluster
from redkeep.redis.admin import Command, Pipe
from redkeep.redis.conf import REPLICA

Phase = Callable[[str], None]
"""Called with the name of what has just been done."""

MIGRATE_TIMEOUT_MS = 1000
"""A target that says nothing for so long while keys are handed over: the source waits that long, serving nobody."""
LISTED = 10_000
"""Keys of a slot that are looked at in one go. Up to so many, the largest is known before the first one moves."""


@dataclass(frozen=True, slots=True)
class Stride:
    """How much is done at once."""

    slots: int
    """Slots that are opened and closed together: Redis saves `nodes.conf` once for all of them."""
    keys: int
    """Keys handed over in one command, during which neither server serves anybody else."""
    large: int
    """Bytes above which a key is handed over by itself."""
    commands: int
    """Such commands that are sent without waiting for the answer to the one before."""


STRIDES = {
    Pace.GENTLE: Stride(slots=16, keys=64, large=16 * 1024, commands=2),
    Pace.FAST: Stride(slots=128, keys=256, large=256 * 1024, commands=32),
}


@dataclass(frozen=True, slots=True)
class Movement:
    """What came of an order."""

    keys: int = 0
    kept: tuple[tuple[int, str], ...] = ()
    """Slots that were left where they are, and why."""


@dataclass(slots=True)
class Mover:
    """Two connections, and what is known of both ends."""

    order: MoveSlots
    source: Pipe
    target: Pipe
    source_node_id: str
    password: str
    """By which the source hands keys to the target, as the one who replicates."""
    open_before: frozenset[int]
    unbound: frozenset[int] = frozenset()
    """Slots that nobody owns as the target sees it, as after the source that it took them from was replaced: it
    believes no news about a slot that it is taking, and takes in nothing for one without an owner."""
    keys: int = 0
    kept: list[tuple[int, str]] = field(default_factory=list)

    async def move(self, slots: Sequence[int], at: Phase) -> Movement:
        """As many as there is time for, and at least some. Raises OutcomeUnknown when one of both is lost; the slots
        that were open then are half-way."""
        deadline = time.monotonic() + self.order.budget
        stride = STRIDES[self.order.pace]
        # what is half-way already goes first: it is what clients stumble over
        waiting = sorted(slots, key=lambda slot: (slot not in self.open_before, slot))
        while waiting and ((not self.keys and not self.kept) or time.monotonic() < deadline):
            few, waiting = waiting[: stride.slots], waiting[stride.slots :]
            await self._move_few(few, stride, at)
            if time.monotonic() >= deadline:
                break
        return Movement(self.keys, tuple(self.kept))

    async def _move_few(self, slots: Sequence[int], stride: Stride, at: Phase) -> None:
        found = dict(zip(slots, await self._list(slots, stride), strict=True))
        movable = [slot for slot in slots if self._may_move(slot, found[slot])]
        if not movable:
            return
        marks = tuple((slot, self.source_node_id) for slot in movable)
        orphans = cluster.give_to((slot for slot in movable if slot in self.unbound), self.source_node_id)
        await self._insist(self.target, [*orphans, *cluster.importing(marks)], "already the owner")
        at("importing")
        marks = tuple((slot, self.order.target_node_id) for slot in movable)
        await self._insist(self.source, cluster.migrating(marks))
        at("migrating")
        pending = movable
        while pending:  # again, since keys were written between the listing and the mark
            await self._hand_over([found[slot] for slot in pending if found[slot].keys], stride, at)
            pending = await self._with_keys(pending)
            found = dict(zip(pending, await self._list(pending, stride), strict=True)) if pending else {}
        at("keys")
        await self._insist(self.target, cluster.give_to(movable, self.order.target_node_id))
        at("target owns")
        await self._insist(self.source, cluster.give_to(movable, self.order.target_node_id))
        at("source knows")

    def _may_move(self, slot: int, listed: Listed) -> bool:
        if listed.largest <= self.order.largest_key or slot in self.open_before:
            return True
        limit = self.order.largest_key
        self.kept.append((slot, f"slot {slot} has a key of {listed.largest} bytes; the limit is {limit}"))
        return False

    async def _list(self, slots: Sequence[int], stride: Stride) -> list[Listed]:
        said = await self.source.send(
            [("EVAL", cluster.LIST_KEYS, 0, slot, LISTED, min(stride.large, self.order.largest_key)) for slot in slots]
        )
        return [Listed(_checked(keys_and_large)) for keys_and_large in said]

    async def _with_keys(self, slots: Sequence[int]) -> list[int]:
        counts = await self.source.send([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots])
        return [slot for slot, count in zip(slots, counts, strict=True) if _checked(count)]

    async def _hand_over(self, listed: Iterable[Listed], stride: Stride, at: Phase) -> None:
        bunches = [bunch for one in listed for bunch in one.bunches(stride.keys)]
        for start in range(0, len(bunches), stride.commands):
            few = bunches[start : start + stride.commands]
            commands = [
                cluster.migrate(self.order.target, bunch, REPLICA, self.password, MIGRATE_TIMEOUT_MS) for bunch in few
            ]
            await self._insist(self.source, commands)
            self.keys += sum(len(bunch) for bunch in few)
            at("some keys")

    async def _insist(self, server: Pipe, commands: list[Command], *harmless: str) -> None:
        """All of it must be done. Raises NotNow with what was refused first; a lost target is OutcomeUnknown."""
        for command, answer in zip(commands, await server.send(commands), strict=True):
            if not isinstance(answer, ResponseError) or any(words in str(answer) for words in harmless):
                continue
            what = " ".join(str(word) for word in command[:3])
            if str(answer).startswith("IOERR"):
                raise OutcomeUnknown(f"{what}: the target is lost: {answer}")
            raise NotNow(f"{what}: {answer}")


class Listed:
    """The keys of one slot, the large ones apart."""

    def __init__(self, said: Any) -> None:
        keys, large = said
        self.keys: list[bytes] = keys
        self._large = {int(at): int(size) for at, size in large}

    @property
    def largest(self) -> int:
        """Bytes that the largest of the large ones takes; 0 when there is none."""
        return max(self._large.values(), default=0)

    def bunches(self, size: int) -> list[list[bytes]]:
        """Keys that are handed over together; the large ones each by itself."""
        small = [key for at, key in enumerate(self.keys) if at not in self._large]
        together = [small[start : start + size] for start in range(0, len(small), size)]
        return together + [[self.keys[at]] for at in self._large]


def _checked(answer: Any) -> Any:
    if isinstance(answer, ResponseError):
        raise NotNow(str(answer))
    return answer


@asynccontextmanager
async def mover(
    source: Address, order: MoveSlots, admin_password: str, replication_password: str, facts: ClusterFacts
) -> AsyncIterator[Mover]:
    """Connected to both ends."""
    async with Pipe(source, admin_password) as here, Pipe(order.target, admin_password) as there:
        info, nodes = await there.send(cluster.LOOK)
        seen = cluster.facts(_checked(info).decode(), _checked(nodes).decode(), order.target)
        owned = {slot for one in seen.view.members for slot in slots_in(one.ranges)}
        half_way = frozenset(slot for slot, _ in facts.migrating)
        unbound = frozenset(order.slots) - owned
        yield Mover(order, here, there, facts.node_id, replication_password, half_way, unbound)

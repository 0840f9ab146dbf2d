"""One server as a member of a Redis Cluster: what it says of it, and the orders that concern it.

Who is primary and who owns which slot is agreed between the members. What is done here is what an operator could do to
one node by hand, made safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.agent.guest import GuestAgentStrategy
from redkeep.agent.moving import Movement, Phase, mover
from redkeep.errors import NotNow, Refused
from redkeep.model.cluster_orders import (
    CloseSlots,
    ClusterAddSlots,
    ClusterComplete,
    ClusterForget,
    ClusterMeet,
    ClusterOrder,
    ClusterPrepare,
    ClusterReplicate,
    ClusterTakeOver,
    ClusterYield,
    MoveSlots,
)
from redkeep.model.facts import ClusterFacts, ServerFacts
from redkeep.model.slots import as_ranges, slots_in
from redkeep.model.topology import Role
from redkeep.redis import admin as words
from redkeep.redis import cluster

if TYPE_CHECKING:
    from redkeep.agent.server import Server

log = logging.getLogger(__name__)

UNSEEN = (ClusterPrepare, ClusterMeet, ClusterAddSlots, ClusterComplete, ClusterForget, CloseSlots)
"""After these nobody needs a look: what comes of them is seen later, of all members together."""
TURN = 0.0005
"""Seconds between two looks while clients wait."""
COMEBACK_TIMEOUTS = 3
"""Node time-outs after which a member that ended is started again, if nobody has ordered it: the others have elected a
successor by then, if they can."""
DATA = ("appendonly.aof", "appendonlydir", "dump.rdb")
"""Where Redis keeps its data, in whatever version."""


class ClusterMember:
    """Of one server: made with it, idle unless its specification says that it is a member."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.ended_at = time.monotonic()
        """When its process ended, at the latest when we came."""
        self.at_phase: Phase = lambda _: None
        """Called between the steps by which a slot moves. Tests end somebody there."""

    @property
    def facts(self) -> ClusterFacts | None:
        """As of the last look."""
        return self._server.facts.cluster

    @property
    def shard_size(self) -> int:
        """How many servers have its data, itself included, as it last saw it."""
        if self.facts is None:
            return 1
        own = self.facts.primary_id or self.facts.node_id
        return 1 + sum(one.primary_id == own for one in self.facts.view.members)

    @property
    def next_start(self) -> float:
        """Monotonic time before which nobody but a manager starts it again."""
        return self.ended_at + COMEBACK_TIMEOUTS * self._server.settings.tuning.cluster_node_timeout_ms / 1000

    async def look(self) -> ClusterFacts:
        """What it says now."""
        info, nodes = await self._server.connection.run(*cluster.LOOK)
        try:
            found = cluster.facts(str(info), str(nodes), self._server.record.spec.address)
        except ValueError as error:
            raise NotNow(str(error)) from error
        self._server.facts = replace(self._server.facts, cluster=found)
        return found

    def drop_claims_without_data(self) -> None:
        """Before a start: one that had data and has none any more must not come back as the owner of its slots.

        Its replicas would take over its emptiness. Without `nodes.conf` it comes back as nobody, to be introduced anew.
        """
        directory, names = self._server.directory, self._server.directory / "nodes.conf"
        if self._server.record.had_keys and names.exists() and not _has_data(directory):
            log.warning("%s has lost its data: it comes back as nobody", self._server.id)
            names.replace(directory / "nodes.conf.without-data")

    async def execute(self, order: ClusterOrder) -> ServerFacts | None:
        """See the order. Returns what was seen in the trip that executed it, if that was the last of it."""
        self._server.require_process()
        if not self._server.record.spec.cluster:
            raise Refused(f"{self._server.id} is not a member of a cluster", kind="conflict")
        acts: dict[type, Callable[[Any], Awaitable[ServerFacts | None]]] = {
            ClusterPrepare: self._prepare,
            ClusterMeet: self._meet,
            ClusterAddSlots: self._add_slots,
            ClusterReplicate: self._replicate,
            ClusterComplete: self._complete,
            ClusterTakeOver: self._take_over,
            ClusterYield: self._yield,
            ClusterForget: self._forget,
            CloseSlots: self._close_slots,
            MoveSlots: self._move_slots,
        }
        seen = await acts[type(order)](order)
        return replace(self._server.facts, cluster=None) if isinstance(order, UNSEEN) else seen

    # --- how ------------------------------------------------------------------------------------------------------

    @property
    def _strategy(self) -> GuestAgentStrategy:
        server = self._server
        timeout = server.settings.tuning.cluster_node_timeout_ms
        return server.settings.guestagent_strategy(server.connection, server.record.spec.address, timeout)

    async def _prepare(self, order: ClusterPrepare) -> None:
        """SET-CONFIG-EPOCH is refused once it knows anybody, or has an epoch: then it was prepared before."""
        run = self._server.connection.run
        facts = await self.look()
        if order.node_timeout_ms:
            await run(cluster.set_node_timeout(order.node_timeout_ms))
        if len(facts.view.members) + len(facts.nameless) + facts.shaking > 1:
            return
        if facts.my_epoch == 0 and order.config_epoch:
            await run(("CLUSTER", "SET-CONFIG-EPOCH", order.config_epoch))
        await self._own(order.ranges, facts)

    async def _own(self, ranges: tuple[tuple[int, int], ...], facts: ClusterFacts) -> None:
        lacking = set(slots_in(ranges)) - set(slots_in(facts.ranges))
        for first, last in as_ranges(lacking):
            await self._strategy.cluster_addslots(first, last)

    async def _add_slots(self, order: ClusterAddSlots) -> None:
        await self._own(order.ranges, await self.look())

    async def _meet(self, order: ClusterMeet) -> None:
        facts = await self.look()
        known = {one.address for one in facts.view.members if not one.failed}
        for peer in order.peers:
            if peer not in known:
                await self._strategy.cluster_meet(peer.host, peer.port)

    async def _replicate(self, order: ClusterReplicate) -> None:
        primary_node_id = order.primary_node_id
        facts = await self.look()
        if facts.primary_id == primary_node_id:
            return
        if all(one.id != primary_node_id for one in facts.view.members):
            raise NotNow(f"{self._server.id} does not know {primary_node_id[:8]} yet")
        self._server.remember(replace(self._server.record, synced_once=False))
        await self._server.connection.run(("CLUSTER", "REPLICATE", primary_node_id))

    async def _take_over(self, order: ClusterTakeOver) -> None:
        """In one transaction: no command of a client comes between the slots and their marks."""
        facts = await self.look()
        if facts.primary_id is not None:
            if order.at_least >= 0:
                await self._server.replication.until_applied(order.replication_id, order.at_least, order.patience)
            if facts.primary_id != order.former_node_id:
                raise Refused(f"{self._server.id} replicates {facts.primary_id[:8]} by now", kind="conflict")
        own = {*slots_in(facts.ranges), *_slots_of(facts, order.former_node_id)}
        told = (
            *((cluster.TAKE_OVER,) if facts.primary_id is not None else ()),
            *cluster.give_to(sorted(set(slots_in(order.ranges)) - own), facts.node_id),
            *cluster.migrating(order.migrating),
            *cluster.importing(order.importing),
        )
        if not told:
            return
        said = (await self._server.connection.run(("MULTI",), *told, ("EXEC",)))[-1]
        refused = [answer for answer in said if isinstance(answer, Exception)]
        if facts.primary_id is not None and isinstance(said[0], Exception):
            raise Refused(f"{self._server.id} did not take over: {said[0]}", kind="conflict")
        for error in refused:  # what was half-way is looked for again and again: it does not keep a shard down
            log.warning("%s: %s", self._server.id, error)
        self._server.remember(replace(self._server.record, synced_once=False))

    async def _complete(self, _: ClusterComplete) -> None:
        await self._strategy.cluster_complete()

    async def _forget(self, order: ClusterForget) -> None:
        await self._strategy.remove_nodes(order.node_ids)

    async def _yield(self, order: ClusterYield) -> None:
        """Held until it is a replica: the pause ends only then, and those who waited are told to go elsewhere."""
        deadline = time.monotonic() + order.patience
        while (await self._server.look(briefly=True)).role is not Role.REPLICA:
            if time.monotonic() > deadline:
                raise NotNow(f"{self._server.id} is still primary after {order.patience:g} s")
            await asyncio.sleep(TURN)
        self._server.remember(replace(self._server.record, held=False, synced_once=False))
        await self._server.connection.run(*words.open_writes(0))

    async def _close_slots(self, order: CloseSlots) -> None:
        """Marks of a replica mean nothing, and it takes no such command."""
        facts = await self.look()
        if facts.primary_id is not None:
            return
        open_here = {slot for slot, _ in (*facts.migrating, *facts.importing)}
        await self._server.connection.run(
            *cluster.stable(slot for slot in order.slots if slot in open_here),
            *(("CLUSTER", "SETSLOT", slot, "NODE", node_id) for slot, node_id in order.owners),
            ("PING",),
        )

    async def _move_slots(self, order: MoveSlots) -> ServerFacts:
        facts = await self.look()
        owned = [slot for slot in order.slots if slot in set(slots_in(facts.ranges))]
        moved = await self._mover(order, facts, owned) if owned else Movement()
        seen = await self._server.look()
        if seen.cluster is None:
            return seen
        return replace(seen, cluster=replace(seen.cluster, moved_keys=moved.keys, kept=moved.kept))

    async def _mover(self, order: MoveSlots, facts: ClusterFacts, slots: list[int]) -> Movement:
        secrets, address = self._server.record.spec.secrets, self._server.record.spec.address
        admin, replication = self._server.unseal(secrets.admin), self._server.unseal(secrets.replication)
        async with mover(address, order, admin, replication, facts) as moving:
            return await moving.move(slots, self.at_phase)


def _slots_of(facts: ClusterFacts, node_id: str) -> list[int]:
    return slots_in(pair for one in facts.view.members if one.id == node_id for pair in one.ranges)


def _has_data(directory: Path) -> bool:
    return any((path := directory / name).exists() and (path.is_dir() or path.stat().st_size) for name in DATA)

"""A client of a Redis Cluster: its own map of the slots, over one connection to each node.

Errors repair the map at once: MOVED by the slot that it names. Reading the whole is rate-limited, by one task for all,
from one node at a time, and the old map stays until a newer one is there. Who announces changes (`hear`) makes reading
unnecessary: then it is only the fallback for an announcement that does not come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable

from redkeep.decide.routing import pause
from redkeep.decide.sharding import believe
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.slots import SLOTS, ClusterView, key_of, parse_nodes, parse_redirect, slot_of
from redkeep.model.topology import Address, Topology
from redkeep.northbound.client import QUIET, Client, Command, OnTopology
from redkeep.northbound.nodes import LOOK_TIMEOUT, Node, ask_role
from redkeep.northbound.wire import Connection, Login, ServerError

log = logging.getLogger(__name__)

LOOKS_FOR_A_NEWER = 8
"""Looks in a row, by then over about a second, for the view that explains a MOVED."""
SILENT = 0.5
"""Seconds without a reply after which the others are asked whether that server has failed."""
WATCH_SHARE = 0.02
"""Of the time for which a primary has been missing, what passes between two questions to its replicas: who waits for an
election waits at most two in a hundred longer, and many clients ask ever less often."""
WATCH_PAUSES = (0.01, 0.25)
"""Seconds, at the least and at the most."""
WATCHED = 60.0
"""Seconds after which a primary that nobody replaced is left to the looks."""
ANNOUNCED = 0.4
"""Seconds for which a client that somebody announces changes to waits for that, before it reads by itself."""


class ClusterClient(Client):
    """All primaries of a cluster, by slot."""

    def __init__(self, seeds: Iterable[Address], login: Login, on_topology: OnTopology | None = None) -> None:
        super().__init__(login, on_topology)
        self.view = ClusterView()
        """As it is believed to be."""
        self.reads = 0
        """How often this client has read the topology from a server."""
        self.announced_until = 0.0
        """Loop time until which changes are trusted to be announced; who listens to announcements extends it."""
        self._seeds = tuple(seeds)
        self._known = set(self._seeds)
        self._owners: list[Node | None] = [None] * SLOTS
        self._doubts = 0
        self._looks = 0
        self._patched_at = -1
        """The epoch of the view of which a MOVED said that it is old: until a newer one is there, look on."""
        self._refusal: ServerError | None = None
        self._look_wanted = asyncio.Event()
        self._look_wanted.set()
        self._watched: set[Address] = set()
        self._begin(self._look_whenever_wanted())
        self._begin(self._doubt_the_silent())

    @property
    def mode(self) -> str:
        return "cluster"

    @property
    def topology(self) -> Topology:
        return Topology("", self.view.epoch, None, self.view.healthy)

    @property
    def primaries(self) -> tuple[Address, ...]:
        return tuple(member.address for member in self.view.primaries if not member.failed)

    def owner(self, slot: int) -> Address | None:
        node = self._owners[slot]
        return node.address if node else None

    def stand_ins(self, slot: int) -> list[Address]:
        node = self._owners[slot]
        found = [replica.address for replica in self._replicas_of(node)] if node else []
        random.shuffle(found)
        return found

    async def ready(self, timeout: float) -> None:
        """All primaries; after half of the time, when one of them is down, any."""
        deadline = self._loop.time() + timeout
        while not self._complete():
            if self._refusal is not None:
                raise self._refusal
            left = deadline - self._loop.time()
            if left < timeout / 2 and self.view.covered == SLOTS and any(node.alive for node in self._nodes.values()):
                return
            if left <= 0:
                raise Unavailable(
                    f"no whole cluster at {', '.join(map(str, sorted(self._known)))}: "
                    f"{self.view.covered} of {SLOTS} slots have an owner"
                )
            self._want_look()
            await self._moved.wait(min(left, 0.05))
        self._look_wanted.clear()

    def hear(self, view: ClusterView) -> None:
        """Fold in an announcement."""
        self._believe(view)

    # --- for the way of a command ----------------------------------------------------------------------------------

    def _slot(self, args: Command) -> int:
        key = key_of(args)
        return random.randrange(SLOTS) if key is None else slot_of(key)  # noqa: S311 (any node will do)

    def _node(self, slot: int) -> Node | None:
        return self._owners[slot]

    def _met(self, node: Node | None, error: ServerError, *, moved: bool, slot: int) -> Node | None:
        redirect = parse_redirect(error.code, error.message, node.address) if node else None
        if redirect is None:
            return None
        target = self._hold(redirect.address)
        if not redirect.for_good:
            return target if target.alive else None  # not yet connected: ask the owner again after a pause
        if not moved:
            self._owners[slot] = target
            self._patched_at = self.view.epoch
            self.doubt(f"MOVED {slot} to {redirect.address}")
        return None

    def _want_look(self) -> None:
        self._look_wanted.set()

    def _complete(self) -> bool:
        """Every slot has an owner, and all of them are connected."""
        return self.view.covered == SLOTS and all(
            (node := self._nodes.get(address)) is not None and node.alive for address in self.primaries
        )

    # --- reading the map -------------------------------------------------------------------------------------------

    async def _look_whenever_wanted(self) -> None:
        last = 0.0
        while True:
            await self._look_wanted.wait()
            if self._loop.time() - last > QUIET:
                self._looks = 0
            if self._looks:
                await asyncio.sleep(pause(self._looks + 3, random.random()))  # noqa: S311
            await self._leave_it_to_the_announcer()
            if not self._look_wanted.is_set():
                continue
            self._look_wanted.clear()
            self._looks += 1
            await self._look()
            last = self._loop.time()
            if self._patched_at == self.view.epoch and self._looks < LOOKS_FOR_A_NEWER:
                self._look_wanted.set()

    async def _doubt_the_silent(self) -> None:
        """A hung server loses no connection: only the others can say that it has been replaced."""
        while True:
            await asyncio.sleep(SILENT / 2)
            for node in self._nodes.values():
                if node.data is not None and node.alive and node.data.silence > SILENT:
                    self.doubt(f"{node.address} is silent")
                    self._watch(node)

    def _watch(self, node: Node) -> None:
        """Have its replicas asked whether one of them has taken over, if it is a primary."""
        if self._owns(node) and node.address not in self._watched and not self._closed:
            self._watched.add(node.address)
            self._begin(self._ask_successors(node))

    async def _ask_successors(self, node: Node) -> None:
        """They know first, and being asked costs them next to nothing: one word, no list of all nodes."""
        begun = self._loop.time()
        try:
            while (missing := self._loop.time() - begun) < WATCHED and self._is_missed(node):
                least, most = WATCH_PAUSES
                await asyncio.sleep(min(most, max(least, missing * WATCH_SHARE)) * random.uniform(0.75, 1.25))  # noqa: S311
                if self._loop.time() < self.announced_until:  # somebody asks for all of us
                    continue
                replicas = self._replicas_of(node)
                answers = await asyncio.gather(*map(_has_taken_over, replicas))
                for replica, taken_over in zip(replicas, answers, strict=True):
                    if taken_over and replica.data is not None:
                        await self._read(replica.data)
        finally:
            self._watched.discard(node.address)

    def _is_missed(self, node: Node) -> bool:
        """Still believed to be a primary, and not answering."""
        answers = node.data is not None and node.alive and node.data.silence <= SILENT
        return not answers and self._nodes.get(node.address) is node and self._owns(node)

    def _owns(self, node: Node) -> bool:
        """It is believed to be a primary, if one that has failed."""
        return any(member.address == node.address for member in self.view.primaries)

    def _replicas_of(self, node: Node) -> list[Node]:
        ids = {member.id for member in self.view.members if member.address == node.address}
        found = [self._nodes.get(member.address) for member in self.view.members if member.primary_id in ids]
        return [one for one in found if one is not None and one.alive]

    async def _leave_it_to_the_announcer(self) -> None:
        """Wait for an announcement, when they are to be expected; with jitter, since many see the same failure."""
        if self._loop.time() >= self.announced_until:
            return
        before = self.view
        patience = self._loop.time() + ANNOUNCED * (1 + random.random())  # noqa: S311
        while (left := patience - self._loop.time()) > 0:
            await self._moved.wait(left)
            if self.view is not before:
                self._look_wanted.clear()
                return

    async def _look(self) -> None:
        """Ask one node; when none answers, all that were ever known, one after the other."""
        alive = [node for node in self._nodes.values() if node.alive]
        random.shuffle(alive)
        for node in alive[:3]:
            if node.data is not None and await self._read(node.data):
                return
        others = sorted(self._known - {node.address for node in alive})
        random.shuffle(others)
        for address in others:
            try:
                connection = await Connection.open(address, self.login, timeout=LOOK_TIMEOUT)
            except ServerError as error:
                self._refusal = error if not self.view.members else None
            except (Unavailable, OutcomeUnknown) as error:
                log.debug("%s does not describe its cluster: %s", address, error)
            else:
                try:
                    if await self._read(connection):
                        return
                finally:
                    connection.abort()

    async def _read(self, connection: Connection) -> bool:
        """Whether that server described its cluster."""
        self.reads += 1
        try:
            text = await connection.send("CLUSTER", "NODES", timeout=LOOK_TIMEOUT)
            view = parse_nodes(text.decode(), connection.address)
        except ServerError as error:
            self._refusal = error if not self.view.members else None
            return False
        except (Unavailable, OutcomeUnknown, ValueError) as error:
            log.debug("%s does not describe its cluster: %s", connection.address, error)
            return False
        self._refusal = None
        if not view.covered:  # a node that was reset, or has not met the others yet
            return False
        self._believe(view)
        return True

    def _believe(self, view: ClusterView) -> None:
        old = self.view
        self.view = believe(old, view, doubts=self._doubts)
        self._doubts = self._doubts + 1 if self.view is old else 0
        if self.view is old:
            return
        self._reconcile(self.view)
        if self.view.shape != old.shape:
            self._moved.ring()
            if self.on_topology is not None:
                self._loop.call_soon(self.on_topology, self.topology)

    # --- connections -----------------------------------------------------------------------------------------------

    def _reconcile(self, view: ClusterView) -> None:
        """Connections to all members, replicas included: being promoted then costs no handshake."""
        addresses = {member.address for member in view.members}
        self._known |= addresses
        for member in view.primaries:
            node = self._hold(member.address)
            for first, last in member.ranges:
                self._owners[first : last + 1] = [node] * (last + 1 - first)
        for member in view.members:
            self._hold(member.address)
        for address in self._nodes.keys() - addresses:
            del self._nodes[address]
            self._keepers.pop(address).cancel()
        for member in view.members:
            node = self._nodes[member.address]
            if member.failed and node.data is not None:
                node.data.abort("the cluster calls it failed")

    def _hold(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = Node(address, self.login, on_change=self._changed)
            self._nodes[address] = node
            self._known.add(address)
            self._keepers[address] = self._begin(node.run())
        return node

    def _changed(self, node: Node) -> None:
        """A connection was opened or lost."""
        if not node.alive and node.address in self.primaries:
            self.doubt(f"lost {node.address}")
            self._watch(node)
        self._moved.ring()

    async def close(self) -> None:
        self._owners = [None] * SLOTS
        with contextlib.suppress(asyncio.CancelledError):
            await super().close()


async def _has_taken_over(node: Node) -> bool:
    try:
        assert node.data is not None  # noqa: S101 (it is connected)
        return (await ask_role(node.data)).primary is None
    except (Unavailable, OutcomeUnknown, ServerError, ValueError) as error:
        log.debug("%s does not say who it is: %s", node.address, error)
        return False

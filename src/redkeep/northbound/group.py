"""A client that follows one replication group: it writes to whoever is primary, and hears when that changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable

from redkeep.decide.following import Following, Look, hear, see
from redkeep.decide.routing import REFUSES_WRITES, pause
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address, Topology
from redkeep.northbound.client import QUIET, Client, OnTopology
from redkeep.northbound.nodes import Node, look_at
from redkeep.northbound.wire import Argument, Login, ServerError

log = logging.getLogger(__name__)

LOOKS_BEFORE_LAST_RESORT = 10
"""Looks in vain, by then over about a second, before a replaced primary is better than none."""
UNTOLD_LOOK = 2.0
"""Seconds between looks while no news has ever come, as when nobody manages the group."""

_NO_LETTING_IN = frozenset({"WRONGPASS", "NOAUTH"})


class GroupClient(Client):
    """One server, or a primary with its replicas."""

    def __init__(self, seeds: Iterable[Address], login: Login, on_topology: OnTopology | None = None) -> None:
        super().__init__(login, on_topology)
        self._state = Following.begin(list(seeds))
        self._primary: Node | None = None
        self._refusing: set[Address] = set()
        """Those that refused a write since the primary last changed."""
        self._refusal: ServerError | None = None
        self._looks = 0
        """Looks in a row: paces the next one."""
        self._look_wanted = asyncio.Event()
        self._look_wanted.set()
        self._begin(self._look_whenever_wanted())

    @property
    def mode(self) -> str:
        return "replicated" if self.topology.replicas else "single"

    @property
    def topology(self) -> Topology:
        """The group as it is believed to be. Epoch 0 and no group id until the first news."""
        return self._state.topology

    @property
    def confirmations(self) -> int:
        """What the news says.

        When we were told to confirm: with the primary, more than half of those we know, and one at the least while no
        news has told how many there are.
        """
        if not self.confirm:
            return self.topology.confirmations
        known = len(self.topology.nodes) // 2
        return max(self.topology.confirmations, known if self.topology.group_id else max(1, known))

    @property
    def primaries(self) -> tuple[Address, ...]:
        return (self.topology.primary,) if self.topology.primary else ()

    def owner(self, slot: int) -> Address | None:  # noqa: ARG002 (a group has one owner for all)
        return self.topology.primary

    def random_nodes(self) -> list[Node]:
        """The primary alone: what is published on a replica stays there."""
        return [self._primary] if self._primary is not None and self._primary.alive else []

    async def ready(self, timeout: float) -> None:
        deadline = self._loop.time() + timeout
        while not (self._primary and self._primary.alive):
            if self._refusal is not None:
                raise self._refusal
            if self._loop.time() >= deadline:
                raise Unavailable(f"no primary among {', '.join(map(str, sorted(self._state.known)))}")
            await self._moved.wait(deadline - self._loop.time())

    # --- for the way of a command ------------------------------------------------------------------------------------

    def _slot(self, args: tuple[Argument, ...]) -> int:  # noqa: ARG002 (no slots here)
        return 0

    def _node(self, slot: int) -> Node | None:  # noqa: ARG002 (no slots here)
        return self._primary

    def _met(self, node: Node | None, error: ServerError, *, moved: bool, slot: int) -> Node | None:  # noqa: ARG002
        if node is not None and error.code in REFUSES_WRITES and not moved:
            self._refusing.add(node.address)
        return None

    def _want_look(self) -> None:
        self._look_wanted.set()

    # --- who is primary ----------------------------------------------------------------------------------------------

    async def _look_whenever_wanted(self) -> None:
        """Looks follow each other with growing pauses, starting over when something changed or all was quiet."""
        in_vain, last = 0, 0.0
        while True:
            await self._until_look_is_wanted()
            if self._loop.time() - last > QUIET:
                self._looks = 0
            if self._looks:
                await self._moved.wait(pause(self._looks, random.random()))  # noqa: S311
            self._look_wanted.clear()
            self._looks += 1
            before = self._state.topology
            looks = await self._look()
            last = self._loop.time()
            if self._state.topology is not before:  # news came meanwhile: what was seen may be older
                self._want_look()
                continue
            resort = in_vain >= LOOKS_BEFORE_LAST_RESORT
            self._believe(see(self._state, looks, refusing=self._refusing, last_resort=resort))
            if any(look.address == self.topology.primary and look.primary is None for look in looks):
                in_vain = 0
            else:
                in_vain += 1
                self._want_look()

    async def _until_look_is_wanted(self) -> None:
        """Once news has come, news tells of every change; until then nobody says that a replica has joined."""
        patience = None if self.topology.group_id else UNTOLD_LOOK
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._look_wanted.wait()

    async def _look(self) -> list[Look]:
        answers = await asyncio.gather(*map(self._ask, self._state.candidates))
        looks = [answer for answer in answers if isinstance(answer, Look)]
        refusals = [answer for answer in answers if isinstance(answer, ServerError) and answer.code in _NO_LETTING_IN]
        self._refusal = refusals[0] if refusals and not looks else None
        if self._refusal is not None:
            self._moved.ring()
        return looks

    async def _ask(self, address: Address) -> Look | ServerError | None:
        node = self._nodes.get(address)
        try:
            return await (node.look() if node else look_at(address, self.login))
        except ServerError as error:
            return error
        except (Unavailable, OutcomeUnknown, ValueError) as error:
            log.debug("%s does not say who it is: %s", address, error)
            return None

    def _hear(self, news: Topology) -> None:
        self._believe(hear(self._state, news, primary_alive=self._primary is not None and self._primary.alive))

    def _believe(self, state: Following) -> None:
        old, self._state = self._state, state
        if state.topology == old.topology:
            return
        self._looks = 0
        if state.topology.primary != old.topology.primary:
            self._refusing.clear()
        self._reconcile(state.topology)
        self._moved.ring()
        if self.on_topology is not None:
            self._loop.call_soon(self.on_topology, state.topology)

    # --- connections -----------------------------------------------------------------------------------------------

    def _reconcile(self, topology: Topology) -> None:
        """Connections to all who are in the group, the primary first, and to nobody else."""
        for address in topology.nodes:
            if address not in self._nodes:
                node = Node(address, self.login, on_news=self._hear, on_change=self._changed)
                self._nodes[address] = node
                self._keepers[address] = self._begin(node.run())
        for address in self._nodes.keys() - set(topology.nodes):
            del self._nodes[address]
            self._keepers.pop(address).cancel()
        self._primary = self._nodes[topology.primary] if topology.primary else None
        if self._primary is not None and not self._primary.alive:
            self._primary.nudge()

    def _changed(self, node: Node) -> None:
        """A connection of that server was opened or lost. News may have been missed meanwhile, so look."""
        self._want_look()
        if node is self._primary:
            self._looks = 0
            self._moved.ring()

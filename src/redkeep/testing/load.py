"""Clients of one group that append and set without pause, each write confirmed by replicas, and all of it on record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from redkeep.decide.routing import NOT_RUN
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound import Client, connect
from redkeep.northbound.wire import Reply, ServerError
from redkeep.testing.history import Did, Entry, Findings, History, Verb, examine, linearizable

CONFIRM_MS = 1000
PATIENCE = 3.0
PAUSE = 0.005
"""Between two writes of one client: the servers share their cores with all that manages them."""


@dataclass
class Load:
    """Use `load`. A write counts as acknowledged when `confirmations` replicas have it as well."""

    clients: Sequence[Client]
    confirmations: int
    history: History = field(default_factory=History)
    keys: Sequence[str] = ("a", "b")

    async def write_for_ever(self, number: int) -> None:
        turns = itertools.cycle(itertools.product(self.keys, (Verb.APPEND, Verb.SET)))
        for key, verb in turns:
            entry = self.history.begin(f"client-{number}", f"{verb}:{key}", verb)
            did = Did.INFO
            try:
                did = await self._write(self.clients[number], entry)
            finally:
                self.history.end(entry, did)
            await asyncio.sleep(PAUSE)

    async def _write(self, client: Client, entry: Entry) -> Did:
        """Both commands on one connection: WAIT speaks of what its own connection wrote."""
        write = ("RPUSH" if entry.verb is Verb.APPEND else "SET", entry.key, entry.value or 0)
        primary = client.topology.primary
        node = client.node_at(primary) if primary else None
        if node is None or node.data is None:
            client.doubt("no primary")
            await asyncio.sleep(PAUSE)
            return Did.FAIL
        try:
            said = await node.data.send_many((write, ("WAIT", self.confirmations, CONFIRM_MS)), timeout=PATIENCE)
        except Unavailable:
            said = []
        except OutcomeUnknown:
            client.doubt("no reply")
            return Did.INFO
        return self._outcome(client, said)

    def _outcome(self, client: Client, said: list[Reply]) -> Did:
        if not said or (isinstance(said[0], ServerError) and said[0].code in NOT_RUN):
            client.doubt("not run")
            return Did.FAIL
        if isinstance(said[0], Unavailable):
            return Did.FAIL
        confirmed = isinstance(said[1], int) and said[1] >= self.confirmations
        return Did.OK if confirmed and not isinstance(said[0], Exception) else Did.INFO

    async def further(self, count: int, limit: float = 60.0) -> None:
        """Wait for so many more acknowledged writes. Raises TimeoutError."""
        target = self._acknowledged + count
        async with asyncio.timeout(limit):
            while self._acknowledged < target:
                await asyncio.sleep(0.01)

    @property
    def _acknowledged(self) -> int:
        return len(self.history.acknowledged())

    async def verdict(self) -> tuple[Findings, list[str]]:
        """What was appended, compared with what is there; and the keys that hold what they cannot hold.

        Call it while nobody writes and the group is whole: what is read here is on every replica before it is read.
        """
        client = self.clients[0]
        await self._settle(client)
        logs = {}
        for key in self.keys:
            log = f"{Verb.APPEND}:{key}"
            logs[log] = [int(one) for one in await client.execute("LRANGE", log, 0, -1, retry="always")]
            entry = self.history.begin("reader", f"{Verb.SET}:{key}", Verb.READ)
            value = await client.execute("GET", entry.key, retry="always")
            self.history.end(entry, Did.OK, None if value is None else int(value))
        impossible = [key for name in self.keys if not linearizable(self.history.of(key := f"{Verb.SET}:{name}"))]
        return examine(self.history.entries, logs), impossible

    async def _settle(self, client: Client) -> None:
        """Every replica has all that was written. Raises TimeoutError."""
        async with asyncio.timeout(20):
            while True:
                primary, replicas = client.topology.primary, len(client.topology.replicas)
                node = client.node_at(primary) if primary else None
                if node is not None and node.data is not None:
                    with contextlib.suppress(Unavailable, OutcomeUnknown):
                        said = await node.data.send_many((("SET", "settled", 1), ("WAIT", replicas, 500)), timeout=2)
                        if said[1] == replicas:
                            return
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write for the length of the block."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.write_for_ever(number)) for number in range(len(self.clients))]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


@contextlib.asynccontextmanager
async def load(
    seeds: Sequence[Address], password: str, *, clients: int = 3, confirmations: int = 0
) -> AsyncIterator[Load]:
    """So many clients of the group, connected; `running` makes them write."""
    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(await connect(seeds, password=password, timeout=20)) for _ in range(clients)
        ]
        yield Load(made, confirmations)

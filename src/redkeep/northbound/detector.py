"""The one who looks: reads the topology periodically, and announces every change to all controllers.

Several may run; one leads, by a lease in Redis. What it announces carries the configuration epochs of the cluster, so
an old leader that speaks once more harms nobody. A *generation* counts the times when data may have been lost: another
server is primary of a shard, or the same one has started again. Each is announced once everybody answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.slots import SLOTS, ClusterView, Member, parse_nodes, slot_of
from redkeep.model.topology import Address, Topology
from redkeep.northbound.client import Client, OnTopology
from redkeep.northbound.connecting import connect
from redkeep.northbound.link import Pause
from redkeep.northbound.nodes import Node
from redkeep.northbound.places import SPACE
from redkeep.northbound.scripts import ANNOUNCE, LEAD
from redkeep.northbound.wire import Connection, ServerError

log = logging.getLogger(__name__)

TAG = SPACE + "{ha}"
LEASE = f"{TAG}:detector".encode()
STATE = f"{TAG}:state".encode()
HINTED = f"{TAG}:hinted".encode()
HA_TOPIC = f"{TAG}:news"
"""Heard on whatever node one listens at; apart from all topics of users."""
HINT_TOPIC = f"{TAG}:hints"
SLOT = slot_of(STATE)
PERIOD = 1.0
ALERT = 0.1
"""Seconds between looks while something is going on."""
ALERT_FOR = 5.0
LEASE_PERIODS = 3
TIMEOUT = 0.5


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look found."""

    view: ClusterView
    runs: tuple[tuple[str, str, str], ...]
    """Of each primary: its address, the run of its process, and its replication history. Those that answered."""

    @property
    def settled(self) -> bool:
        """All slots have owners that answer: nothing is going on."""
        primaries = self.view.primaries
        return self.view.covered == SLOTS and len(self.runs) == len(primaries) and not any(p.failed for p in primaries)

    @property
    def cause(self) -> str:
        """What makes a generation."""
        return json.dumps(sorted(self.runs))

    @property
    def digest(self) -> str:
        """What makes two announcements differ."""
        said = f"{sorted(map(repr, self.view.shape))}"
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


class Detector:
    """Run it in each manager: one of them leads."""

    def __init__(self, client: Client, *, name: str, period: float = PERIOD) -> None:
        self._client = client
        self._name = name
        self._period = period
        self._alert_until = 0.0
        self._wanted = asyncio.Event()
        self._announced = ""
        self._leads_until = 0.0
        self._cause = ""
        self.generation = 0
        self.looks = 0

    @property
    def leads(self) -> bool:
        return asyncio.get_running_loop().time() < self._leads_until

    def look_now(self) -> None:
        """Somebody has met a failure."""
        self._alert_until = asyncio.get_running_loop().time() + ALERT_FOR
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._client.on_trouble = lambda _: self.look_now()  # its own eyes count, too
        self._client.on_topology = self._seen(self._client.on_topology)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear_hints())
            loop = asyncio.get_running_loop()
            while True:
                await self._turn()
                alert = loop.time() < self._alert_until
                self._wanted.clear()
                try:
                    async with asyncio.timeout(ALERT if alert else self._period):
                        await self._wanted.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(ALERT / 5)  # hints come in crowds

    def _seen(self, told: OnTopology | None) -> OnTopology:
        """What its client finds out by itself is announced at once."""

        def seen(topology: Topology) -> None:
            self.look_now()
            if told is not None:
                told(topology)

        return seen

    async def _turn(self) -> None:
        try:
            await self._lead()
        except (Unavailable, OutcomeUnknown, ServerError) as error:
            log.info("the lease cannot be renewed: %s", error)
            self.look_now()
        if self.leads:
            await self._announce(await self._look())

    async def _lead(self) -> None:
        asked = asyncio.get_running_loop().time()
        length = LEASE_PERIODS * self._period
        if await LEAD.run(
            self._client, SLOT, (LEASE,), self._name, int(length * 1000), retry="if_not_run", timeout=TIMEOUT
        ):
            self._leads_until = asked + length

    async def _look(self) -> Sight:
        """One description, and INFO of each primary."""
        self.looks += 1
        view = await self._describe()
        nodes = [node for member in view.primaries if (node := self._client.node_at(member.address)) is not None]
        found = await asyncio.gather(*(_run_of(node) for node in nodes))
        return Sight(view, tuple(one for one in found if one is not None))

    async def _describe(self) -> ClusterView:
        hear = getattr(self._client, "hear", None)
        if hear is None:
            return _as_view(self._client)
        for node in self._client.random_nodes():
            try:
                assert node.data is not None  # noqa: S101 (they are connected)
                text = await node.data.send("CLUSTER", "NODES", timeout=TIMEOUT)
                hear(parse_nodes(text.decode(), node.address))
            except (Unavailable, OutcomeUnknown, ServerError, ValueError) as error:
                log.info("%s does not describe its cluster: %s", node.address, error)
            else:
                break
        view: ClusterView = self._client.view  # type: ignore[attr-defined]
        return view

    async def _announce(self, sight: Sight) -> None:
        """Changes in full, and at each turn that nothing else has changed."""
        if not sight.settled:
            self.look_now()
        news: dict[str, Any] = {"v": 1, "generation": self.generation, "digest": sight.digest}
        if sight.digest != self._announced or (sight.settled and sight.cause != self._cause):
            news["view"] = sight.view.to_news()
            if sight.settled:
                news["generation"] = await self._store(sight, news)
            self._announced = sight.digest
        await self._tell(json.dumps(news, separators=(",", ":")))

    async def _store(self, sight: Sight, news: dict[str, Any]) -> int:
        """The generation that this is. What cannot be stored now is tried again at the next look."""
        try:
            self.generation = await ANNOUNCE.run(
                self._client,
                SLOT,
                (STATE,),
                sight.cause,
                sight.digest,
                json.dumps(news["view"]),
                self.generation or int(time.time()),  # by the clock, if nobody is left who knows
                retry="always",
                timeout=TIMEOUT,
            )
            self._cause = sight.cause
        except (Unavailable, OutcomeUnknown, ServerError) as error:
            log.info("the state cannot be stored: %s", error)
        return self.generation

    async def _tell(self, news: str) -> None:
        """Over any node that takes it: the bus brings it to all."""
        for node in self._client.random_nodes():
            try:
                assert node.data is not None  # noqa: S101 (they are connected)
                await node.data.send("PUBLISH", HA_TOPIC, news, timeout=TIMEOUT)
            except (Unavailable, OutcomeUnknown, ServerError) as error:
                log.info("%s does not take the news: %s", node.address, error)
            else:
                return

    async def _hear_hints(self) -> None:
        while True:
            for node in self._client.random_nodes():
                try:
                    connection = await Connection.open(
                        node.address, self._client.login, on_push=lambda _: self.look_now()
                    )
                    try:
                        await connection.send("SUBSCRIBE", HINT_TOPIC, timeout=TIMEOUT)
                        await connection.closed()
                    finally:
                        connection.abort()
                except (Unavailable, OutcomeUnknown, ServerError) as error:
                    log.info("hearing hints: %s", error)
                self.look_now()
            await asyncio.sleep(ALERT)


async def keep_detecting(
    seeds: Iterable[Address | str],
    *,
    name: str,
    username: str | None = None,
    password: str | None = None,
    period: float = PERIOD,
) -> None:
    """A detector of these servers for a service that goes on without them: until cancelled, whatever happens to them.

    Several that are given different names agree on one that leads.
    """
    seeds = list(seeds)
    pause = Pause(first=0.1, longest=2.0)
    while True:
        try:
            async with await connect(seeds, username=username, password=password, name=f"detector:{name}") as client:
                pause.reset()
                await Detector(client, name=name, period=period).run()
        except (Unavailable, OutcomeUnknown, ServerError) as error:
            log.info("the northbound is not looked at: %s", error)
        await pause.sleep()


async def _run_of(node: Node) -> tuple[str, str, str] | None:
    if node.data is None:
        return None
    try:
        server, replication = await asyncio.gather(
            node.data.send("INFO", "server", timeout=TIMEOUT), node.data.send("INFO", "replication", timeout=TIMEOUT)
        )
    except (Unavailable, OutcomeUnknown, ServerError):
        return None
    return str(node.address), _field(server, b"run_id"), _field(replication, b"master_replid")


def _field(info: Any, name: bytes) -> str:
    raw = info if isinstance(info, bytes) else str(info).encode()
    return next((line.split(b":", 1)[1].decode() for line in raw.splitlines() if line.startswith(name + b":")), "")


def _as_view(client: Client) -> ClusterView:
    """One server or a replication group as a cluster of one shard."""
    topology = client.topology

    def member(address: Address, primary: Address | None, ranges: tuple[tuple[int, int], ...]) -> Member:
        return Member(str(address), address, str(primary) if primary else None, topology.epoch, False, ranges)

    first = [member(topology.primary, None, ((0, SLOTS - 1),))] if topology.primary else []
    return ClusterView((*first, *(member(one, topology.primary, ()) for one in topology.replicas)))

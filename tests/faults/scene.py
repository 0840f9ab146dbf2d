"""The stage on which faults are played: hosts, a group, a writer; and the invariants that hold in every run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from redkeep.model.instance import Event, Group, Instance, Status
from redkeep.model.topology import Role
from redkeep.northbound import connect
from redkeep.operations.context import StepHook, no_hook
from redkeep.testing.stack import Part, Stack, stack
from redkeep.testing.writer import Writer

WORD = 1.0
"""Seconds for which a primary may write after a confirmation, in these tests."""
FENCE_BOUND = 5.0
"""I1: two of a group may both accept writes for no longer than the word and what it takes to see that it ran out."""


@dataclass
class Scene:
    """A group of servers on hosts of their own, and whoever works for it."""

    found: Stack
    hosts: dict[str, Part]
    managers: list[Part]
    overlaps: list[float] = field(default_factory=list)

    # --- who is who

    async def members(self) -> list[Instance]:
        return await self.found.rows()

    async def group(self) -> Group:
        return await self.found.group((await self.members())[0].group_id)

    async def primary(self) -> Instance:
        wanted = (await self.group()).primary_id
        return next(one for one in await self.members() if one.id == wanted)

    async def replicas(self) -> list[Instance]:
        wanted = (await self.group()).primary_id
        return [one for one in await self.members() if one.id != wanted]

    def process(self, one: Instance) -> psutil.Process:
        return next(p for p in self.found.redis_processes() if p.cwd().endswith(one.id))

    async def events(self) -> list[Event]:
        assert self.found.store is not None
        async with self.found.store.read() as tx:
            return await tx.events(group_id=(await self.group()).id, limit=200)

    # --- what is done to it

    async def lose_host(self, one: Instance) -> list[psutil.Process]:
        """The agent is killed and the servers are stopped: nothing says a word any more, no connection is closed."""
        host = one.host_id or ""
        lost = [p for p in self.found.redis_processes() if f"/{host}/" in p.cwd()]
        await self.hosts[host].kill()
        for process in lost:
            process.suspend()
        return lost

    # --- what is seen of it

    def redis(self, one: Instance) -> Redis:
        assert one.address is not None
        return Redis(
            host=one.address.host,
            port=one.address.port,
            password=self.found.passwords["db"],
            decode_responses=True,
            socket_timeout=0.4,
            socket_connect_timeout=2,  # the kernel answers for a process that hangs
            retry=Retry(NoBackoff(), 0),
        )

    async def accepts_writes(self, one: Instance) -> bool:
        async with self.redis(one) as redis:
            with contextlib.suppress(RedisError):
                return bool(await redis.set("probe", one.id))
        return False

    async def keys(self, one: Instance) -> int:
        async with self.redis(one) as redis:
            return int(await redis.dbsize())

    async def until_another(self, old: Instance, limit: float) -> Instance:
        """Wait until the store names another primary; return it."""

        async def named() -> Instance | None:
            primary = await self.primary()
            return primary if primary.id != old.id else None

        found: Instance = await self.found.eventually(named, limit, what="another primary")
        return found

    # --- the invariants

    async def settled(self, *, servers: int, limit: float = 20.0) -> None:
        """I4, I5: in that time nothing is open, and rows, events and real servers agree on one primary."""
        await self.found.idle(limit)
        await self.found.eventually(lambda: self._agree(servers), limit, what="rows and servers agreeing")
        assert (await self.group()).successor_id is None
        assert await self.events()

    async def _agree(self, servers: int) -> bool:
        rows, primary = await self.members(), await self.primary()
        if len(rows) != servers or {one.status for one in rows} != {Status.ACTIVE}:
            return False
        for one in rows:
            async with self.redis(one) as redis:
                try:
                    said = await redis.info("replication")
                except RedisError:
                    return False
            is_primary = said["role"] == "master"
            linked = is_primary or said["master_link_status"] == "up"
            if is_primary != (one.id == primary.id) or not linked or (one.role is Role.PRIMARY) != is_primary:
                return False
        return await self.accepts_writes(primary)

    @asynccontextmanager
    async def never_two_primaries(self) -> AsyncIterator[None]:
        """I1: while the block runs, writes are offered to every server; two take them for no longer than the bound."""
        enough = asyncio.Event()
        probe = asyncio.create_task(self._probe(enough))
        try:
            yield
        finally:
            enough.set()  # not cancelled: a connection that is only half made would stay open
            await asyncio.gather(probe, return_exceptions=True)
        assert sum(self.overlaps) <= FENCE_BOUND, f"two accepted writes for {sum(self.overlaps):.1f} s"

    async def _probe(self, enough: asyncio.Event) -> None:
        rows, last = await self.members(), time.monotonic()
        while not enough.is_set():
            accepting = await asyncio.gather(*(self.accepts_writes(one) for one in rows))
            now = time.monotonic()
            if sum(accepting) > 1:
                self.overlaps.append(now - last)
            last = now
            await asyncio.sleep(0.05)


@asynccontextmanager
async def scene(
    hosts: int = 1,
    replicas: int = 2,
    managers: int = 1,
    version: str | None = None,
    at_step: StepHook = no_hook,
    api: dict[str, Any] | None = None,
    database: str = "",
    **agent: Any,
) -> AsyncIterator[Scene]:
    """A settled group with one server per host as far as they go, on quick-tempered managers."""
    quick = {"lease_seconds": 1.0, "look_interval": 0.2, "word_seconds": WORD}
    options = {"agent_options": {"word_seconds": WORD, **agent}, "manager_options": quick, "api_options": api or {}}
    async with stack(database=database, **options) as found:
        agents = {name: await found.start_agent(name) for name in (f"host-{at}" for at in range(1, hosts + 1))}
        parts = [await found.start_manager(f"manager-{at}", at_step) for at in range(managers)]
        playing = Scene(found, agents, parts)
        if replicas:
            await found.replicated(replicas=replicas, version=version)
        else:
            await found.create(version=version)
        await playing.settled(servers=replicas + 1)
        yield playing


@asynccontextmanager
async def writing(playing: Scene) -> AsyncIterator[Writer]:
    """A client of the group that writes without pause."""
    seeds = [one.address for one in await playing.members() if one.address is not None]
    async with await connect(seeds, password=playing.found.passwords["db"]) as client, Writer(client) as writer:
        yield writer


async def lost_before(writer: Writer, fault: float, bound: float) -> list[int]:
    """I2: acknowledged writes that are not there; each of them was acknowledged in the last `bound` seconds."""
    lost = await writer.lost()
    times = dict(zip(writer.acknowledged, writer.times, strict=True))
    assert all(fault - bound <= times[number] <= fault + FENCE_BOUND for number in lost), "older than the bound"
    return lost

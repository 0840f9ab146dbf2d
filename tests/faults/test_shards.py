"""Faults of clusters: slots on their way, dead primaries, lost majorities, new addresses. Every key is compared."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil
import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from redkeep.model.instance import Instance
from redkeep.model.operation import Kind
from redkeep.model.topology import Address, Role
from redkeep.redis.conf import Tuning
from redkeep.redis.versions import find_servers
from redkeep.testing.servers import RedisProcess, free_port
from redkeep.testing.shards import ManagedCluster, managed_cluster
from redkeep.testing.stack import Part, stack

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.timeout(400)]

both_versions = pytest.mark.parametrize("version", find_servers())
NEWEST = next(iter(find_servers()))
PHASES = ("importing", "migrating", "some keys", "keys", "target owns", "source knows")
QUICK = {"lease_seconds": 1.0, "look_interval": 0.2}


@dataclass
class Played:
    """A cluster and those who work for it."""

    cluster: ManagedCluster
    hosts: dict[str, Part]
    managers: list[Part]

    def member(self, one: Instance) -> Any:
        """What its agent has of it."""
        return self.hosts[one.host_id or ""].service._servers[one.id].member

    async def lose_host(self, host: str) -> list[psutil.Process]:
        """The agent is killed and its servers say nothing any more; no connection is closed."""
        await self.hosts[host].kill()
        lost = [p for p in self.cluster.found.redis_processes() if f"/{host}/" in p.cwd()]
        for process in lost:
            process.suspend()
        return lost


@asynccontextmanager
async def played(
    version: str = NEWEST, *, hosts: int = 1, primaries: int = 3, replicas: int = 1, **agent: Any
) -> AsyncIterator[Played]:
    async with stack(manager_options=QUICK, agent_options=agent) as found:
        parts = {name: await found.start_agent(name) for name in (f"host-{at}" for at in range(1, hosts + 1))}
        manager = await found.start_manager()
        async with managed_cluster(found, primaries=primaries, replicas=replicas, version=version) as cluster:
            yield Played(cluster, parts, [manager])


@dataclass
class Writing:
    """A client that sets new keys all the time; what it was told OK must be there in the end."""

    acknowledged: dict[str, bytes] = field(default_factory=dict)


@asynccontextmanager
async def writing(cluster: ManagedCluster) -> AsyncIterator[Writing]:
    found, stop = Writing(), asyncio.Event()

    async def write() -> None:
        number = 0
        async with cluster.client(retry=Retry(NoBackoff(), 1)) as client:
            while not stop.is_set():
                number += 1
                key, value = f"written:{number}", str(number).encode()
                with contextlib.suppress(RedisError, OSError, AttributeError):  # redis-py's own, of unknown ASK targets
                    if await client.set(key, value):
                        found.acknowledged[key] = value
                await asyncio.sleep(0.002)

    task = asyncio.create_task(write())
    try:
        yield found
    finally:
        stop.set()
        await task


def once(phase: str, act: Callable[[], None]) -> Callable[[str], None]:
    """A hook that acts the first time that this phase is reached."""
    done: list[str] = []

    def hook(reached: str) -> None:
        if reached == phase and not done:
            done.append(reached)
            act()

    return hook


async def few_slots(playing: Played, turn: int) -> str:
    """Order some slots to move to or from the first shard, in turns; the operation's id."""
    primary, _ = await playing.cluster.shard("1")
    weights = {} if turn % 2 else {primary.id: 1.01}
    return await playing.cluster.submit(Kind.REBALANCE_CLUSTER, {"weights": weights})


async def ends(playing: Played, turn: int) -> list[Instance]:
    """Those that give slots away in this turn; the last of them is the one that takes them."""
    shards = [(await playing.cluster.shard(label))[0] for label in ("1", "2", "3")]
    return [shards[0], shards[1]] if turn % 2 else [shards[1], shards[0]]


@both_versions
@pytest.mark.parametrize("victim", ["source", "target"])
async def test_23_a_server_dies_at_every_step_of_a_slots_move(version: str, victim: str) -> None:
    async with played(version) as playing:
        data = await playing.cluster.fill(6000)
        for turn, phase in enumerate(PHASES):
            source, target = await ends(playing, turn)
            dying = source if victim == "source" else target
            process = playing.cluster.process(dying)
            hook = once(phase, lambda process=process: process.send_signal(signal.SIGKILL))  # type: ignore[misc]
            for label in ("1", "2", "3"):
                one, _ = await playing.cluster.shard(label)
                playing.member(one).at_phase = hook if one.id == source.id else lambda _: None

            await playing.cluster.done(await few_slots(playing, turn))

            await playing.cluster.settled()
            await playing.cluster.compare(data)
            assert not process.is_running(), f"{phase} was never reached"


async def test_23_the_manager_dies_at_every_step_of_a_slots_move() -> None:
    async with played(replicas=0) as playing:
        data = await playing.cluster.fill(6000)
        for turn, phase in enumerate(PHASES):
            reached = asyncio.Event()
            for label in ("1", "2", "3"):
                one, _ = await playing.cluster.shard(label)
                playing.member(one).at_phase = once(phase, reached.set)

            operation = await few_slots(playing, turn)
            async with asyncio.timeout(60):
                await reached.wait()
            await playing.managers.pop().kill()
            playing.managers.append(await playing.cluster.found.start_manager(f"manager-{turn + 2}"))

            await playing.cluster.done(operation)
            await playing.cluster.settled()
            await playing.cluster.compare(data)


@both_versions
async def test_24_the_source_fails_over_in_the_middle_of_a_rebalance_which_goes_on(version: str) -> None:
    async with played(version) as playing:
        cluster = playing.cluster
        data = await cluster.fill(5000)
        first, _ = await cluster.shard("1")
        source, replicas = await cluster.shard("3")
        killed = asyncio.Event()

        def kill() -> None:
            cluster.process(source).send_signal(signal.SIGKILL)
            killed.set()

        async with writing(cluster) as writer:
            playing.member(source).at_phase = once("some keys", kill)
            operation = await cluster.run(Kind.REBALANCE_CLUSTER, {"weights": {first.id: 1.25}}, limit=240)
            await asyncio.sleep(0.2)

        assert killed.is_set()
        assert operation.choice["slots_moved"] == operation.choice["slots"] > 800
        await cluster.settled()
        now, _ = await cluster.shard("3")
        assert now.id in {one.id for one in replicas}
        assert await cluster.slots_by_shard() == {"1": 6302, "2": 5041, "3": 5041}
        await cluster.compare({**data, **writer.acknowledged})


async def test_25_no_slot_moves_before_a_member_that_lags_behind_agrees() -> None:
    async with played(replicas=0) as playing:
        cluster = playing.cluster
        data = await cluster.fill(2000)
        first, busy = (await cluster.shard("1"))[0], (await cluster.shard("3"))[0]
        moved_at: list[float] = []
        for label in ("2", "3"):
            one, _ = await cluster.shard(label)
            playing.member(one).at_phase = lambda _: moved_at.append(time.monotonic())
        script = "local t=redis.call('TIME') repeat local n=redis.call('TIME') until n[1]-t[1]>=3"
        redis = await cluster.redis(busy)
        sleeping = asyncio.ensure_future(redis.execute_command("EVAL", script, 0))  # type: ignore[no-untyped-call]
        await asyncio.sleep(0.3)

        operation = await cluster.submit(Kind.REBALANCE_CLUSTER, {"weights": {first.id: 1.05}})
        await sleeping
        awake = time.monotonic()
        await cluster.done(operation)

        assert moved_at
        assert min(moved_at) > awake - 0.5
        await cluster.settled()
        await cluster.compare(data)


async def test_27_nobody_is_forgotten_whom_a_replica_still_calls_its_primary() -> None:
    async with played() as playing:
        cluster = playing.cluster
        data = await cluster.fill(2000)
        primary, replicas = await cluster.shard("1")
        auth = [f"masterauth {cluster.found.vault.unseal((await cluster.group()).secrets.replication)}"]
        stranger = RedisProcess("cluster-enabled yes", "masteruser redkeep-replica", *auth, port=free_port()).start()
        try:
            own = str(stranger.client().execute_command("CLUSTER", "MYID").decode())  # type: ignore[no-untyped-call]
            redis, follower = await cluster.redis(primary), await cluster.redis(replicas[0])
            await playing.managers.pop().kill()
            await redis.execute_command("CLUSTER", "MEET", "127.0.0.1", stranger.port)  # type: ignore[no-untyped-call]

            async def follows() -> bool:
                with contextlib.suppress(RedisError):
                    return bool(await follower.execute_command("CLUSTER", "REPLICATE", own))  # type: ignore[no-untyped-call]
                return False

            await cluster.found.eventually(follows, what="a replica that follows the stranger")
            too_early: list[str] = []
            watch = asyncio.create_task(_watch_forgetting(cluster, replicas[0], own, too_early))

            playing.managers.append(await cluster.found.start_manager("manager-2"))

            await cluster.settled()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

            assert too_early == []
            known = {one.id for facts in (await cluster.look()).values() for one in facts.cluster.view.members}  # type: ignore[union-attr]
            assert own not in known
            await cluster.compare(data)
        finally:
            stranger.close()


async def _watch_forgetting(cluster: ManagedCluster, follower: Instance, stranger: str, found: list[str]) -> None:
    while True:
        facts = await cluster.look()
        said = facts[follower.id].cluster
        if said is not None and said.primary_id == stranger:
            for name, one in facts.items():
                if (
                    name == follower.id
                    and one.cluster
                    and all(each.id != stranger for each in one.cluster.view.members)
                ):
                    found.append(name)
        await asyncio.sleep(0.02)


@both_versions
async def test_28_a_lost_majority_waits_for_an_administrator_who_is_told_what_may_be_lost(version: str) -> None:
    """Three hosts, one shard's primary on each, its replica on another; two hosts vanish without a word."""
    async with played(version, hosts=3, tuning=Tuning(cluster_node_timeout_ms=1000)) as playing:
        cluster = playing.cluster
        data = await cluster.fill(3000)
        members = await cluster.members()
        left = next(one.host_id for one in members if one.role is Role.REPLICA)
        alone = [one for one in members if one.host_id == left]
        orphan = next(one for one in alone if one.role is Role.REPLICA)
        old, _ = await cluster.shard(orphan.shard or "")
        lost = [p for host in playing.hosts if host != left for p in await playing.lose_host(host)]

        async def told() -> bool:
            return any(
                one.kind == "degraded" and "primaries are out of sight" in one.text for one in await cluster.events()
            )

        await cluster.found.eventually(told, 60, what="the news that the majority is lost")
        facts = await cluster.look_at(alone)
        assert facts[orphan.id].role is Role.REPLICA, "nobody took over without proof"
        assert not any(one.cluster and one.cluster.state_ok for one in facts.values())

        assert cluster.found.api is not None
        asked = {"take_over": {"instances": [old.id]}}
        assert (await cluster.found.api.post(f"/clusters/{cluster.id}", json=asked)).status_code == 202
        await cluster.found.eventually(partial(_is_lost, cluster), 60, what="the takeover")

        facts = await cluster.look_at(alone)
        assert facts[orphan.id].role is Role.PRIMARY
        for process in lost:
            process.resume()
        for host in playing.hosts:
            if host != left:
                await cluster.found.start_agent(host, **_ports_of(cluster, playing.hosts[host]))
        await cluster.settled(120)
        await cluster.compare(data)


async def _is_lost(cluster: ManagedCluster) -> bool:
    """What may be lost is said when it is done."""
    return any("is lost, how much" in one.text for one in await cluster.events())


def _ports_of(cluster: ManagedCluster, part: Part) -> dict[str, Any]:
    settings = part.service._settings
    return {"port_low": settings.port_low, "port_high": settings.port_high}


@both_versions
async def test_29_every_member_gets_another_address_and_they_find_each_other_by_node_id(version: str) -> None:
    async with played(version) as playing:
        cluster = playing.cluster
        data = await cluster.fill(3000)
        before = {one.id: (one.address, one.node_id) for one in await cluster.members()}
        await playing.hosts["host-1"].kill()
        await playing.managers.pop().kill()
        for process in cluster.found.redis_processes():
            process.kill()
        assert cluster.found.store is not None
        async with cluster.found.store.begin() as tx:
            for one in await tx.instances(group_id=cluster.id):
                await tx.save(replace(one, address=Address("127.0.0.1", free_port())))

        playing.hosts["host-1"] = await cluster.found.start_agent("host-1")
        playing.managers.append(await cluster.found.start_manager("manager-2"))

        await cluster.settled(120)
        for one in await cluster.members():
            address, node_id = before[one.id]
            assert one.node_id == node_id
            assert one.address != address
        await cluster.compare(data)


@both_versions
async def test_a_primary_that_dies_is_replaced_under_load_and_nothing_acknowledged_is_lost(version: str) -> None:
    async with played(version) as playing:
        cluster = playing.cluster
        primary, replicas = await cluster.shard("2")
        async with writing(cluster) as writer:
            await asyncio.sleep(0.5)
            cluster.process(primary).send_signal(signal.SIGKILL)
            await cluster.settled()
            await asyncio.sleep(0.5)

        now, _ = await cluster.shard("2")
        assert now.id == replicas[0].id
        await cluster.compare(writer.acknowledged)


async def test_a_member_that_comes_back_without_its_data_is_a_replica_and_takes_nothing_with_it() -> None:
    async with played() as playing:
        cluster = playing.cluster
        data = await cluster.fill(2000)
        primary, _ = await cluster.shard("1")
        directory = playing.member(primary)._server.directory
        process = cluster.process(primary)
        for entry in ("appendonly.aof", "dump.rdb"):
            (directory / entry).unlink(missing_ok=True)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        for entry in directory.glob("appendonlydir/*"):
            entry.unlink()
        with contextlib.suppress(OSError):
            (directory / "appendonlydir").rmdir()

        await cluster.settled()

        assert (await cluster.shard("1"))[0].id != primary.id
        await cluster.compare(data)

"""The agent on real redis-servers: what it starts, adopts, watches, fences, and leaves alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from redkeep.agent import record as records
from redkeep.agent.process import Birth, servers_in
from redkeep.decide.liveness import Patience
from redkeep.decide.topology import assignment, topology
from redkeep.errors import RedkeepError, Refused, StaleEpoch
from redkeep.model.facts import Assignment, Process, ServerFacts, ServerSpec
from redkeep.model.instance import Instance, RedisUser, Secrets, Status
from redkeep.model.orders import (
    Brief,
    Configure,
    EnsureRemoved,
    EnsureRunning,
    Follow,
    HoldWrites,
    Isolate,
    Order,
    Promote,
    ReleaseWrites,
)
from redkeep.model.topology import Address, Role, Topology
from redkeep.orders import BusAgents
from redkeep.redis.conf import NOBODY
from redkeep.redis.versions import find_servers
from redkeep.testing.servers import RedisProcess, free_port
from redkeep.testing.stack import Part, Stack, stack
from redkeep.vault import digest, new_password

pytestmark = pytest.mark.real

both_versions = pytest.mark.parametrize("version", find_servers())
NEWEST = next(iter(find_servers()))
GROUP = "group"
PATIENT = Patience(stopped=60, silent=60)
TENANT = "the tenant's own password"


@dataclass
class Host:
    """One host with an agent, and no manager: whatever it is told, the test tells it."""

    found: Stack
    part: Part
    agents: BusAgents
    secrets: Secrets
    passwords: tuple[str, str]
    version: str = NEWEST

    def spec(self, name: str, **more: Any) -> ServerSpec:
        spec = ServerSpec(
            instance_id=name,
            group_id=GROUP,
            version=self.version,
            address=Address("127.0.0.1", free_port()),
            maxmemory_bytes=64 << 20,
            process_limit_bytes=1 << 30,
            secrets=self.secrets,
            users=(RedisUser("default", digest(TENANT)),),
        )
        return replace(spec, **more)

    async def tell(self, order: Order) -> ServerFacts:
        return await self.agents.tell("host-1", order)

    async def look(self, name: str) -> ServerFacts:
        return (await self.agents.look("host-1", [name]))[0]

    async def start(self, *specs: ServerSpec, epoch: int = 1, promote: bool = True) -> Topology:
        """A group with the first as its primary, everyone in step."""
        told = told_of(*specs, epoch=epoch)
        for spec in specs:
            await self.tell(EnsureRunning(spec, assigned(spec, told)))
        if promote:
            await self.tell(Promote(assigned(specs[0], told)))
        for spec in specs[1:]:
            await self.found.eventually(partial(self.linked, spec), 10, what=f"{spec.instance_id} in step")
        return told

    async def linked(self, spec: ServerSpec) -> bool:
        facts = await self.look(spec.instance_id)
        return facts.upstream is not None and facts.upstream.link_up

    async def restart_agent(self, **options: Any) -> None:
        await self.part.kill()
        self.found.parts.remove(self.part)
        self.part = await self.found.start_agent(**options)

    def directory(self, name: str) -> Path:
        return self.found.directory / "host-1" / name


@asynccontextmanager
async def host(version: str = NEWEST, **options: Any) -> AsyncIterator[Host]:
    async with stack(agent_options=options) as found:
        admin, replication = new_password(), new_password()
        secrets = Secrets(found.vault.seal(admin), found.vault.seal(replication))
        bus = found.bus("test")
        try:
            part = await found.start_agent()
            yield Host(found, part, BusAgents(bus), secrets, (admin, replication), version)
        finally:
            await bus.close()


def instance(spec: ServerSpec) -> Instance:
    return Instance(
        spec.instance_id, GROUP, "p", "n", Role.REPLICA, Status.ACTIVE, "1", 1, spec.version, 0, 0, address=spec.address
    )


def told_of(*specs: ServerSpec, epoch: int = 1) -> Topology:
    return topology(GROUP, epoch, map(instance, specs), specs[0].instance_id)


def assigned(spec: ServerSpec, told: Topology) -> Assignment:
    return assignment(instance(spec), told)


@asynccontextmanager
async def client(spec: ServerSpec, password: str = TENANT, user: str | None = None) -> AsyncIterator[Redis]:
    redis = Redis(
        host=spec.address.host,
        port=spec.address.port,
        username=user,
        password=password,
        decode_responses=True,
        socket_timeout=0.5,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield redis
    finally:
        await redis.aclose()


async def say(redis: Redis, *words: str | int) -> Any:
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


async def accepts_writes(spec: ServerSpec, password: str = TENANT) -> bool:
    """Whether a SET and a script that sets are carried out. One that has to wait is not, in that time."""
    for _ in range(3):
        done = [await _does(spec, password, *command) for command in (SET, EVAL_SET)]
        if done[0] == done[1]:  # else it was opened or fenced in between
            return done[0]
    raise AssertionError("a script and a plain command differ")


SET = ("SET", "k", "v")
EVAL_SET = ("EVAL", "return redis.call('SET', KEYS[1], 'v')", "1", "k")


async def _does(spec: ServerSpec, password: str, *command: str) -> bool:
    async with client(spec, password) as redis:
        with contextlib.suppress(ResponseError, RedisTimeoutError):
            return bool(await say(redis, *command))
    return False


async def refuses_writes(spec: ServerSpec, password: str = TENANT) -> bool:
    return not await accepts_writes(spec, password)


# --- Starting ---------------------------------------------------------------------------------------------------------


@both_versions
async def test_a_server_refuses_writes_from_its_first_moment_until_it_is_promoted(version: str) -> None:
    async with host(version) as here:
        spec = here.spec("one")

        await here.start(spec, promote=False)
        assert await refuses_writes(spec)

        await here.tell(Promote(assigned(spec, told_of(spec))))
        assert await accepts_writes(spec)


async def test_an_order_that_is_repeated_changes_nothing() -> None:
    async with host() as here:
        spec, other = here.spec("one"), here.spec("two")
        told = await here.start(spec, other)
        before = [await here.look("one"), await here.look("two")]

        for one in (spec, other):
            await here.tell(EnsureRunning(one, assigned(one, told)))
            await here.tell(Configure(one, 1))
            await here.tell(Brief(assigned(one, told)))
        await here.tell(Promote(assigned(spec, told)))
        await here.tell(Follow(assigned(other, told)))

        after = [await here.look("one"), await here.look("two")]
        assert [one.pid for one in before] == [one.pid for one in after]
        assert [one.replication_id for one in before] == [one.replication_id for one in after]
        assert await accepts_writes(spec)


async def test_a_port_that_a_stranger_has_is_a_conflict_and_nothing_is_left_behind() -> None:
    async with host() as here:
        stranger = RedisProcess().start()
        try:
            spec = here.spec("one", address=stranger.address)

            with pytest.raises(Refused) as refusal:
                await here.start(spec)

            assert refusal.value.kind == "conflict"
            assert not here.directory("one").exists()
            assert (await here.look("one")).process is Process.ABSENT
            with stranger.client() as redis:
                assert redis.ping()
        finally:
            stranger.close()


async def test_a_version_that_is_not_there_is_missing() -> None:
    async with host("9.9") as here:
        with pytest.raises(Refused) as refusal:
            await here.start(here.spec("one"))

        assert refusal.value.kind == "missing"
        assert not here.directory("one").exists()


async def test_memory_is_limited_in_redis_and_in_the_kernel_and_both_follow_a_resize() -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec)
        pid = (await here.look("one")).pid
        assert pid is not None
        larger = replace(spec, maxmemory_bytes=128 << 20, process_limit_bytes=3 << 30)

        await here.tell(Configure(larger, 1))

        facts = await here.look("one")
        assert facts.pid == pid
        assert facts.memory_max == 128 << 20
        assert resource.prlimit(pid, resource.RLIMIT_AS)[0] == 3 << 30
        await here.tell(Configure(spec, 1))
        assert (await here.look("one")).memory_max == 64 << 20
        assert resource.prlimit(pid, resource.RLIMIT_AS)[0] == 1 << 30


# --- Adopting ---------------------------------------------------------------------------------------------------------


@both_versions
async def test_4_an_agent_that_comes_back_adopts_its_servers_as_they_are(version: str) -> None:
    async with host(version) as here:
        spec, other = here.spec("one"), here.spec("two")
        await here.start(spec, other)
        before = [await here.look("one"), await here.look("two")]

        await here.part.kill()
        assert await accepts_writes(spec)
        await here.restart_agent()

        after = [await here.look("one"), await here.look("two")]
        for old, new in zip(before, after, strict=True):
            assert (new.pid, new.run_id, new.role, new.epoch) == (old.pid, old.run_id, old.role, old.epoch)
            assert new.replication_id == old.replication_id
        assert await accepts_writes(spec)


async def test_a_number_that_was_given_to_another_process_is_not_adopted_and_not_killed() -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec, epoch=3)
        await here.part.kill()
        os.kill(psutil.Process(the_server(here, "one")).pid, signal.SIGKILL)
        stranger = await asyncio.create_subprocess_exec("sleep", "60", cwd=here.directory("one"))
        try:
            remembered = records.load(here.directory("one"))
            assert remembered is not None
            records.save(here.directory("one"), replace(remembered, birth=Birth(stranger.pid, 1)))

            await here.restart_agent()
            await here.found.eventually(lambda: runs(here, "one"), 10, what="the server, started again")

            assert stranger.returncode is None
            assert (await here.look("one")).pid != stranger.pid
        finally:
            stranger.kill()
            await stranger.wait()


@pytest.mark.parametrize("damage", ["no birth", "no record"])
async def test_a_server_that_its_agent_cannot_account_for_does_not_go_on_behind_its_back(damage: str) -> None:
    """Killed between starting a server and remembering it, or its memory is damaged: who could fence that one?"""
    async with host() as here:
        spec, other = here.spec("one"), here.spec("two")
        told = await here.start(spec, other)
        async with client(spec) as redis:
            await redis.set("key", "kept")
        old = the_server(here, "one")
        await here.part.kill()
        remembered = records.load(here.directory("one"))
        assert remembered is not None
        if damage == "no birth":
            records.save(here.directory("one"), replace(remembered, birth=None))
        else:
            (here.directory("one") / records.FILE).write_text("{")

        await here.restart_agent()
        await here.found.eventually(lambda: asyncio.sleep(0, not psutil.pid_exists(old) or _is_zombie(old)), 5)
        facts = await here.tell(EnsureRunning(spec, assigned(spec, told)))

        assert facts.pid != old
        assert len(servers_in(here.directory("one"))) == 1
        await here.tell(Promote(assigned(spec, told)))
        async with client(spec) as redis:
            assert await redis.get("key") == "kept"


async def test_a_fence_outlives_the_agent_that_put_it_up_and_ends_when_the_right_is_confirmed() -> None:
    async with stack(agent_options={"word_seconds": 0.5}, manager_options={"word_seconds": 0.5}) as found:
        agent, manager = await found.start_agent(patience=PATIENT), await found.start_manager()
        primary, *_ = await found.replicated(replicas=2)
        spec, password = await spec_of(found, primary["id"]), found.passwords["db"]
        await manager.kill()
        for one in replicas_of(found, primary["id"]):
            one.suspend()
        await found.eventually(lambda: refuses_writes(spec, password), 15, what="the fence")
        await agent.kill()

        await found.start_agent(patience=PATIENT)
        assert await refuses_writes(spec, password)
        for one in replicas_of(found, primary["id"]):
            one.resume()
        await found.start_manager("second")

        await found.eventually(lambda: accepts_writes(spec, password), 15, what="writes again")


async def test_an_agent_grants_no_word_to_a_primary_that_it_finds() -> None:
    """While it was away another may have taken the place: only a manager, or the replicas, can say."""
    async with host(word_seconds=0.5) as here:
        spec, other, third = here.spec("one"), here.spec("two"), here.spec("three")
        await here.start(spec, other, third)
        await here.part.kill()
        for name in ("two", "three"):
            os.kill(the_server(here, name), signal.SIGSTOP)
        async with client(spec, here.passwords[0], "redkeep-admin") as redis:
            await say(redis, "CLIENT", "KILL", "TYPE", "replica")

        await here.restart_agent(word_seconds=60, patience=PATIENT)

        await here.found.eventually(lambda: refuses_writes(spec), 3, what="the fence")


# --- Watching ---------------------------------------------------------------------------------------------------------


async def test_an_exit_is_heard_of_at_once_and_not_by_asking(capsys: pytest.CaptureFixture[str]) -> None:
    async with host(watch_interval=30.0, heartbeat_interval=30.0) as here:
        spec, other = here.spec("one"), here.spec("two")
        await here.start(spec, other)
        heard, bus = asyncio.Event(), here.found.bus("listener")

        async def listen() -> None:
            async for message in bus.listen("reports"):
                if "exit" in message.body:
                    heard.set()

        listener = asyncio.create_task(listen())
        try:
            await here.found.eventually(lambda: asyncio.sleep(0.1, True))
            began = time.monotonic()
            os.kill(the_server(here, "one"), signal.SIGKILL)
            async with asyncio.timeout(1):
                await heard.wait()
            took = time.monotonic() - began
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await bus.close()

        with capsys.disabled():
            print(f"\n  an exit was heard of after {took * 1000:.1f} ms")
        facts = await here.look("one")
        assert facts.process is Process.EXITED
        assert "SIGKILL" in facts.detail


async def test_a_stopped_primary_with_replicas_is_killed_before_it_can_wake_up() -> None:
    async with host() as here:
        spec, other = here.spec("one"), here.spec("two")
        await here.start(spec, other)

        os.kill(the_server(here, "one"), signal.SIGSTOP)

        await here.found.eventually(lambda: is_process(here, "one", Process.EXITED), 5, what="its end")


async def test_a_stopped_only_server_is_told_of_and_left_alone() -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec)
        pid = the_server(here, "one")

        os.kill(pid, signal.SIGSTOP)
        await here.found.eventually(lambda: is_process(here, "one", Process.HUNG), 10, what="its silence")
        os.kill(pid, signal.SIGCONT)

        await here.found.eventually(lambda: is_process(here, "one", Process.RUNNING), 5, what="its return")
        assert the_server(here, "one") == pid
        assert await accepts_writes(spec)


async def test_a_server_that_hangs_does_not_delay_the_fence_of_its_neighbour() -> None:
    """Both are of one host. The one that hangs is an only server, so it is left alone, and asked again and again."""
    async with host(word_seconds=0.5, patience=PATIENT) as here:
        hung = here.spec("hung", group_id="other")
        alone = told_of(hung)
        alone = replace(alone, group_id="other")
        await here.tell(EnsureRunning(hung, replace(assigned(hung, alone), group_id="other")))
        spec, other = here.spec("one"), here.spec("two")
        async with client(hung, here.passwords[0], "redkeep-admin") as redis:
            sleeper = asyncio.create_task(say(redis, "EVAL", "while true do end", "0"))
            told = await here.start(spec, other)
            await here.tell(Promote(assigned(spec, told)))
            promoted = time.monotonic()
            os.kill(the_server(here, "two"), signal.SIGSTOP)
            async with client(spec, here.passwords[0], "redkeep-admin") as redis_of_one:
                await say(redis_of_one, "CLIENT", "KILL", "TYPE", "replica")

                async def fenced() -> bool:
                    answer = await redis_of_one.config_get("min-replicas-to-write")
                    return int(answer["min-replicas-to-write"] or 0) > 1000

                await here.found.eventually(fenced, 5, what="the fence")
            took = time.monotonic() - promoted
            sleeper.cancel()
            await asyncio.gather(sleeper, return_exceptions=True)

        assert took < 1.5, f"the word of half a second ended after {took:.1f} s"


async def test_a_server_that_keeps_exiting_is_started_ever_more_slowly() -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec)
        pids: list[int] = []
        until = time.monotonic() + 2.5

        while time.monotonic() < until:
            for pid in servers_in(here.directory("one")):
                if pid not in pids:
                    pids.append(pid)
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)

        assert 3 <= len(pids) <= 5, f"{len(pids)} starts in 2.5 s; at once, then after 0.5 and 1 s was promised"


async def test_a_port_that_was_taken_meanwhile_is_not_tried_ten_times_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec)
        with caplog.at_level(logging.WARNING), socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            os.kill(the_server(here, "one"), signal.SIGKILL)
            await here.found.eventually(lambda: asyncio.sleep(0, bind(stranger, spec)), 5)
            await asyncio.sleep(1.5)  # what is counted here is what happens in a time

            tries = sum("cannot be listened on" in record.message for record in caplog.records)
        assert 1 <= tries <= 4

        await here.found.eventually(lambda: runs(here, "one"), 10, what="its start on the port that is free again")


# --- Epochs and fences ------------------------------------------------------------------------------------------------


async def test_16_an_order_of_an_older_lease_is_refused_even_by_an_agent_that_has_restarted() -> None:
    async with host() as here:
        spec, other = here.spec("one"), here.spec("two")
        await here.start(spec, other, epoch=5)
        old = told_of(spec, other, epoch=4)

        for order in stale_orders(spec, other, old):
            with pytest.raises(StaleEpoch):
                await here.tell(order)
        await here.restart_agent()
        for order in stale_orders(spec, other, old):
            with pytest.raises(StaleEpoch):
                await here.tell(order)

        assert (await here.look("one")).role is Role.PRIMARY
        assert (await here.look("two")).role is Role.REPLICA


def stale_orders(spec: ServerSpec, other: ServerSpec, old: Topology) -> list[Order]:
    return [
        EnsureRunning(other, assigned(other, old)),
        Promote(assigned(spec, old)),
        Follow(assigned(other, old)),
        Brief(assigned(spec, old)),
        Isolate(other.instance_id, GROUP, old.epoch),
        HoldWrites(spec.instance_id, GROUP, old.epoch),
        ReleaseWrites(spec.instance_id, GROUP, old.epoch),
        Configure(spec, old.epoch),
        EnsureRemoved(spec.instance_id, GROUP, old.epoch),
    ]


async def test_a_server_that_an_old_lease_ordered_is_not_started_later_either() -> None:
    async with host() as here:
        spec, late = here.spec("one"), here.spec("late")
        await here.start(spec, epoch=5)
        old = told_of(spec, late, epoch=4)

        with pytest.raises(StaleEpoch):
            await here.tell(EnsureRunning(late, assigned(late, old)))

        assert (await here.look("late")).process is Process.ABSENT
        assert not here.directory("late").exists()


@both_versions
async def test_a_primary_whose_word_runs_out_writes_on_only_in_the_company_of_a_majority(version: str) -> None:
    async with host(version, word_seconds=0.6, patience=PATIENT) as here:
        spec, two, three = here.spec("one"), here.spec("two"), here.spec("three")
        told = await here.start(spec, two, three)
        await here.found.eventually(lambda: follow(here, "one", 2), 10, what="both replicas online")
        await here.tell(Promote(assigned(spec, told)))
        await asyncio.sleep(1)  # its word is over now

        # at once, unless the machine is so busy that acknowledgements are late: then as soon as they come
        await here.found.eventually(lambda: accepts_writes(spec), 15, what="writes in company")
        for name in ("two", "three"):
            os.kill(the_server(here, name), signal.SIGSTOP)
        await here.found.eventually(lambda: refuses_writes(spec), 15, what="the fence")
        assert (await here.look("one")).fenced

        os.kill(the_server(here, "three"), signal.SIGCONT)
        await here.tell(Promote(assigned(spec, told)))
        await here.found.eventually(lambda: accepts_writes(spec), 15, what="writes in company again")


async def test_an_only_server_is_never_fenced() -> None:
    async with host(word_seconds=0.2) as here:
        spec = here.spec("one")
        await here.start(spec)
        pid = the_server(here, "one")
        until = time.monotonic() + 1

        while time.monotonic() < until:
            assert await accepts_writes(spec)
            await asyncio.sleep(0.02)
        assert the_server(here, "one") == pid


@both_versions
async def test_writes_that_are_held_stay_held_until_an_order_ends_it(version: str) -> None:
    async with host(version) as here:
        spec, other = here.spec("one"), here.spec("two")
        told = await here.start(spec, other)

        held = await here.tell(HoldWrites("one", GROUP, 1, patience=0.1))
        assert await refuses_writes(spec)
        assert (await here.look("one")).offset == held.offset
        await here.tell(ReleaseWrites("one", GROUP, 1))
        assert await accepts_writes(spec)

        await here.tell(HoldWrites("one", GROUP, 1, patience=0.1))
        swapped = told_of(other, spec, epoch=2)
        await here.tell(Promote(assigned(other, swapped)))
        await here.tell(EnsureRunning(spec, assigned(spec, swapped)))
        await here.found.eventually(lambda: here.linked(spec), 10, what="the old primary as a replica")
        assert not (await here.look("one")).fenced
        assert told.primary != swapped.primary


async def test_an_isolated_replica_carries_nobody_and_keeps_what_it_has() -> None:
    async with host() as here:
        spec, other = here.spec("one"), here.spec("two")
        told = await here.start(spec, other)
        async with client(spec) as redis:
            await redis.set("key", "kept")
            await here.found.eventually(lambda: redis.wait(1, 300), 5, what="the first acknowledgement")

        await here.tell(Isolate("two", GROUP, 1))

        facts = await here.look("two")
        assert facts.upstream is not None
        assert facts.upstream.primary == NOBODY
        assert facts.synced_once
        await here.tell(Promote(assigned(other, told_of(other, spec, epoch=2))))
        async with client(other) as redis:
            assert await redis.get("key") == "kept"
        assert told.primary == spec.address


async def test_a_primary_that_its_owner_emptied_may_come_back_empty_but_one_that_lost_its_data_may_not() -> None:
    async with host(heartbeat_interval=0.05) as here:
        spec, other = here.spec("one"), here.spec("two")
        told = await here.start(spec, other)
        for command in (("SET", "key", "value"), ("FLUSHALL",)):
            async with client(spec) as redis:
                await say(redis, *command)
            await here.found.eventually(
                partial(remembers_keys, here, "one", command[0] == "SET"), 5, what="what the agent saw"
            )
        os.kill(the_server(here, "one"), signal.SIGKILL)
        await here.found.eventually(lambda: is_process(here, "one", Process.EXITED), 5)
        await here.tell(EnsureRunning(spec, assigned(spec, told)))
        await here.tell(Promote(assigned(spec, told)))
        async with client(spec) as redis:
            await redis.set("key", "value")
        await here.found.eventually(lambda: remembers_keys(here, "one", True), 5)
        os.kill(the_server(here, "one"), signal.SIGKILL)
        await here.found.eventually(lambda: is_process(here, "one", Process.EXITED), 5)
        for name in ("appendonly.aof", "dump.rdb"):
            (here.directory("one") / name).unlink(missing_ok=True)
        for file in here.directory("one").glob("appendonlydir/*"):
            file.unlink()

        await here.tell(EnsureRunning(spec, assigned(spec, told)))
        with pytest.raises(Refused, match="came back empty"):
            await here.tell(Promote(assigned(spec, told)))


# --- Secrets and tenants ----------------------------------------------------------------------------------------------

NOT_PERMITTED = "NOPERM|can't run this command|no permissions|not allowed"
FORBIDDEN = [
    "CONFIG GET maxmemory",
    "CONFIG SET maxmemory 1",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "REPLICAOF NO ONE",
    "SLAVEOF NO ONE",
    "ACL LIST",
    "ACL WHOAMI",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1",
    "CLIENT UNPAUSE",
    "CLIENT LIST",
    "MIGRATE 127.0.0.1 1 k 0 1",
    "MODULE LIST",
    "FAILOVER",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "MONITOR",
    "SYNC",
    "PSYNC ? -1",
    "CLUSTER RESET",
    "SLOWLOG GET",
    "LATENCY RESET",
]


async def _is_carried_out(spec: ServerSpec, line: str) -> bool:
    async with client(spec) as redis:
        try:
            await say(redis, *line.split())
        except ResponseError as error:
            return re.search(NOT_PERMITTED, str(error)) is None
    return True


@both_versions
async def test_the_tenant_may_do_all_with_its_data_and_nothing_with_the_server(version: str) -> None:
    async with host(version) as here:
        spec = here.spec("one")
        await here.start(spec)
        async with client(spec) as redis:
            allowed = [
                await redis.set("k", "v"),
                await say(redis, "EVAL", "return redis.call('GET', KEYS[1])", 1, "k"),
                await redis.info(),
                await say(redis, "ROLE"),
                await say(redis, "CLIENT", "SETNAME", "app"),
                await redis.publish("channel", "x") == 0,
                await redis.flushall(),
            ]
        assert all(allowed)

        got_through = [line for line in FORBIDDEN if await _is_carried_out(spec, line)]
        assert got_through == []
        async with client(spec) as redis:
            with pytest.raises(RedisError, match=NOT_PERMITTED):
                await say(redis, "EVAL", "return redis.call('CONFIG', 'GET', 'maxmemory')", 0)
        assert (await here.look("one")).role is Role.PRIMARY


async def test_nobody_gets_in_without_a_password_and_replicas_can_do_nothing_but_follow() -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec)
        for password, user in (("wrong", None), ("", None), (here.passwords[0], None), (TENANT, "redkeep-admin")):
            async with client(spec, password, user) as redis:
                with pytest.raises((AuthenticationError, RedisError)):
                    await redis.ping()

        async with client(spec, here.passwords[1], "redkeep-replica") as redis:
            assert await redis.ping()
            for command in (("GET", "k"), ("SET", "k", "v"), ("CONFIG", "GET", "*")):
                with pytest.raises(NoPermissionError):
                    await say(redis, *command)


@both_versions
async def test_secrets_stand_in_no_file_and_in_no_log(version: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with stack() as found:
            await found.start_agent()
            await found.start_manager()
            primary, *_ = await found.replicated(replicas=1, version=version)
            group = await found.group((await found.rows())[0].group_id)
            root = (await found.call("POST", f"/instances/{primary['id']}/root"))["user"]["password"]
            plain = [found.passwords["db"], root]
            plain += [found.vault.unseal(sealed) for sealed in (group.secrets.admin, group.secrets.replication)]
            # a crash, a start and a rewrite of redis.conf leave as much behind as anything
            next(iter(replicas_of(found, primary["id"]))).kill()
            await found.call("POST", f"/instances/{primary['id']}/action", {"restart": {}})
            await found.until(primary["id"], "ACTIVE")

            files = [path for path in found.directory.rglob("*") if path.is_file()]
            assert len(files) > 8
            for secret in plain:
                assert len(secret) >= 40
                assert not [path for path in files if secret.encode() in path.read_bytes()], "a secret in a file"
            for path in found.directory.glob("host-1/*/redis.conf"):
                assert path.stat().st_mode & 0o777 == 0o600
            for path in found.directory.glob("host-1/*"):
                assert path.stat().st_mode & 0o777 == 0o700
            for process in found.redis_processes():
                assert not any(secret in " ".join(process.cmdline()) for secret in plain)
    assert not any(secret in record.getMessage() for secret in plain for record in caplog.records)


async def test_a_new_password_works_on_all_members_and_the_old_one_on_none() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, *_ = await found.replicated(replicas=1)
        old = found.passwords["db"]

        new = (await found.call("POST", f"/instances/{primary['id']}/root"))["user"]["password"]

        for row in await found.rows():
            spec = await spec_of(found, row.id)
            async with client(spec, new) as redis:
                assert await redis.ping()
            async with client(spec, old) as redis:
                with pytest.raises((AuthenticationError, RedisError)):
                    await redis.ping()


# --- Files ------------------------------------------------------------------------------------------------------------


async def test_deleting_leaves_no_file_and_no_process_even_in_the_middle_of_a_save() -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec)
        async with client(spec, here.passwords[0], "redkeep-admin") as redis:
            await redis.config_set("rdb-key-save-delay", 100_000)
            async with client(spec) as tenant:
                await tenant.mset({f"key:{number}": "x" * 100 for number in range(1000)})
            await say(redis, "BGSAVE")
        await here.found.eventually(lambda: asyncio.sleep(0, len(servers_in(here.directory("one"))) == 2), 5)

        gone = await here.tell(EnsureRemoved("one", GROUP, 1))

        assert gone.process is Process.ABSENT
        assert not here.directory("one").exists()
        assert not [one for one in here.found.redis_processes() if "one" in (one.cwd() or "")]
        assert (await here.tell(EnsureRemoved("one", GROUP, 1))).process is Process.ABSENT


async def test_deleting_what_the_agent_has_forgotten_leaves_nothing_either() -> None:
    async with host() as here:
        spec = here.spec("one")
        await here.start(spec)
        await here.part.kill()
        (here.directory("one") / records.FILE).write_text("")
        await here.restart_agent()

        await here.tell(EnsureRemoved("one", GROUP, 1))

        assert not here.directory("one").exists()
        assert not here.found.redis_processes()


async def test_a_long_log_is_put_aside_and_one_old_one_is_kept() -> None:
    async with host(log_bytes=1000) as here:
        spec = here.spec("one")
        await here.start(spec)
        server = the_agent(here)._servers["one"]
        log = here.directory("one") / "redis.log"
        for _ in range(3):
            with log.open("a") as file:
                file.write("x" * 2000)
            await server.rotate_log()

        assert not log.exists() or log.stat().st_size < 1000
        assert max(path.name for path in here.directory("one").glob("redis.log*")) == "redis.log.1"
        async with client(spec, here.passwords[0], "redkeep-admin") as redis:
            await say(redis, "BGREWRITEAOF")
        await here.found.eventually(lambda: asyncio.sleep(0, log.exists()), 5, what="the new log")


# --- What a test looks at ---------------------------------------------------------------------------------------------


def the_server(here: Host, name: str) -> int:
    """The one process of redis-server that works in its directory."""
    (pid,) = servers_in(here.directory(name))
    return pid


def the_agent(here: Host) -> Any:
    return here.part.service


async def runs(here: Host, name: str) -> bool:
    return await is_process(here, name, Process.RUNNING)


async def is_process(here: Host, name: str, wanted: Process) -> bool:
    try:
        return (await here.look(name)).process is wanted
    except RedkeepError:
        return False


async def follow(here: Host, name: str, count: int) -> bool:
    return sum(one.online for one in (await here.look(name)).followers) == count


async def remembers_keys(here: Host, name: str, wanted: bool) -> bool:
    remembered = records.load(here.directory(name))
    return remembered is not None and remembered.had_keys is wanted


def bind(stranger: socket.socket, spec: ServerSpec) -> bool:
    try:
        stranger.bind((spec.address.host, spec.address.port))
        stranger.listen()
    except OSError:
        return False
    return True


def _is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def spec_of(found: Stack, instance_id: str) -> ServerSpec:
    """Enough of it to reach the server as the tenant."""
    row = next(one for one in await found.rows() if one.id == instance_id)
    group = await found.group(row.group_id)
    assert row.address is not None
    return ServerSpec(row.id, group.id, row.version, row.address, 0, 0, group.secrets)


def replicas_of(found: Stack, primary_id: str) -> Iterator[psutil.Process]:
    return (one for one in found.redis_processes() if not one.cwd().endswith(primary_id))

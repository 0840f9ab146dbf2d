"""A client on real servers, while somebody does by hand what a manager does: it follows, quickly, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis

from redkeep.errors import OutcomeUnknown, Refused, Unavailable
from redkeep.model.topology import Topology
from redkeep.northbound import Client, ServerError, connect
from redkeep.northbound.group import GroupClient
from redkeep.northbound.nodes import HA_CHANNEL
from redkeep.redis.versions import find_servers
from redkeep.testing.servers import RedisProcess, free_port, redis_process

pytestmark = pytest.mark.real


class Group:
    """A primary and two replicas, and what a manager would do with them."""

    def __init__(self, version: str) -> None:
        # Not diskless: Redis 7 then sends a fresh replica nothing until its first acknowledgement, up to 1 s later,
        # and what is written in that second dies with the primary.
        self.servers = [RedisProcess("repl-diskless-sync no", version=version).start()]
        self.admins = [self.servers[0].client()]
        for _ in range(2):
            self.servers.append(
                RedisProcess(
                    "repl-diskless-sync no", f"replicaof 127.0.0.1 {self.servers[0].port}", version=version
                ).start()
            )
            self.admins.append(self.servers[-1].client())
        self.primary = 0
        self.epoch = 0
        self.down: set[int] = set()
        self.wait_in_sync()

    @property
    def replicas(self) -> list[int]:
        return [n for n in range(3) if n not in (self.primary, *self.down)]

    def wait_in_sync(self) -> None:
        """Until both sides of every link call it up: the primary does while the replica is still loading."""
        deadline = time.monotonic() + 20
        while len(self.order(self.primary, "ROLE")[2]) < len(self.replicas) or any(
            self.admins[n].info("replication").get("master_link_status") != "up" for n in self.replicas
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def order(self, n: int, *command: str | int) -> Any:
        return self.admins[n].execute_command(*command)  # type: ignore[no-untyped-call]

    def topology(self) -> Topology:
        nodes = [server.address for server in self.servers]
        others = tuple(node for n, node in enumerate(nodes) if n != self.primary)
        return Topology("g", self.epoch, nodes[self.primary], others)

    def tell(self, *who: int) -> None:
        for n in who:
            self.admins[n].publish(HA_CHANNEL, json.dumps(self.topology().to_news()))

    def announce(self) -> None:
        """Everybody hears which group this is, before anything happens."""
        self.epoch += 1
        self.tell(0, 1, 2)

    def promote(self, successor: int, *, tell: bool = True) -> None:
        """A planned change: nothing is lost."""
        old, self.primary, self.epoch = self.primary, successor, self.epoch + 1
        before, after = self.admins[old], self.admins[successor]
        self.order(old, "CLIENT", "PAUSE", 5000, "WRITE")
        final = before.info("replication")["master_repl_offset"]
        while after.info("replication")["slave_repl_offset"] < final:
            pass
        self.order(successor, "REPLICAOF", "NO", "ONE")
        if tell:  # not on the old primary: its pause holds up PUBLISH too
            self.tell(*(n for n in range(3) if n not in (old, *self.down)))
        self._repoint()
        self.order(old, "CLIENT", "UNPAUSE")

    def take_over(self, successor: int, *, tell: bool = True) -> None:
        """After the primary died."""
        self.down.add(self.primary)
        self.primary, self.epoch = successor, self.epoch + 1
        self.order(successor, "REPLICAOF", "NO", "ONE")
        if tell:
            self.tell(successor, *self.replicas)
        self._repoint()

    def _repoint(self) -> None:
        for n in self.replicas:
            self.order(n, "REPLICAOF", "127.0.0.1", self.servers[self.primary].port)

    def close(self) -> None:
        for admin, server in zip(self.admins, self.servers, strict=True):
            with contextlib.suppress(ProcessLookupError):
                server.kill(signal.SIGCONT)
            admin.close()
            server.close()


@pytest.fixture(params=find_servers())
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    made = Group(request.param)
    yield made
    made.close()


@dataclass
class Writer:
    """Writes unique keys as fast as replies come, and keeps book."""

    client: Client
    acknowledged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    longest_gap: float = 0.0
    last: float = 0.0

    async def run(self, name: int, timeout: float) -> None:
        n = 0
        while True:
            n += 1
            key = f"w:{name}:{n}"
            try:
                await self.client.execute("SET", key, n, timeout=timeout)
            except OutcomeUnknown:
                self.unknown.append(key)
                continue
            now = time.perf_counter()
            self.longest_gap = max(self.longest_gap, now - (self.last or now))
            self.last = now
            self.acknowledged.append(key)

    async def more(self, count: int = 200) -> None:
        """Until so many more were acknowledged."""
        enough = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= enough)

    def missing(self, server: Redis) -> list[str]:
        with server.pipeline(transaction=False) as pipe:
            for key in self.acknowledged:
                pipe.exists(key)
            found = pipe.execute()
        return [key for key, there in zip(self.acknowledged, found, strict=True) if not there]


@contextlib.asynccontextmanager
async def writing(client: Client, *, timeout: float = 5.0, tasks: int = 4) -> AsyncIterator[Writer]:
    writer = Writer(client)
    running = [asyncio.create_task(writer.run(n, timeout)) for n in range(tasks)]
    try:
        await writer.more()
        writer.longest_gap = 0.0
        yield writer
        for task in running:
            if task.done():
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def until(claim: Callable[[], bool], patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.001)


async def following(group: Group) -> Client:
    """A client that has heard which group it follows."""
    client = await connect([str(group.servers[1].address)])
    # the announcement counts once every node's channel is listened to
    await until(lambda: all(admin.pubsub_numsub(HA_CHANNEL)[0][1] for admin in group.admins))
    group.announce()
    await until(lambda: client.topology.epoch == group.epoch)
    return client


async def test_one_replica_as_a_seed_is_enough_to_find_the_group(group: Group) -> None:
    async with await connect([group.servers[2].address]) as client:
        assert await client.execute("SET", "k", "v") == b"OK"
        assert client.topology.primary == group.servers[0].address
        assert set(client.topology.nodes) == {server.address for server in group.servers}


async def test_a_planned_change_loses_nothing_and_takes_milliseconds(group: Group) -> None:
    async with await following(group) as client, writing(client) as writer:
        for successor in (1, 0, 2):
            await asyncio.to_thread(group.wait_in_sync)
            await asyncio.to_thread(group.promote, successor)
            await writer.more()
            assert client.topology == group.topology()

        assert writer.unknown == []
        assert writer.longest_gap < 0.25, "a few ms, on a machine that others use too"
    assert writer.missing(group.admins[group.primary]) == []


async def test_two_changes_in_a_row_are_followed(group: Group) -> None:
    async with await following(group) as client, writing(client) as writer:
        await asyncio.to_thread(group.promote, 1)
        await asyncio.to_thread(group.wait_in_sync)
        await asyncio.to_thread(group.promote, 2)
        await writer.more()

        assert client.topology == group.topology()
        assert writer.unknown == []
    assert writer.missing(group.admins[2]) == []


async def test_after_a_kill_the_client_writes_as_soon_as_it_hears(group: Group) -> None:
    async with await following(group) as client, writing(client) as writer:
        await asyncio.to_thread(group.servers[0].kill)
        await asyncio.to_thread(group.take_over, 1)
        told = time.perf_counter()
        await until(lambda: writer.last > told)

        assert writer.last - told < 0.1
        await writer.more()
        assert client.topology == group.topology()
    assert writer.missing(group.admins[1]) == []


async def test_a_lost_message_only_costs_a_look(group: Group) -> None:
    async with await following(group) as client, writing(client) as writer:
        await asyncio.to_thread(group.servers[0].kill)
        await asyncio.to_thread(lambda: group.take_over(1, tell=False))
        await writer.more()
        assert client.topology.primary == group.servers[1].address

        await asyncio.to_thread(group.wait_in_sync)
        await asyncio.to_thread(lambda: group.promote(2, tell=False))
        await writer.more()
        assert client.topology.primary == group.servers[2].address
    assert writer.missing(group.admins[2]) == []


async def test_an_old_primary_that_returns_does_not_win(group: Group) -> None:
    async with await following(group) as client, writing(client) as writer:
        await asyncio.to_thread(group.servers[0].kill)
        await asyncio.to_thread(group.take_over, 1)
        await writer.more()
        await asyncio.to_thread(group.servers[0].start)
        await until(lambda: group.admins[0].pubsub_numsub(HA_CHANNEL)[0][1] == 1)
        for n in (1, 2):  # whoever is unsure looks around now
            group.order(n, "CLIENT", "KILL", "TYPE", "pubsub")
            group.order(n, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await writer.more()

        assert client.topology.primary == group.servers[1].address
        assert group.admins[0].dbsize() == 0
    assert writer.missing(group.admins[1]) == []


async def test_a_hung_primary_is_noticed_by_timeout_and_replaced_by_looking(group: Group) -> None:
    async with await following(group) as client, writing(client, timeout=0.3) as writer:
        group.servers[0].kill(signal.SIGSTOP)
        await asyncio.to_thread(lambda: group.take_over(1, tell=False))
        await until(lambda: client.topology.primary == group.servers[1].address)
        await writer.more()

        assert writer.unknown, "what was written to the hung one may have run"
    assert writer.missing(group.admins[1]) == []


async def test_a_hung_primary_is_left_at_once_when_news_says_so(group: Group) -> None:
    async with await following(group) as client:
        group.servers[0].kill(signal.SIGSTOP)
        await asyncio.to_thread(group.take_over, 1)
        await until(lambda: client.topology == group.topology())
        begun = time.perf_counter()

        assert await client.execute("SET", "k", "v") == b"OK"
        assert time.perf_counter() - begun < 0.1


async def test_what_was_lost_after_writing_is_unknown_unless_twice_is_fine(group: Group) -> None:
    async with await following(group) as client:
        group.order(0, "CLIENT", "PAUSE", 10000, "WRITE")
        once, twice = (
            asyncio.create_task(client.execute("SET", "k", "v", retry="if_not_run")),
            asyncio.create_task(client.execute("SET", "k", "v", retry="always")),
        )
        await until(lambda: group.admins[0].info("clients")["blocked_clients"] >= 1)
        await asyncio.to_thread(group.servers[0].kill)

        with pytest.raises(OutcomeUnknown):
            await once
        await asyncio.to_thread(group.take_over, 1)
        assert await twice == b"OK"


async def test_without_any_primary_a_command_did_not_run(group: Group) -> None:
    async with await following(group) as client:
        for server in group.servers:
            await asyncio.to_thread(server.kill)
        assert isinstance(client, GroupClient)
        await until(lambda: client._primary is not None and not client._primary.alive)

        begun = time.perf_counter()
        with pytest.raises(Unavailable):
            await client.execute("SET", "k", "v", timeout=0.2)
        assert 0.1 < time.perf_counter() - begun < 1


async def test_the_hook_hears_every_new_view(group: Group) -> None:
    heard: list[Topology] = []
    async with await following(group) as client:
        client.on_topology = heard.append
        await asyncio.to_thread(group.promote, 2)
        await until(lambda: heard == [group.topology()])


async def test_without_news_a_replica_that_joins_later_is_found(group: Group) -> None:
    group.order(2, "REPLICAOF", "NO", "ONE")
    async with await connect([group.servers[0].address]) as client:
        assert group.servers[2].address not in client.topology.nodes
        group.order(2, "REPLICAOF", "127.0.0.1", group.servers[0].port)
        await until(lambda: group.servers[2].address in client.topology.nodes)


# --- one server is enough for these ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=find_servers())
def single(request: pytest.FixtureRequest) -> Iterator[RedisProcess]:
    with redis_process(version=request.param) as server:
        yield server


async def test_an_error_of_the_command_is_the_callers(single: RedisProcess) -> None:
    async with await connect([single.address]) as client:
        await client.execute("SET", "text", "x")
        with pytest.raises(ServerError, match="WRONGTYPE") as caught:
            await client.execute("LPUSH", "text", "x")
        assert caught.value.code == "WRONGTYPE"
        with pytest.raises(Refused):
            await client.execute("MULTI")


async def test_a_tenant_with_few_rights_gets_in_and_hears_the_news(single: RedisProcess) -> None:
    rights = ["+@all", "-@admin", "-@dangerous", "-hello", "-client", "+role", "+info", "~*", "resetchannels"]
    with single.client() as admin:
        admin.execute_command("ACL", "SETUSER", "tenant", "on", ">secret", *rights, f"&{HA_CHANNEL}")

        async with await connect([single.address], username="tenant", password="secret", name="two words") as client:
            assert await client.execute("SET", "k", "v") == b"OK"
            await until(lambda: admin.pubsub_numsub(HA_CHANNEL)[0][1] == 1)
            news = Topology("g", 3, single.address)
            admin.publish(HA_CHANNEL, "not json")
            admin.publish(HA_CHANNEL, json.dumps(news.to_news()))
            await until(lambda: client.topology == news)


async def test_wrong_credentials_are_told_at_once(single: RedisProcess) -> None:
    begun = time.monotonic()
    with pytest.raises(ServerError, match="WRONGPASS"):
        await connect([single.address], username="nobody", password="wrong")
    assert time.monotonic() - begun < 2.5


async def test_nobody_there_is_unavailable(single: RedisProcess) -> None:
    with pytest.raises(Unavailable):
        await connect([f"127.0.0.1:{free_port()}"], timeout=0.2)


async def test_a_closed_client_lets_nobody_wait(single: RedisProcess) -> None:
    client = await connect([single.address])
    with single.client() as admin:
        admin.client_pause(10000, all=False)
        try:
            waiting = asyncio.create_task(client.execute("SET", "k", "v", timeout=9, retry="always"))
            await until(lambda: admin.info("clients")["blocked_clients"] >= 1)
            await client.close()

            async with asyncio.timeout(1):
                with pytest.raises(OutcomeUnknown):
                    await waiting
                with pytest.raises(Unavailable):
                    await client.execute("PING", timeout=9)
        finally:
            admin.client_unpause()


async def test_many_tasks_share_one_connection_and_each_gets_its_own_reply(single: RedisProcess) -> None:
    async with await connect([single.address]) as client:

        async def count(name: int) -> None:
            for n in range(1, 101):
                assert await client.execute("INCR", f"count:{name}") == n

        await asyncio.gather(*(count(name) for name in range(50)))
        with single.client() as admin:
            connections = [line for line in admin.client_list() if line["name"] == "redkeep-client"]
            assert len(connections) == 2
            admin.flushall()

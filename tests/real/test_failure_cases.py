"""The four failure cases of the driver's specification, each on real servers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.slots import slot_of
from redkeep.northbound import Notice, Publisher, ServerError, Subscriber, Tables, connect
from redkeep.northbound.places import feed_of, place_of
from redkeep.redis.versions import find_servers
from redkeep.testing.clusters import ClusterProcesses, cluster_processes, wait_until
from redkeep.testing.servers import RedisProcess, redis_process

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=find_servers())
def server(request: pytest.FixtureRequest) -> Iterator[RedisProcess]:
    """Keeps what it acknowledged; running again after each test."""
    with redis_process("appendonly yes", "appendfsync always", version=request.param) as made:
        yield made


@pytest.fixture(scope="module", params=find_servers())
def cluster(request: pytest.FixtureRequest) -> Iterator[ClusterProcesses]:
    with cluster_processes(version=request.param) as made:
        yield made


async def until(claim: Callable[[], bool], patience: float = 15.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


async def whole(cluster: ClusterProcesses) -> None:
    await asyncio.to_thread(wait_until, cluster.whole, "a whole cluster")


# --- 1. populate -----------------------------------------------------------------------------------------------------


async def test_populate_an_add_that_failed_is_taken_back_even_if_it_ran_later(server: RedisProcess) -> None:
    async with await connect([server.address]) as client:
        tables = Tables(client, attempts=2)
        await tables.create_table("t")
        tables._timeout = 0.2  # not before: a busy machine may need longer for what is to succeed
        server.kill(signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown):
            await tables.create_key("t", "added", "1")
        server.kill(signal.SIGCONT)  # and now the server reads what was sent

        mark = place_of("t", None).entries + b":mark:*"
        marks: list[bytes] = []
        for _ in range(400):
            marks = [await client.execute("GET", key) for key in await client.execute("KEYS", mark)]
            if marks == [b"undone"]:
                break
            await asyncio.sleep(0.01)
        assert marks == [b"undone"]
        assert await tables.get_all_keys("t") == []


async def test_populate_reconnects_and_tries_again(server: RedisProcess) -> None:
    async with await connect([server.address]) as client:
        tables = Tables(client)
        await tables.create_key("t", "before", "1")
        await asyncio.to_thread(server.kill)
        adding = asyncio.create_task(tables.create_key("t", "meanwhile", "2"))
        await asyncio.sleep(0.05)
        assert not adding.done()
        await asyncio.to_thread(server.start)
        await adding
        await tables.delete_key("t", "before")

        assert await tables.get_all("t") == {"meanwhile": "2"}
        await tables.delete_table("t")


async def test_populate_fails_at_once_when_the_connection_is_not_the_reason(server: RedisProcess) -> None:
    async with await connect([server.address]) as client:
        await client.execute("SET", place_of("wrong", None).entries, "no hash")
        begun = time.monotonic()
        with pytest.raises(ServerError, match="WRONGTYPE"):
            await Tables(client).set_key("wrong", "a", "1")
        assert time.monotonic() - begun < 1


async def test_populate_goes_on_through_an_election(cluster: ClusterProcesses) -> None:
    async with await connect(cluster.addresses[:1]) as client:
        tables = Tables(client)
        n = cluster.owner(place_of("t", None).slot)
        await tables.set_key("t", "a", "1")
        await asyncio.to_thread(cluster.kill, n)
        await tables.create_key("t", "b", "2")
        await tables.delete_key("t", "a")

        assert await tables.get_all("t") == {"b": "2"}
    await asyncio.to_thread(cluster.restart, n)
    await whole(cluster)


async def test_ids_stay_unique_when_the_primary_is_lost_with_what_it_had_not_passed_on(
    cluster: ClusterProcesses,
) -> None:
    """Two users; the second allocates on the new primary, which never heard of the last ids."""
    async with await connect(cluster.addresses) as client, await connect(cluster.addresses) as other:
        tables, others = Tables(client), Tables(other)
        slot = place_of("unique_key", None).slot
        n = cluster.owner(slot)
        replica = cluster.replica_of(n)
        given = [await tables.allocate_unique_key("t") for _ in range(20)]
        lost = cluster.order(n, "HGET", place_of("unique_key", None).entries, "t")
        cluster.order(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        await asyncio.to_thread(
            wait_until, lambda: cluster.client(n).info("replication")["role"] == "slave", "the takeover"
        )
        cluster.order(replica, "HSET", place_of("unique_key", None).entries, "t", int(lost) - 10)  # as if it lagged
        given += [await others.allocate_unique_key("t") for _ in range(20)]
        given += [await tables.allocate_unique_key("t") for _ in range(20)]

        assert len(set(given)) == 60
    await whole(cluster)


async def test_an_id_that_no_replica_confirms_is_given_to_nobody(cluster: ClusterProcesses) -> None:
    async with await connect(cluster.addresses) as client:
        tables = Tables(client)
        first = await tables.allocate_unique_key("t")
        replica = cluster.replica_of(cluster.owner(place_of("unique_key", None).slot))
        cluster.servers[replica].kill(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="no replica"):
                await tables.allocate_unique_key("t")
        finally:
            cluster.servers[replica].kill(signal.SIGCONT)
        await whole(cluster)
        assert await tables.allocate_unique_key("t") > first + 1


# --- 2. publish ------------------------------------------------------------------------------------------------------


async def test_publish_that_failed_is_reported_and_the_caller_can_undo(server: RedisProcess) -> None:
    async with await connect([server.address]) as client:
        publisher, tables = Publisher(client, timeout=0.3), Tables(client)
        await tables.create_key("t", "announced", "1")
        await asyncio.to_thread(server.kill)
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await publisher.publish("a", "it is there")
        undoing = asyncio.create_task(tables.delete_key("t", "announced"))
        await asyncio.to_thread(server.start)
        await undoing

        await publisher.publish("a", "again")
        assert await client.execute("XLEN", feed_of("a").log) == 1


# --- 3. subscribe ----------------------------------------------------------------------------------------------------


async def test_subscribe_that_failed_is_reported_and_works_when_the_server_is_back(server: RedisProcess) -> None:
    heard: list[object] = []
    async with await connect([server.address]) as client, Subscriber(client) as hearing:
        await asyncio.to_thread(server.kill)
        with pytest.raises(Unavailable):
            await hearing.subscribe("a", print, timeout=0.2)
        assert hearing.channels == []
        subscribing = asyncio.create_task(hearing.subscribe("a", lambda message: heard.append(message.data)))
        await asyncio.to_thread(server.start)
        await subscribing
        await Publisher(client).publish("a", 1)
        await until(lambda: heard == [1])


# --- 4. listen -------------------------------------------------------------------------------------------------------


class Controller:
    """Subscribes again when it is told to, after the last message that it saw."""

    def __init__(self, subscriber_of: Callable[[Callable[[Notice], object]], Subscriber]) -> None:
        self.heard: list[int] = []
        self.notices: list[Notice] = []
        self.subscriber = subscriber_of(self.on_notice)

    async def on_notice(self, notice: Notice) -> None:
        self.notices.append(notice)
        assert self.subscriber.channels == []
        await self.subscribe(after=self.subscriber.position("a"))

    async def subscribe(self, after: str | None = None) -> None:
        await self.subscriber.subscribe("a", lambda message: self.heard.append(message.data), after=after, timeout=15)


async def publish_through(publisher: Publisher, first: int, count: int) -> None:
    for n in range(first, first + count):
        await publisher.publish("a", n)


async def test_listen_tells_once_and_nothing_is_missed_when_the_connection_is_cut(server: RedisProcess) -> None:
    async with await connect([server.address]) as client:
        await client.execute("DEL", feed_of("a").log)
        controller = Controller(lambda on_notice: Subscriber(client, on_notice=on_notice))
        async with controller.subscriber:
            await controller.subscribe()
            await publish_through(Publisher(client), 0, 10)
            for n in range(3):
                await until(lambda n=n: len(controller.heard) == 10 + 10 * n)  # type: ignore[misc]
                await client.execute("CLIENT", "KILL", "TYPE", "pubsub")
                await publish_through(Publisher(client), 10 + 10 * n, 10)
            await until(lambda: len(controller.heard) == 40)

        assert controller.heard == list(range(40))
        assert controller.notices == [Notice("recovered")] * 3


async def test_listen_survives_the_whole_server_going_down_and_up(server: RedisProcess) -> None:
    async with await connect([server.address]) as client:
        await client.execute("DEL", feed_of("a").log)
        controller = Controller(lambda on_notice: Subscriber(client, on_notice=on_notice))
        async with controller.subscriber:
            await controller.subscribe()
            await publish_through(Publisher(client), 0, 5)
            await until(lambda: len(controller.heard) == 5)
            await asyncio.to_thread(server.kill)
            await until(lambda: controller.subscriber.channels == [])
            await asyncio.to_thread(server.start)
            await publish_through(Publisher(client), 5, 5)
            await until(lambda: len(controller.heard) == 10)

        assert controller.heard == list(range(10))
        assert controller.notices == [Notice("recovered")]


@pytest.mark.parametrize("fault", ["kill", "failover", "hang"])
async def test_listen_moves_when_its_node_fails_or_is_demoted(cluster: ClusterProcesses, fault: str) -> None:
    async with await connect(cluster.addresses) as client:
        controller = Controller(lambda on_notice: Subscriber(client, on_notice=on_notice))
        async with controller.subscriber:
            await client.execute("DEL", feed_of("a").log)
            await controller.subscribe()
            n = cluster.place(next(iter(controller.subscriber._ears._ears)))
            if not client.sharded:
                assert n in [cluster.place(address) for address in client.primaries]
            await publish_through(Publisher(client), 0, 10)
            await until(lambda: len(controller.heard) == 10)
            if fault == "kill":
                await asyncio.to_thread(cluster.kill, n)
            elif fault == "hang":
                cluster.servers[n].kill(signal.SIGSTOP)
            else:
                await asyncio.to_thread(cluster.fail_over, n)
            await publish_to_the_end(Publisher(client), 10)
            await until(lambda: controller.heard[-1:] == [19])
            expected = 0 if fault == "failover" and not client.sharded else 1
            await until(lambda: len(controller.notices) >= expected)  # the log may have been quicker

        assert sorted(set(controller.heard)) == list(range(20))
        assert len(controller.notices) == expected
    if fault == "kill":
        await asyncio.to_thread(cluster.restart, n)
    elif fault == "hang":
        cluster.servers[n].kill(signal.SIGCONT)
    await whole(cluster)


async def publish_to_the_end(publisher: Publisher, first: int) -> None:
    """Here twice is fine: the controller looks at numbers."""
    for n in range(first, first + 10):
        async with asyncio.timeout(20):
            while True:
                try:
                    await publisher.publish("a", n)
                except (Unavailable, OutcomeUnknown):
                    continue
                break


def test_the_channel_of_these_tests_lives_in_one_slot() -> None:
    assert feed_of("a").slot == slot_of(feed_of("a").log) == slot_of(feed_of("a").live)

"""What publishers and subscribers promise, on every kind and version of server, asynchronous and for threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.northbound_world import VERSIONS, WORLDS, Awaited, Servers, World

from redkeep.decide.catching_up import is_whole
from redkeep.northbound import Message, Notice, Publisher, Subscriber, Tables, connect, sync
from redkeep.northbound.messages import as_json, body, change, from_json, live
from redkeep.northbound.places import feed_of
from redkeep.northbound.scripts import PUBLISH


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Servers]]:
    started: dict[str, Servers] = {}
    yield started
    for servers in started.values():
        servers.close()


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, running: dict[str, Servers]) -> AsyncIterator[World]:
    kind, *version, face = request.param.split("-")
    servers: Servers | None = None
    if version:
        name = f"{kind}-{version[0]}"
        servers = running[name] = running.get(name) or Servers(kind, version[0])
        servers.flush()
    made = World(face, servers)
    yield made
    await made.close()


async def subscriber(world: World, **options: Any) -> Any:
    if world.face == "async":
        made = Subscriber(await world.client(), **options)
        world.clients.insert(0, made.close)
        return made
    found = await asyncio.to_thread(lambda: sync.Subscriber(world.blocking(), **options))
    world.clients.insert(0, found.close)
    return Threaded(found)


class Threaded(Awaited):
    """Its methods wait for the event loop of another thread; the test's own goes on."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in ("subscribe", "unsubscribe", "close"):
            return found
        return lambda *args, **options: asyncio.to_thread(found, *args, **options)


async def publisher(world: World) -> Any:
    if world.face == "async":
        return Publisher(await world.client())
    return Awaited(sync.Publisher(world.blocking()))


async def until(claim: Callable[[], bool], patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


async def test_a_message_has_the_specified_fields(world: World) -> None:
    heard: list[Message] = []
    hearing = await subscriber(world)
    assert await hearing.subscribe("my-first-channel", heard.append)
    assert not await hearing.subscribe("my-first-channel", heard.append)
    id_ = await (await publisher(world)).publish("my-first-channel", {"some": ["data", None, "é", 1.5]})
    await until(lambda: bool(heard))

    message = heard[0]
    assert (message.type, message.channel, message.pattern) == ("message", "my-first-channel", None)
    assert message.data == {"some": ["data", None, "é", 1.5]}
    assert message.id == id_ == hearing.position("my-first-channel")


async def test_messages_of_a_channel_come_in_order_and_channels_do_not_mix(world: World) -> None:
    heard: dict[str, list[int]] = {f"channel {n}": [] for n in range(5)}
    hearing, speaking = await subscriber(world), await publisher(world)
    for channel in heard:
        await hearing.subscribe(channel, lambda message: heard[message.channel].append(message.data))
    for n in range(200):
        await speaking.publish(f"channel {n % 5}", n)
    await until(lambda: sum(map(len, heard.values())) == 200)

    assert heard == {f"channel {n}": list(range(n, 200, 5)) for n in range(5)}


async def test_after_unsubscribing_nothing_comes(world: World) -> None:
    heard: list[Any] = []
    hearing, speaking = await subscriber(world), await publisher(world)
    await hearing.subscribe("a", lambda message: heard.append(message.data))
    await hearing.subscribe("{a}", lambda message: heard.append(message.data))
    assert await hearing.unsubscribe("a")
    assert not await hearing.unsubscribe("a")
    await speaking.publish("a", 1)
    await speaking.publish("{a}", 2)
    await until(lambda: bool(heard))

    assert heard == [2]
    assert await hearing.subscribe("a", lambda message: heard.append(message.data))
    await speaking.publish("a", 3)
    await until(lambda: heard == [2, 3])


async def test_a_handler_that_raises_is_logged_and_ends_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def handler(message: Message) -> None:
        heard.append(message.data)
        raise ValueError(f"number {message.data}")

    hearing, speaking = await subscriber(world), await publisher(world)
    await hearing.subscribe("a", handler)
    with caplog.at_level(logging.ERROR):
        for n in range(3):
            await speaking.publish("a", n)
        await until(lambda: heard == [0, 1, 2])
        await until(lambda: len([one for one in caplog.records if one.exc_info]) == 3)

    assert hearing.recoveries == 0


async def test_who_was_away_catches_up_after_the_last_id_it_saw(world: World) -> None:
    heard: list[int] = []
    hearing, speaking = await subscriber(world), await publisher(world)
    ids = [await speaking.publish("a", n) for n in range(600)]
    await hearing.subscribe("a", lambda message: heard.append(message.data), after=ids[9])
    for n in range(600, 650):
        await speaking.publish("a", n)
    await until(lambda: heard[-1:] == [649])

    assert heard == list(range(10, 650))


async def test_only_who_was_away_too_long_is_told_to_resynchronise(world: World) -> None:
    notices: list[Notice] = []
    heard: list[int] = []
    hearing = await subscriber(world, on_notice=notices.append)
    client = await world.client()
    speaking = Publisher(client, kept=100)
    ids = [await speaking.publish("a", n) for n in range(100)]
    await client.execute("XTRIM", feed_of("a").log, "MAXLEN", 50)

    await hearing.subscribe("a", lambda message: heard.append(message.data), after=ids[60])
    await until(lambda: heard == list(range(61, 100)))
    assert not notices
    await hearing.unsubscribe("a")
    await hearing.subscribe("a", lambda message: heard.append(message.data), after=ids[20])
    await until(lambda: notices == [Notice("resynchronise", "a")])
    await speaking.publish("a", 100)
    await until(lambda: heard == list(range(61, 101)))


async def test_slow_handlers_are_seen_and_lose_nothing(world: World) -> None:
    heard: list[int] = []
    hearing, speaking = await subscriber(world, limit=20), await publisher(world)

    may_go_on = threading.Event()

    if world.face == "async":

        async def handler(message: Message) -> None:
            heard.append(message.data)
            while not may_go_on.is_set():
                await asyncio.sleep(0.01)
    else:

        def handler(message: Message) -> None:  # type: ignore[misc]
            heard.append(message.data)
            assert may_go_on.wait(60)

    await hearing.subscribe("a", handler)
    inner = hearing.inner if isinstance(hearing, Threaded) else hearing
    inner = inner.inner if isinstance(inner, sync.Subscriber) else inner
    await speaking.publish("a", 0)
    await until(lambda: heard == [0])
    for n in range(1, 300):
        await speaking.publish("a", n)
    await until(lambda: hearing.depth >= 20)
    await until(lambda: inner.left_in_log > 0)
    may_go_on.set()
    await until(lambda: heard[-1:] == [299])

    assert heard == list(range(300))


async def test_a_lost_connection_is_told_once_and_nothing_is_missed(world: World) -> None:
    heard: list[int] = []
    notices: list[Notice] = []
    hearing, speaking = await subscriber(world, on_notice=notices.append), await publisher(world)
    await hearing.subscribe("a", lambda message: heard.append(message.data))
    for n in range(3):
        await speaking.publish("a", 10 * n)
        await until(lambda n=n: len(heard) == 1 + 2 * n)  # type: ignore[misc]
        await asyncio.to_thread(world.cut)
        await until(lambda n=n: notices == [Notice("recovered")] * (n + 1))  # type: ignore[misc]
        assert hearing.channels == []
        await speaking.publish("a", 10 * n + 1)
        assert await hearing.subscribe(
            "a", lambda message: heard.append(message.data), after=hearing.position("a"), timeout=15
        )
    await until(lambda: len(heard) == 6)

    assert heard == [0, 1, 10, 11, 20, 21]


async def unheard(world: World, channel: str, data: Any) -> str:
    """Logged, and told where nobody hears: as when the bus of a cluster has no link at that moment."""
    feed, client = feed_of(channel), await world.client()
    command = "SPUBLISH" if client.sharded else "PUBLISH"
    keys, args = (feed.log, feed.log, feed.last), (body(channel, data), 100, command)
    id_ = await PUBLISH.run(client, feed.slot, keys, *args, retry="never", timeout=5.0)
    return str(id_.decode())


async def test_what_did_not_come_is_fetched_when_the_next_message_names_it(world: World) -> None:
    heard: list[int] = []
    hearing, speaking = await subscriber(world), await publisher(world)
    await hearing.subscribe("a", lambda message: heard.append(message.data))
    await unheard(world, "a", 0)
    await speaking.publish("a", 1)
    await until(lambda: heard == [0, 1])
    await unheard(world, "a", 2)
    await unheard(world, "a", 3)
    await speaking.publish("a", 4)
    await speaking.publish("a", 5)
    await until(lambda: len(heard) >= 6)

    assert heard == list(range(6))


async def test_a_channel_that_has_gone_silent_is_compared_with_its_log(world: World) -> None:
    """Where the connection alone is no proof: on one server, and within a shard, it is."""
    client = await world.client()
    if client.sharded or client.mode == "single":
        pytest.skip("what is published there comes over this very connection")
    heard: list[int] = []
    hearing = await subscriber(world)
    await hearing.subscribe("a", lambda message: heard.append(message.data))
    await unheard(world, "a", 0)
    await unheard(world, "a", 1)
    await until(lambda: heard == [0, 1], 30)
    await (await publisher(world)).publish("a", 2)
    await until(lambda: heard == [0, 1, 2])


async def test_what_a_failover_took_from_the_end_of_the_log_is_reported(world: World) -> None:
    heard: list[int] = []
    notices: list[Notice] = []
    hearing, speaking = await subscriber(world, on_notice=notices.append), await publisher(world)
    client, feed = await world.client(), feed_of("a")
    await hearing.subscribe("a", lambda message: heard.append(message.data))
    kept = await speaking.publish("a", 0)
    lost = await speaking.publish("a", 1)
    await until(lambda: heard == [0, 1])
    await client.execute("XDEL", feed.log, lost)
    await client.execute("SET", feed.last, kept)
    await speaking.publish("a", 2)
    await until(lambda: notices == [Notice("resynchronise", "a")])
    await speaking.publish("a", 3)
    await until(lambda: heard[-1:] == [3])

    assert len(notices) == 1


async def test_a_write_its_log_entry_and_its_notification_are_one(world: World) -> None:
    heard: list[Any] = []
    hearing = await subscriber(world)
    await hearing.subscribe("tenant", lambda message: heard.append(message.data))
    await hearing.subscribe("table:ports", lambda message: heard.append(message.data))
    client = await world.client()
    tables = Tables(client, tell=True)
    await tables.create_key("ports", "p1", "up", "tenant")
    await tables.set_key("ports", "p1", b"\xff", "tenant")
    await tables.delete_key("ports", "p1", "tenant")
    await tables.set_key("ports", "p2", "up")
    await until(lambda: len(heard) == 4)

    heard.sort(key=lambda one: str(one["topic"]), reverse=True)  # channels are in order each, not among each other
    assert [one["action"] for one in heard] == ["create", "set", "delete", "set"]
    assert heard[0] == {"table": "ports", "action": "create", "topic": "tenant", "key": "p1", "value": "up"}
    assert from_json(heard[1]["value"]) == b"\xff"
    assert await client.execute("XLEN", feed_of("tenant").log) == 3


# --- placement -------------------------------------------------------------------------------------------------------


@pytest.mark.real
async def test_thirty_connections_on_three_nodes_are_ten_each(running: dict[str, Servers]) -> None:
    """Where messages are broadcast; where they stay in their shard, each channel's hash says where."""
    if "6.2" not in VERSIONS:
        pytest.skip("needs Redis 6.2")
    if "cluster-6.2" not in running:
        running["cluster-6.2"] = Servers("cluster", "6.2")
    servers = running["cluster-6.2"]
    assert servers.cluster is not None
    servers.flush()
    async with await connect(servers.seeds) as client:
        hearing = [Subscriber(client) for _ in range(30)]
        await asyncio.gather(*(one.subscribe("a", print) for one in hearing))
        counts = []
        for address in client.primaries:
            with servers.cluster.servers[servers.cluster.place(address)].client() as admin:
                counts.append(len(admin.client_list(_type="pubsub")))
        for one in hearing:
            await one.close()

    assert counts == [10, 10, 10]


# --- without servers -------------------------------------------------------------------------------------------------


@given(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_what_is_published_is_what_arrives(channel: str, data: Any) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in channel):
        return
    message = live(channel, b'{"v":1,"id":"7-1","after":"6-0",' + body(channel, data).encode())

    assert (message.channel, message.id, message.after, message.data) == (channel, "7-1", "6-0", data)


_WORDS = st.none() | st.text(st.characters()) | st.binary()


@given(st.text(), st.text(), st.text(), _WORDS, _WORDS)
def test_a_change_is_told_as_any_other_message_would_be(
    channel: str, table: str, topic: str, key: Any, value: Any
) -> None:
    said = {
        "table": table,
        "action": "set",
        "topic": topic or None,
        "key": None if key is None else as_json(key),
        "value": None if value is None else as_json(value),
    }
    assert change(channel, (table, topic), "set", key, value) == body(channel, said)


@given(st.binary())
def test_bytes_travel_in_json(value: bytes) -> None:
    assert from_json(as_json(value)) == value


@pytest.mark.parametrize("payload", [b"", b"plain", b'{"v":2,"id":"1-1"}', b'{"v":1,"id":"1'])
def test_other_versions_are_not_taken_for_messages(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        live("a", payload)


@pytest.mark.parametrize(
    ("after", "first", "last", "length", "whole"),
    [
        ("5-0", "5-0", "9-0", 5, True),
        ("5-0", "6-0", "9-0", 4, False),
        ("5-0", None, "5-0", 0, True),
        ("5-0", None, "3-0", 3, False),
        ("0-0", "1-0", "9-0", 9, True),
        ("0-0", "1-0", "99-0", 10, False),
        ("0-0", None, "0-0", 0, True),
    ],
)
def test_a_log_is_whole_when_what_was_seen_is_still_there(
    after: str, first: str | None, last: str, length: int, whole: bool
) -> None:
    assert is_whole(after, first=first, last=last, length=length, kept=10) is whole

"""What tables promise, on every kind and version of server, asynchronous and synchronous, and on the twin in memory."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.contract.northbound_world import WORLDS, Servers, World

from redkeep.errors import OutcomeUnknown, Refused, Unavailable
from redkeep.northbound import KeyExists, KeyNotFound, TableNotFound, Tables, sync
from redkeep.northbound import tables as module
from redkeep.northbound.memory_tables import MemoryDoor
from redkeep.northbound.places import encode, feed_of, place_of, registry_of

ODD = [
    "",
    " ",
    "{",
    "}",
    "{}",
    "a{b}c",
    "*",
    "?",
    "[x]",
    "\\",
    "\n",
    "a.b",
    "é",
    "日本",
    "%7B",
    "~",
    "\udcff",
    "k" * 500,
]


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Servers]]:
    started: dict[str, Servers] = {}
    yield started
    for servers in started.values():
        servers.close()


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, running: dict[str, Servers]) -> AsyncIterator[World]:
    kind, *rest = request.param.split("-")
    servers = None
    if kind != "memory":
        name = f"{kind}-{rest[0]}"
        if name not in running:
            running[name] = Servers(kind, rest[0])
        servers = running[name]
        servers.flush()
    made = World(rest[-1], servers)
    yield made
    await made.close()


# --- upstream's own test of every driver -----------------------------------------------------------------------------


async def test_upstream_create_and_get(world: World) -> None:
    tables = await world.tables()
    await tables.create_table("t")
    await tables.create_key("t", "k", "v")

    assert await tables.get_key("t", "k") == "v"


async def test_upstream_a_missing_key_raises(world: World) -> None:
    tables = await world.tables()
    await tables.create_table("t")

    with pytest.raises(KeyNotFound) as caught:
        await tables.get_key("t", "k")
    assert caught.value.key == "k"
    assert not isinstance(caught.value, TableNotFound)


async def test_upstream_a_deleted_key_is_gone_and_its_neighbour_stays(world: World) -> None:
    tables = await world.tables()
    await tables.create_key("t", "a", "1")
    await tables.create_key("t", "b", "2")
    await tables.delete_key("t", "a")

    with pytest.raises(KeyNotFound):
        await tables.get_key("t", "a")
    assert await tables.get_key("t", "b") == "2"


async def test_upstream_a_deleted_table_is_gone(world: World) -> None:
    tables = await world.tables()
    await tables.create_table("t")
    await tables.create_key("t", "a", "1")
    await tables.create_key("t", "b", "2", "topic")
    await tables.delete_table("t")

    for key in ("a", "b"):
        with pytest.raises(TableNotFound):
            await tables.get_key("t", key)
    assert await tables.get_all_keys("t") == []


async def test_upstream_set_changes_only_its_key(world: World) -> None:
    tables = await world.tables()
    await tables.create_key("t", "a", "1")
    await tables.create_key("t", "b", "2")
    await tables.set_key("t", "a", "3")

    assert [await tables.get_key("t", key) for key in "ab"] == ["3", "2"]


async def test_upstream_lists_are_empty_before_and_equal_afterwards(world: World) -> None:
    tables = await world.tables()
    assert await tables.get_all_entries("t") == await tables.get_all_keys("t") == []
    await tables.create_table("t")
    assert await tables.get_all_entries("t") == await tables.get_all_keys("t") == []
    for n in range(5):
        await tables.create_key("t", f"k{n}", f"v{n}")

    assert set(await tables.get_all_entries("t")) == {f"v{n}" for n in range(5)}
    assert set(await tables.get_all_keys("t")) == {f"k{n}" for n in range(5)}


async def test_upstream_ids_of_several_users_differ(world: World) -> None:
    users = [await world.tables() for _ in range(3)]
    found = [await user.allocate_unique_key("ports") for _ in range(10) for user in users]

    assert sorted(set(found)) == sorted(found)
    assert await users[0].get_key("unique_key", "ports") == str(max(found))
    await users[0].set_key("unique_key", "ports", "1000000")
    assert await users[1].allocate_unique_key("ports") == 1000001


# --- topics ----------------------------------------------------------------------------------------------------------


async def test_a_topic_is_a_place_and_without_one_all_are_searched(world: World) -> None:
    tables = await world.tables()
    await tables.create_key("t", "a", "1", "red")
    await tables.create_key("t", "b", "2", "blue")
    await tables.create_key("t", "c", "3")

    assert [await tables.get_key("t", key) for key in "abc"] == ["1", "2", "3"]
    assert await tables.get_all_keys("t", "red") == ["a"]
    assert sorted(await tables.get_all_entries("t")) == ["1", "2", "3"]
    with pytest.raises(KeyNotFound):
        await tables.get_key("t", "a", "blue")


async def test_without_a_topic_a_key_is_changed_where_it_is(world: World) -> None:
    tables = await world.tables()
    await tables.create_key("t", "a", "1", "red")
    await tables.set_key("t", "a", "2")
    assert await tables.get_all("t", "red") == {"a": "2"}
    assert await tables.get_all_keys("t") == ["a"]

    await tables.delete_key("t", "a")
    with pytest.raises(KeyNotFound):
        await tables.delete_key("t", "a")
    assert await tables.get_all_keys("t") == []


async def test_a_key_in_two_topics_must_be_named_with_its_topic(world: World) -> None:
    tables = await world.tables()
    for topic in ("red", "blue"):
        await tables.create_key("t", "a", topic, topic)

    with pytest.raises(Refused, match="several topics"):
        await tables.get_key("t", "a")
    assert await tables.get_key("t", "a", "blue") == "blue"


# --- names and values ------------------------------------------------------------------------------------------------


async def test_any_key_table_topic_and_value_round_trips(world: World) -> None:
    tables = await world.tables()
    for name in ODD:
        await tables.set_key(name, name, name, name)
    await tables.set_keys("odd", {name: name for name in ODD})

    for name in ODD:
        assert await tables.get_key(name, name, name) == name
        assert await tables.get_all_keys(name) == [name]
    assert sorted(await tables.get_all_keys("odd")) == sorted(ODD)


async def test_names_that_would_run_together_do_not(world: World) -> None:
    tables = await world.tables()
    await tables.set_key("a", "k", "1", "b.c")
    await tables.set_key("a.b", "k", "2", "c")

    assert await tables.get_key("a", "k", "b.c") == "1"
    assert await tables.get_key("a.b", "k", "c") == "2"


async def test_bytes_that_are_no_text_hide_nothing(world: World) -> None:
    raw, text = await world.raw_tables(), await world.tables()
    await raw.set_keys("t", {"bin": b"\xff\x00\x80", b"\xfe": "é"})

    assert await raw.get_keys("t", ["bin", b"\xfe", "none"]) == [b"\xff\x00\x80", "é".encode(), None]
    found = await text.get_all("t")
    assert found["bin"].encode("utf-8", "surrogateescape") == b"\xff\x00\x80"
    assert len(found) == 2


async def test_create_does_not_overwrite_and_delete_says_when_there_is_nothing(world: World) -> None:
    tables = await world.tables()
    await tables.create_key("t", "a", "1")
    with pytest.raises(KeyExists):
        await tables.create_key("t", "a", "2")
    assert await tables.get_key("t", "a") == "1"
    with pytest.raises(KeyNotFound):
        await tables.delete_key("t", "b")
    with pytest.raises(TableNotFound):
        await tables.delete_key("u", "b", "topic")


async def test_large_tables_are_read_by_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE", 1000)
    tables = await world.tables()
    await tables.set_keys("t", {f"k{n}": f"v{n}" for n in range(3500)})
    await tables.set_keys("t", {"in topic": "v"}, "topic")

    assert len(await tables.get_all_keys("t")) == len(await tables.get_all_entries("t")) == 3501
    assert len(await tables.get_all("t")) == 3500
    assert {key async for key, _ in tables.iterate("t")} == {"in topic", *(f"k{n}" for n in range(3500))}


async def test_a_table_that_was_deleted_by_another_is_registered_again(world: World) -> None:
    one, other = await world.tables(), await world.tables()
    await one.set_key("t", "a", "1", "topic")
    await other.delete_table("t")
    await one.set_key("t", "a", "2", "topic")

    assert await other.get_all_keys("t") == ["a"]
    with pytest.raises(KeyNotFound) as caught:
        await other.get_key("t", "b")
    assert not isinstance(caught.value, TableNotFound)


# --- doubt (on the twin, which loses replies to order) ---------------------------------------------------------------


async def test_an_add_whose_reply_was_lost_is_recognised() -> None:
    door = MemoryDoor()
    tables = Tables(door)
    await tables.create_table("t")
    door.lost_replies = 1
    await tables.create_key("t", "a", "1")

    assert await tables.get_key("t", "a") == "1"


async def test_a_delete_whose_reply_was_lost_has_deleted() -> None:
    door = MemoryDoor()
    tables = Tables(door)
    await tables.set_key("t", "a", "1")
    door.lost_replies = 1
    await tables.delete_key("t", "a")

    assert await tables.get_all_keys("t") == []


async def test_an_add_that_fails_in_all_trials_is_taken_back_and_nothing_else_is() -> None:
    door = MemoryDoor()
    tables = Tables(door, attempts=3)
    await tables.create_table("t")
    door.lost_replies = 3
    with pytest.raises(Unavailable, match="not added"):
        await tables.create_key("t", "a", "1")
    assert await tables.get_all_keys("t") == []

    await tables.create_key("t", "a", "before")
    door.lost_replies = 3
    with pytest.raises(Unavailable):
        await tables.create_key("t", "a", "2")
    assert await tables.get_key("t", "a") == "before"


async def test_a_failed_delete_is_not_taken_back_and_doubt_is_said() -> None:
    door = MemoryDoor()
    tables = Tables(door, attempts=2)
    await tables.set_key("t", "a", "1")
    door.lost_replies = 2
    with pytest.raises(OutcomeUnknown):
        await tables.delete_key("t", "a")

    assert await tables.get_all_keys("t") == []


async def test_what_is_no_question_of_the_connection_fails_at_once() -> None:
    door = MemoryDoor()
    tables = Tables(door)
    door.available = False

    with pytest.raises(Unavailable):
        await tables.set_key("t", "a", "1")


# --- without servers -------------------------------------------------------------------------------------------------


def test_both_faces_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, list[str]]:
        named = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in named if not name.startswith("_")}

    assert public(Tables) == public(sync.Tables)


def test_what_belongs_to_a_topic_shares_its_slot() -> None:
    one, other, feed = place_of("a", "red"), place_of("b", "red"), feed_of("red")

    assert one.slot == other.slot == feed.slot
    assert place_of("a", None).slot == registry_of("a").slot == feed_of("table:a").slot
    assert len({encode(name) for name in ODD}) == len(ODD)


async def test_ids_of_threads_differ() -> None:
    tables = sync.BasicTables(Tables(MemoryDoor()))
    found = await asyncio.gather(*(asyncio.to_thread(tables.allocate_unique_key, "t") for _ in range(20)))

    assert len(set(found)) == 20

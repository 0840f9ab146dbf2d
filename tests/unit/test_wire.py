"""The connection against a peer that misbehaves to order: what a failure says is exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.wire import Connection, Login, ServerError

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HELLO = b"%1\r\n+proto\r\n:3\r\n"


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[Address]:
    """Where `peer` handles one connection. It is gone with the block."""
    handling: list[asyncio.Task[Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.append(task)
        try:
            await peer(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling)
        await server.wait_closed()


@asynccontextmanager
async def connected(peer: Peer, **options: Any) -> AsyncIterator[Connection]:
    """A connection to a peer that says hello and then does as it likes."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(HELLO)
        await peer(reader, writer)

    async with listening(greet) as address:
        connection = await Connection.open(address, **options)
        try:
            yield connection
        finally:
            connection.abort()
            await connection.closed()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(2**16):
        pass


async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def test_commands_of_one_turn_leave_in_one_write_and_replies_match_in_order() -> None:
    got: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(2**16))
        writer.write(b":1\r\n$1\r\nx\r\n-WRONGTYPE no\r\n*2\r\n:1\r\n-ERR inside\r\n_\r\n")
        await silent(reader, writer)

    async with connected(peer) as connection:
        one, two, three, four, five = await asyncio.gather(
            *(connection.send("GET", n, timeout=5) for n in range(5)), return_exceptions=True
        )

    assert got[0].count(b"GET") == 5
    assert (one, two, five) == (1, b"x", None)
    assert isinstance(three, ServerError)
    assert (three.code, three.message) == ("WRONGTYPE", "no")
    assert isinstance(four, list)
    assert isinstance(four[1], ServerError), "an error inside of a reply is a value"


async def test_lost_after_writing_is_unknown_and_before_writing_is_unavailable() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)

    async with connected(peer) as connection:
        with pytest.raises(OutcomeUnknown):
            await connection.send("SET", "k", "v", timeout=5)

        with pytest.raises(Unavailable):
            await connection.send("SET", "k", "v", timeout=5)
        assert not connection.alive


async def test_closed_in_the_same_turn_nothing_was_written() -> None:
    async with connected(silent) as connection:
        future = connection.send("SET", "k", "v", timeout=5)
        connection.abort()

        with pytest.raises(Unavailable):
            await future


async def test_what_still_waits_behind_a_full_socket_was_not_written() -> None:
    async with connected(deaf) as connection:
        big = connection.send("SET", "k", b"x" * 30_000_000, timeout=5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        small = connection.send("SET", "k", "v", timeout=0.05)

        with pytest.raises(Unavailable):
            await small
        connection.abort()
        with pytest.raises(OutcomeUnknown):
            await big


async def test_a_silent_connection_is_closed_when_a_reply_is_overdue() -> None:
    async with connected(silent) as connection:
        with pytest.raises(OutcomeUnknown):
            await connection.send("SET", "k", "v", timeout=0.02)

        assert not connection.alive


async def test_a_late_reply_on_a_connection_that_speaks_is_skipped_and_harms_nobody() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)
        for n in range(10):  # progress, while the second reply is overdue
            writer.write(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n:%d\r\n" % n)
            await asyncio.sleep(0.01)
        writer.write(b"+late\r\n+right\r\n")
        await silent(reader, writer)

    pushed: list[Any] = []
    async with connected(peer, on_push=pushed.append) as connection:
        overdue = connection.send("SLOW", timeout=0.03)
        patient = connection.send("QUICK", timeout=5)

        with pytest.raises(OutcomeUnknown):
            await overdue
        assert connection.alive
        assert await patient == b"right"
        assert len(pushed) == 10


async def test_a_caller_that_was_cancelled_does_not_shift_the_replies_of_others() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)
        await asyncio.sleep(0.01)
        writer.write(b"+first\r\n+second\r\n")
        await silent(reader, writer)

    async with connected(peer) as connection:
        first, second = connection.send("A", timeout=5), connection.send("B", timeout=5)
        await asyncio.sleep(0.001)
        first.cancel()

        assert await second == b"second"


async def test_confirmations_of_subscribing_answer_it_and_messages_do_not() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)
        writer.write(
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n+PONG\r\n"
        )
        await silent(reader, writer)

    pushed: list[Any] = []
    async with connected(peer, on_push=pushed.append) as connection:
        confirmed, pong = connection.send("SUBSCRIBE", "c", timeout=5), connection.send("PING", timeout=5)

        assert (await confirmed)[0] == b"subscribe"
        assert await pong == b"PONG"
        assert pushed == [[b"message", b"c", b"m"]]


@pytest.mark.parametrize("nonsense", [b"?what\r\n", b"+unasked\r\n"])
async def test_nonsense_ends_the_connection(nonsense: bytes) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(nonsense)
        await silent(reader, writer)

    async with connected(peer) as connection:
        async with asyncio.timeout(5):
            await connection.closed()
        assert not connection.alive


async def test_a_peer_that_accepts_and_says_nothing_is_unavailable_in_time() -> None:
    async with listening(silent) as address:
        with pytest.raises(Unavailable, match="timed out"):
            await Connection.open(address, timeout=0.05)


def test_a_login_shows_no_password_and_no_odd_name() -> None:
    login = Login("user", "secret", "a b\nc")

    assert "secret" not in repr(login)
    assert login.hello() == ("HELLO", "3", "AUTH", "user", "secret", "SETNAME", "a-b-c")
    assert Login(password="p").hello()[:5] == ("HELLO", "3", "AUTH", "default", "p")

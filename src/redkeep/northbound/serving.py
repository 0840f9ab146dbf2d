"""The executing end of requests: takes them from its stream, several at a time, and acknowledges what it answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound.carriage import answer_of, unpack
from redkeep.northbound.link import Dialer, Link, Pause
from redkeep.northbound.streams import BLOCK_MS, OLDEST, PREFIX, READ_TIMEOUT, Entry, entries, order
from redkeep.northbound.wire import Connection, ServerError
from redkeep.ports import Body, Handler

log = logging.getLogger(__name__)

GROUP = "servers"
AT_ONCE = 64
"""Requests that one server executes at the same time."""
REPLIES_KEPT = 4096
REPLY_SECONDS = 300
"""A stream of replies that nobody has written to for so long vanishes: its owner is gone or wants nothing."""
WRITE_TIMEOUT = 2.0


def requests_key(name: str) -> str:
    return f"{PREFIX}requests:{name}"


_Answer = tuple[bytes, bytes, str]
"""To whom, the number of the request there, and what is said."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as its server sees it."""

    caller: bytes
    number: bytes
    body: Body
    expires: float
    """By Redis' own clock, in seconds since 1970: the entry's id says when it was written. No other clock counts."""

    @property
    def mark(self) -> tuple[bytes, bytes]:
        """The same for all copies of one request."""
        return self.caller, self.number

    @classmethod
    def read(cls, entry: Entry) -> Asked:
        """Raises KeyError or ValueError when the entry is no request."""
        written, fields = order(entry.id)[0] / 1000, entry.fields
        expires = written + int(fields[b"ttl"]) / 1000
        return cls(fields[b"reply"], fields[b"id"], unpack(fields[b"body"]), expires)


class Server:
    """Executes what is sent to one name. `consumer` must be the same after a restart, to find what it left undone."""

    def __init__(self, dialer: Dialer, link: Link, name: str, consumer: str, handler: Handler) -> None:
        self._dialer = dialer
        self._link = link
        self._key = requests_key(name)
        self._consumer = consumer
        self._handler = handler
        self._running: dict[str, asyncio.Task[None]] = {}
        self._in_hand: set[tuple[bytes, bytes]] = set()
        self._room = asyncio.Event()
        self._clock_ahead = 0.0
        """Redis' clock minus the loop's, in seconds, as of the last read."""

    async def run(self) -> None:
        """Serve until cancelled, or until the dialer is closed (raises Unavailable)."""
        async with asyncio.TaskGroup() as tasks:
            await self._serve_until_closed(self._starter(tasks))
            for task in self._running.values():
                task.cancel()
        self._dialer.refuse_when_closed()

    async def _serve_until_closed(self, start: Callable[[Entry], None]) -> None:
        pause = Pause()
        while not self._dialer.closed:
            try:
                connection = await self._dialer.open()
                try:
                    await self._session(connection, start, pause)
                finally:
                    connection.abort()
            except (Unavailable, OutcomeUnknown, ServerError) as error:
                log.info("serving %s: %s", self._key, error)
            await pause.sleep()

    def _starter(self, tasks: asyncio.TaskGroup) -> Callable[[Entry], None]:
        def start(entry: Entry) -> None:
            if entry.id not in self._running:  # what is pending may be in our own hands
                self._running[entry.id] = task = tasks.create_task(self._execute(entry))
                task.add_done_callback(lambda _: self._ended(entry.id))

        return start

    def _ended(self, entry_id: str) -> None:
        del self._running[entry_id]
        self._room.set()

    async def _session(self, connection: Connection, start: Callable[[Entry], None], pause: Pause) -> None:
        """One connection's life: first what was taken and never acknowledged, then what is new."""
        with contextlib.suppress(ServerError):  # BUSYGROUP: there already. Anything else comes back with the first read
            await connection.send("XGROUP", "CREATE", self._key, GROUP, "0", "MKSTREAM", timeout=WRITE_TIMEOUT)
        undone = OLDEST
        while batch := await self._take(connection, undone):
            pause.reset()
            undone = batch[-1].id
            for entry in batch:
                start(entry)
        while True:
            for entry in await self._take(connection, ">"):
                start(entry)
            pause.reset()

    async def _take(self, connection: Connection, start: str) -> list[Entry]:
        """Wait for room, then for entries. TIME rides behind the read, so it says when they were handed to us."""
        while len(self._running) >= AT_ONCE:
            self._room.clear()
            await self._room.wait()
        count = AT_ONCE - len(self._running)
        options = ("GROUP", GROUP, self._consumer, "COUNT", count, "BLOCK", BLOCK_MS)
        reply, (seconds, micros) = await asyncio.gather(
            connection.send("XREADGROUP", *options, "STREAMS", self._key, start, timeout=READ_TIMEOUT),
            connection.send("TIME", timeout=READ_TIMEOUT),
        )
        self._clock_ahead = int(seconds) + int(micros) / 1e6 - asyncio.get_running_loop().time()
        return entries(reply[self._key.encode()]) if reply else []

    async def _execute(self, entry: Entry) -> None:
        now = asyncio.get_running_loop().time()
        try:
            asked = Asked.read(entry)
        except (KeyError, ValueError) as error:  # deleted while it was pending, or not written by us
            log.warning("%s: entry %s is no request: %r", self._key, entry.id, error)
            return await self._settle(entry.id, None, now + WRITE_TIMEOUT)
        left = asked.expires - (now + self._clock_ahead)
        if left <= 0:
            return await self._settle(entry.id, None, now + WRITE_TIMEOUT)
        if asked.mark in self._in_hand:  # its caller wrote it twice, not knowing whether the first had arrived
            return await self._settle(entry.id, None, now + left)
        self._in_hand.add(asked.mark)
        try:
            answer = await answer_of(self._handler, asked.body, f"request {entry.id} to {self._key}")
        finally:
            self._in_hand.discard(asked.mark)
        return await self._settle(entry.id, (asked.caller, asked.number, answer), now + left)

    async def _settle(self, entry_id: str, reply: _Answer | None, deadline: float) -> None:
        """Write the reply, then acknowledge: in this order, in one write. Tried until `deadline` (loop time).

        What stays unacknowledged is found by the next session, by then over its deadline.
        """
        pause = Pause()
        while True:
            try:
                connection = await self._link.connection(timeout=WRITE_TIMEOUT)
                commands = settlement(self._key, entry_id, reply)
                await asyncio.gather(*[connection.send(*command, timeout=WRITE_TIMEOUT) for command in commands])
            except (Unavailable, OutcomeUnknown, ServerError) as error:
                log.info("answering %s of %s: %s", entry_id, self._key, error)
            else:
                return
            if asyncio.get_running_loop().time() >= deadline:
                return
            await pause.sleep()


def settlement(key: str, entry_id: str, reply: _Answer | None) -> list[tuple[str | bytes | int, ...]]:
    """The commands that answer and acknowledge one request. No transaction: they may run twice, and out of one slot."""
    done: list[tuple[str | bytes | int, ...]] = [("XACK", key, GROUP, entry_id), ("XDEL", key, entry_id)]
    if reply is None:
        return done
    to, number, answer = reply
    written = ("XADD", to, "MAXLEN", "~", REPLIES_KEPT, "*", "id", number, "answer", answer)
    return [written, ("EXPIRE", to, REPLY_SECONDS), *done]

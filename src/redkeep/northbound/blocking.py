"""The way to the servers for threads: a socket of its own per thread and server, and the client's judgement.

A command goes out and comes back on the calling thread. Only when that fails is the event loop asked, in its thread: it
holds the topology, decides about trying again, and does that. So there is one logic, and the common way costs no hop.

The coroutines here never wait, so that whoever calls them can run them to their end with `finish`.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hiredis import ProtocolError, PushNotification, Reader, pack_command

from redkeep.decide.routing import NOT_RUN, Retry
from redkeep.errors import OutcomeUnknown, RedkeepError, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.client import TIMEOUT, Client, Command
from redkeep.northbound.wire import CONNECT_TIMEOUT, Login, Reply, ServerError

T = TypeVar("T")

IDLE = 0.2
"""Seconds without use after which a socket is first asked whether its server has hung up."""
CHUNK = 65536
_NOTHING = object()


def finish(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("this coroutine waits: it belongs on an event loop")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have it done there; wait for the result. Raises RuntimeError when called there: it would wait for itself."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this waits for the event loop, and was called by it")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


class BlockingConnection:
    """One socket, used by one thread. After any failure but an error reply it is closed, and stays so."""

    def __init__(self, address: Address, login: Login, *, timeout: float = CONNECT_TIMEOUT) -> None:
        """Raises Unavailable, or ServerError when the server does not let us in."""
        self.address = address
        self._reader = Reader(replyError=ServerError, notEnoughData=_NOTHING)
        try:
            self._socket = socket.create_connection((address.host, address.port), timeout)
            if login.tls is not None:
                self._socket = login.tls.wrap_socket(self._socket, server_hostname=address.host)
        except OSError as error:
            raise Unavailable(f"{address}: cannot connect ({error})") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._used = time.monotonic()
        self.alive = True
        try:
            self.call([login.hello()], timeout)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        except ServerError:
            self.close()
            raise

    def call(self, commands: Sequence[Command], timeout: float) -> list[Reply]:
        """Several commands in one write, and their replies. One reply that is an error is raised; of several it is a
        value. Raises Unavailable when nothing was written, OutcomeUnknown when a reply is missing."""
        if timeout <= 0:
            raise Unavailable(f"{self.address}: no time is left")
        packed = b"".join([pack_command(args) for args in commands])  # type: ignore[arg-type]
        now = time.monotonic()
        if now - self._used > IDLE:
            self._refuse_when_hung_up()
        self._used = now
        self._write(packed, timeout)
        try:
            replies = self._receive(len(commands), now + timeout, timeout)
        except (OSError, ProtocolError) as error:
            self.close()
            raise OutcomeUnknown(f"{self.address}: no reply ({error})") from error
        if len(replies) == 1 and isinstance(replies[0], ServerError):
            raise replies[0]
        return replies

    def _write(self, packed: bytes, timeout: float) -> None:
        written = 0
        try:
            self._socket.settimeout(timeout)
            written = self._socket.send(packed)
            if written < len(packed):
                self._socket.sendall(packed[written:])
        except OSError as error:
            self.close()
            kind = OutcomeUnknown if written else Unavailable
            raise kind(f"{self.address}: connection lost while writing ({error})") from error

    def _receive(self, count: int, deadline: float, timeout: float) -> list[Reply]:
        replies: list[Reply] = []
        receive, feed, gets = self._socket.recv, self._reader.feed, self._reader.gets
        while True:
            data = receive(CHUNK)
            if not data:
                raise ConnectionResetError("closed by the server")
            feed(data)
            while (reply := gets()) is not _NOTHING:
                if type(reply) is not PushNotification:
                    replies.append(reply)
            if len(replies) >= count:
                return replies
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not within {timeout} s")
            self._socket.settimeout(left)

    def _refuse_when_hung_up(self) -> None:
        """So that a restart of the server while nothing was under way leaves no doubt about anything."""
        if select.select([self._socket], [], [], 0)[0]:
            self.close()
            raise Unavailable(f"{self.address}: the server has hung up")

    def close(self) -> None:
        self.alive = False
        self._socket.close()


class BlockingDoor:
    """`scripts.Door` for threads."""

    def __init__(self, client: Client, thread: LoopThread) -> None:
        self._client = client
        self._thread = thread
        self._own = threading.local()
        self._lock = threading.Lock()
        self._open: list[BlockingConnection] = []
        self._closed = False

    @property
    def sharded(self) -> bool:
        return self._client.sharded

    async def send(self, slot: int, args: Command, *, retry: Retry = "if_not_run", timeout: float = TIMEOUT) -> Reply:
        """As `Client.send`."""
        deadline = time.monotonic() + timeout  # the clock of event loops, too
        address = self._client.owner(slot)
        try:
            return self._connection(address).call((args,), timeout)[0]
        except ServerError as error:
            if error.code not in NOT_RUN:
                raise
            first: RedkeepError = error
        except (OutcomeUnknown, Unavailable) as error:
            first = error
        node = self._client.node_at(address) if address else None
        return self._thread.run(self._client.go_on(slot, args, first, node, retry=retry, deadline=deadline))

    async def send_many(
        self, slot: int, commands: Sequence[Command], *, retry: Retry = "if_not_run", timeout: float = TIMEOUT
    ) -> list[Reply]:
        """As `Client.send_many`."""
        deadline = time.monotonic() + timeout
        address = self._client.owner(slot)
        try:
            outcome = self._connection(address).call(commands, timeout)
        except (ServerError, OutcomeUnknown, Unavailable) as error:
            outcome = [error] * len(commands)
        if not any(isinstance(reply, RedkeepError) for reply in outcome):
            return outcome
        node = self._client.node_at(address) if address else None
        return self._thread.run(self._client.go_on_many(slot, commands, outcome, node, retry=retry, deadline=deadline))

    async def send_each(self, commands: Sequence[tuple[int, Command]], *, timeout: float = TIMEOUT) -> list[Reply]:
        """As `Client.send_each`: one write per server, one server after the other."""
        replies: list[Reply] = [None] * len(commands)
        by_owner: dict[Address | None, list[int]] = {}
        for n, (slot, _) in enumerate(commands):
            by_owner.setdefault(self._client.owner(slot), []).append(n)
        for places in by_owner.values():
            slot = commands[places[0]][0]
            try:
                found = self._connection(self._client.owner(slot)).call([commands[n][1] for n in places], timeout)
            except (ServerError, OutcomeUnknown, Unavailable) as error:
                found = [error] * len(places)
            for n, reply in zip(places, found, strict=True):
                again = isinstance(reply, RedkeepError)
                replies[n] = await self.send(*commands[n], retry="always", timeout=timeout) if again else reply
        return replies

    def in_background(self, work: Callable[[Any], Coroutine[Any, Any, Any]], *, seconds: float) -> None:
        """As `Client.in_background`, on the event loop."""
        self._thread.loop.call_soon_threadsafe(lambda: self._client.in_background(work, seconds=seconds))

    def _connection(self, address: Address | None) -> BlockingConnection:
        """This thread's connection. Raises Unavailable or ServerError."""
        if address is None or self._closed:
            raise Unavailable("the client is closed" if self._closed else "no primary is known")
        mine: dict[Address, BlockingConnection] | None = getattr(self._own, "connections", None)
        if mine is None:
            mine = self._own.connections = {}
        connection = mine.get(address)
        if connection is None or not connection.alive:
            connection = mine[address] = BlockingConnection(address, self._client.login)
            with self._lock:
                self._open = [known for known in self._open if known.alive] + [connection]
        return connection

    def close(self) -> None:
        self._closed = True
        with self._lock:
            for connection in self._open:
                connection.close()

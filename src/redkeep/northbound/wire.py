"""One asyncio connection to one Redis, on hiredis.

Many tasks share it: what they send in one turn of the loop leaves in one write, and replies are matched in order. It
speaks RESP3, so that published messages and replies travel on the same connection without being mistaken for each
other. It never connects again by itself and never repeats a command: that is for those above, who know what for.

What a failure says is exact. `Unavailable`: not one byte of the command was written. `OutcomeUnknown`: it was, and no
reply came. `ServerError`: Redis answered, with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Self

from hiredis import ProtocolError, PushNotification, Reader, pack_command

from redkeep.errors import OutcomeUnknown, RedkeepError, Refused, Unavailable
from redkeep.model.topology import Address

Argument = str | bytes | int | float
Reply = Any
"""What RESP3 says in Python: bytes, int, float, bool, None, list, dict, set; errors inside of arrays as values."""

OnPush = Callable[[Sequence[Any]], None]
"""Called in the reading turn of the loop: must be quick and must not raise."""

CONNECT_TIMEOUT = 1.0

_CONFIRMATIONS = frozenset({b"subscribe", b"psubscribe", b"ssubscribe"})
"""RESP3 pushes these *instead of* a reply. Unsubscribing also comes unasked and is never taken for one: `tell` it."""

_NOTHING = object()
"""What the reader returns when it needs more data: None and False are replies in RESP3."""

# future, packed bytes, deadline and beginning (loop time): a tuple, since this is the hot path
_Command = tuple["asyncio.Future[Reply]", bytes, float, float]


class ServerError(RedkeepError):
    """Redis answered with an error. `code` is its first word, `message` the rest."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code, _, self.message = text.partition(" ")


@dataclass(frozen=True, slots=True)
class Login:
    """How a connection introduces itself. `name` shows up in CLIENT LIST."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = "redkeep"
    tls: ssl.SSLContext | None = None
    """None: in the clear."""

    def hello(self) -> tuple[str, ...]:
        """Protocol, credentials and name in one command: it needs no permission, and one round trip."""
        auth = () if self.password is None else ("AUTH", self.username or "default", self.password)
        visible = "".join(letter if "!" <= letter <= "~" else "-" for letter in self.name)
        return ("HELLO", "3", *auth, *(("SETNAME", visible) if visible else ()))


def tls_context(
    ca: str | PathLike[str] | None = None,
    cert: str | PathLike[str] | None = None,
    key: str | PathLike[str] | None = None,
) -> ssl.SSLContext:
    """Believe servers whose certificate is signed by `ca` (None: by whom this machine believes) and names the address
    that is connected to; show `cert`, with its `key` if that is a file of its own. Raises Refused when a file is no
    good."""
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except OSError as error:  # a wrong certificate is one, too
        named = ", ".join(str(one) for one in (ca, cert, key) if one is not None)
        raise Refused(f"TLS cannot be used with {named}: {error}") from error
    return context


class Connection(asyncio.Protocol):
    """Commands in, replies out, until it is lost; then it stays lost."""

    def __init__(
        self, address: Address, on_push: OnPush | None = None, on_lost: Callable[[], None] | None = None
    ) -> None:
        self.address = address
        self.greeting: dict[bytes, Any] = {}
        """What the server said of itself when we logged in: `version`, `mode`, `role`, ..."""
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(replyError=ServerError, notEnoughData=_NOTHING)
        self._unsent: deque[_Command] = deque()
        self._waiting: deque[_Command] = deque()
        self._flush_due = False
        self._paused = False
        self._reason = ""
        self._heard_at = -math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    @classmethod
    async def open(
        cls,
        address: Address,
        login: Login | None = None,
        *,
        timeout: float = CONNECT_TIMEOUT,
        on_push: OnPush | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> Self:
        """Connect and log in within `timeout` seconds.

        Raises Unavailable when that did not come about, ServerError when the server does not let us in.
        """
        loop = asyncio.get_running_loop()
        connection = cls(address, on_push, on_lost)
        with contextlib.ExitStack() as unless_open:
            unless_open.callback(connection.abort)
            try:
                async with asyncio.timeout(timeout):
                    tls = login.tls if login is not None else None
                    await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
                    connection.greeting = await connection.send(*(login or Login()).hello(), timeout=2 * timeout)
            except (TimeoutError, OSError) as error:
                raise Unavailable(f"{address}: cannot connect ({str(error) or 'timed out'})") from error
            except OutcomeUnknown as error:
                raise Unavailable(str(error)) from error
            unless_open.pop_all()
        return connection

    @property
    def alive(self) -> bool:
        """Not known to be lost."""
        return self._transport is not None and not self._reason and not self._transport.is_closing()

    def send(self, *args: Argument, timeout: float) -> asyncio.Future[Reply]:
        """Queue a command; its reply is due within `timeout` seconds.

        Raises Unavailable here when the connection is lost already. The future raises ServerError, OutcomeUnknown or
        Unavailable. A connection from which nothing at all came in that time is hung, and is closed.
        """
        if not self.alive:
            raise Unavailable(f"{self.address}: not connected ({self._reason or 'closing'})")
        packed = pack_command(args)  # type: ignore[arg-type]  # its stub allows tuples of one element only
        future = self._loop.create_future()
        begun = self._loop.time()
        deadline = begun + timeout
        self._unsent.append((future, packed, deadline, begun))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        return future

    def send_many(self, commands: Sequence[tuple[Argument, ...]], *, timeout: float) -> asyncio.Future[list[Reply]]:
        """Queue several at once; all their replies come together, errors among them as values. Otherwise as `send`.

        One future for all: making and waking one for each is most of what a command costs here.
        """
        if not self.alive:
            raise Unavailable(f"{self.address}: not connected ({self._reason or 'closing'})")
        batch = _Batch(len(commands), loop=self._loop)
        if not commands:
            batch.set_result([])
            return batch
        begun = self._loop.time()
        packed = b"".join([pack_command(args) for args in commands])  # type: ignore[arg-type]
        self._unsent.append((batch, packed, begun + timeout, begun))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        if begun + timeout < self._alarm_at:
            self._set_alarm(begun + timeout)
        return batch

    @property
    def silence(self) -> float:
        """Seconds for which a reply is due and nothing at all came."""
        if not self._waiting:
            return 0.0
        return self._loop.time() - max(self._waiting[0][3], self._heard_at)

    def tell(self, *args: Argument) -> None:
        """A command that gets no reply of its own, as unsubscribing does not in RESP3."""
        self._flush()
        if self._transport is not None:
            self._transport.write(pack_command(args))  # type: ignore[arg-type]

    def abort(self, reason: str = "closed") -> None:
        """Close at once; what waits for a reply learns it in the next turn of the loop."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    async def closed(self) -> None:
        """Wait until the connection is lost."""
        await asyncio.shield(self._gone)

    # --- what the loop calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (create_connection gives no other)
        self._transport = transport
        # Whatever the kernel does not take at once stays with us, where it still counts as unsent.
        # With TLS at least a byte: at 0 its layer would pause us at every write, and resume us at the next, never.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)
        _keep_alive(transport.get_extra_info("socket"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        gets = self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _NOTHING:
                if type(reply) is PushNotification and reply[0] not in _CONFIRMATIONS:
                    if self._on_push is not None:
                        self._on_push(reply)
                else:
                    self._answer(reply)
        except (ProtocolError, IndexError) as error:  # IndexError: an answer that nobody asked for
            self.abort(f"not understood: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._reason = self._reason or (f"{exc}" if exc else "closed by the server")
        if self._alarm is not None:
            self._alarm.cancel()
        _fail(self._waiting, OutcomeUnknown, f"{self.address}: connection lost before the reply ({self._reason})")
        _fail(self._unsent, Unavailable, f"{self.address}: connection lost before writing ({self._reason})")
        self._gone.set_result(None)
        if self._on_lost is not None:
            self._on_lost()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _answer(self, reply: Reply) -> None:
        future = self._waiting[0][0]
        if type(future) is _Batch:
            future.replies.append(reply)
            if len(future.replies) < future.size:
                return
            reply = future.replies
        self._waiting.popleft()
        if future.done():  # its caller timed out or was cancelled: the place in the queue is what counts
            return
        if type(reply) is ServerError:
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _flush(self) -> None:
        self._flush_due = False
        if self._paused or self._transport is None or self._transport.is_closing():
            return
        batch = [command for command in self._unsent if not command[0].done()]
        if not batch:
            return
        self._transport.write(b"".join([command[1] for command in batch]))
        if self._transport.is_closing():  # the socket refused it on the spot: nothing was written
            return
        self._unsent.clear()
        self._waiting.extend(batch)

    def _set_alarm(self, when: float) -> None:
        """One timer serves all commands: setting one for each costs more than sending them."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        self._alarm, self._alarm_at = None, math.inf
        late = self._expire(self._waiting, now, OutcomeUnknown, f"{self.address}: no reply in time")
        self._expire(self._unsent, now, Unavailable, f"{self.address}: not written in time")
        if any(self._heard_at < begun for begun in late):
            self.abort("hung")
            return
        ahead = [command[2] for command in (*self._waiting, *self._unsent) if not command[0].done()]
        if ahead:
            self._set_alarm(min(ahead))

    @staticmethod
    def _expire(queue: deque[_Command], now: float, error: type[RedkeepError], text: str) -> list[float]:
        """Fail what is late; return when those commands were begun. Their places in the queue stay."""
        late = [command for command in queue if command[2] <= now and not command[0].done()]
        for future, *_ in late:
            future.set_exception(error(text))
        return [begun for *_, begun in late]


class _Batch(asyncio.Future[list[Reply]]):
    """The replies of several commands."""

    def __init__(self, size: int, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.size = size
        self.replies: list[Reply] = []


def _fail(queue: deque[_Command], error: type[RedkeepError], text: str) -> None:
    for future, *_ in queue:
        if not future.done():
            future.set_exception(error(text))
    queue.clear()


def _keep_alive(sock: socket.socket) -> None:
    """Learn within some 10 s that the other machine is gone, on an idle connection too."""
    with contextlib.suppress(OSError):  # not TCP, or a system without these options
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

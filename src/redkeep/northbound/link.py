"""Connections to one Redis, for those who need one now and for those who need one for ever."""

from __future__ import annotations

import asyncio
import random

from redkeep.errors import Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.wire import CONNECT_TIMEOUT, Argument, Connection, Login, Reply


class Pause:
    """Growing, jittered pauses between attempts, in seconds: from `first` by doubling up to `longest`."""

    def __init__(self, first: float = 0.005, longest: float = 0.25) -> None:
        self._first = self._next = first
        self._longest = longest

    def reset(self) -> None:
        self._next = self._first

    def take(self) -> float:
        """The length of the next pause."""
        length = self._next * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load; no secret)
        self._next = min(self._longest, self._next * 2)
        return length

    async def sleep(self) -> None:
        await asyncio.sleep(self.take())


class Bell:
    """Wakes all who wait for it at this moment; who comes later waits for the next time."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ring(self) -> None:
        rung, self._next = self._next, asyncio.get_running_loop().create_future()
        rung.set_result(None)

    async def wait(self, patience: float | None = None) -> None:
        """Until it rings, or for `patience` seconds."""
        await asyncio.wait([self._next], timeout=patience)


class Dialer:
    """Opens connections to one Redis, and ends all of them at once."""

    def __init__(self, address: Address, login: Login) -> None:
        self.address = address
        self.closed = False
        self._login = login
        self._open: set[Connection] = set()

    async def open(self, *, timeout: float = CONNECT_TIMEOUT) -> Connection:
        """A new connection. Raises Unavailable, or ServerError when the server does not let us in."""
        self.refuse_when_closed()
        connection = await Connection.open(self.address, self._login, timeout=timeout)
        if self.closed:  # meanwhile
            connection.abort()
        self.refuse_when_closed()
        self._open = {known for known in self._open if known.alive} | {connection}
        return connection

    def refuse_when_closed(self) -> None:
        if self.closed:
            raise Unavailable(f"{self.address}: this side has closed")

    async def close(self) -> None:
        self.closed = True
        for connection in self._open:
            connection.abort()
        await asyncio.gather(*(connection.closed() for connection in self._open))


class Link:
    """One connection for everybody's short commands, opened again whenever somebody needs it."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._connection: Connection | None = None
        self._dial: asyncio.Task[Connection] | None = None

    async def connection(self, *, timeout: float) -> Connection:
        """The connection, within `timeout` seconds. Raises Unavailable or ServerError."""
        if self._connection is not None and self._connection.alive:
            return self._connection
        if self._dial is None:
            self._dial = asyncio.create_task(self._dialer.open())
            self._dial.add_done_callback(self._dialled)
        try:
            # shielded: whoever loses patience must not take the connection away from the others
            return await asyncio.wait_for(asyncio.shield(self._dial), timeout)
        except TimeoutError as error:
            raise Unavailable(f"{self._dialer.address}: cannot connect (timed out)") from error

    async def send(self, *args: Argument, timeout: float) -> Reply:
        """One command, connecting first if need be. Raises as `Connection.send` does."""
        connection = await self.connection(timeout=timeout)
        return await connection.send(*args, timeout=timeout)

    def _dialled(self, dial: asyncio.Task[Connection]) -> None:
        self._dial = None
        if not dial.cancelled() and dial.exception() is None:
            self._connection = dial.result()

    async def close(self) -> None:
        """Wait for what is being dialled: a closed dialer ends it. Cancelling it would cancel those who wait for it."""
        if self._dial is not None:
            await asyncio.wait([self._dial])

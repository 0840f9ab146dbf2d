"""One server of a group as a client holds it: two connections, kept open, and what the server says of itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redkeep.decide.following import Look
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address, Topology
from redkeep.northbound.link import Bell, Pause
from redkeep.northbound.wire import Connection, Login, Reply, ServerError

log = logging.getLogger(__name__)

HA_CHANNEL = "__redkeep:ha"
LOOK_TIMEOUT = 0.2
"""Seconds in which a server must say who it is, or counts as not answering."""
LASTED = 1.0
"""Seconds after which a connection has proved itself, so that the next attempt may come quickly again."""


def read_role(address: Address, reply: Reply) -> Look:
    """The reply to ROLE. Raises ValueError on one that is neither a primary's nor a replica's."""
    match reply:
        case [b"master", int(offset), list(replicas)]:
            return Look(address, None, tuple(Address(host.decode(), int(port)) for host, port, _ in replicas), offset)
        case [b"slave", bytes(host), int(port), bytes(_), int(offset)]:
            return Look(address, Address(host.decode(), port), (), offset)
        case _:
            raise ValueError(f"{address}: not a role: {reply!r}")


async def ask_role(connection: Connection, *, timeout: float = LOOK_TIMEOUT) -> Look:
    """What the server at the other end says of itself. Raises as `Connection.send` does, and ValueError."""
    return read_role(connection.address, await connection.send("ROLE", timeout=timeout))


async def look_at(address: Address, login: Login) -> Look:
    """The same over a connection of its own. Raises Unavailable, OutcomeUnknown, ServerError or ValueError."""
    connection = await Connection.open(address, login, timeout=LOOK_TIMEOUT)
    try:
        return await ask_role(connection)
    finally:
        connection.abort()


class Node:
    """Both connections to one server.

    `data` carries commands; it is open before the server is promoted, so that failing over costs no handshake. `news`
    listens, and answers who it is even while `data` waits behind a paused write or a long reply. They are two because
    Redis cuts a subscribed connection at 32 MB of output, which a legitimate reply may exceed.
    """

    def __init__(
        self,
        address: Address,
        login: Login,
        *,
        on_change: Callable[[Node], None],
        on_news: Callable[[Topology], None] | None = None,
    ) -> None:
        """Without `on_news` there is no second connection."""
        self.address = address
        self.data: Connection | None = None
        self.news: Connection | None = None
        self._login = login
        self._on_news = on_news
        self._on_change = on_change
        self._nudged = Bell()

    @property
    def alive(self) -> bool:
        """The connection for commands is open."""
        return self.data is not None and self.data.alive

    def nudge(self) -> None:
        """Connect now, instead of after the pause."""
        self._nudged.ring()

    async def run(self) -> None:
        """Keep both connections open until cancelled."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._keep(self._open_data))
                if self._on_news is not None:
                    both.create_task(self._keep(self._open_news))
        finally:
            for connection in (self.data, self.news):
                if connection is not None:
                    connection.abort("this server left the group, or the client closed")
                    await connection.closed()

    async def look(self) -> Look:
        """Who it says it is. Raises Unavailable, OutcomeUnknown, ServerError or ValueError."""
        if self.news is not None and self.news.alive:
            return await ask_role(self.news)
        return await look_at(self.address, self._login)

    async def _keep(self, dial: Callable[[], Awaitable[Connection]]) -> None:
        pause = Pause(longest=1.0)
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection = await dial()
            except (Unavailable, OutcomeUnknown, ServerError) as error:
                log.debug("%s: %s", self.address, error)
            else:
                opened = loop.time()
                self._on_change(self)
                await connection.closed()
                if loop.time() - opened > LASTED:
                    pause.reset()
            await self._nudged.wait(pause.take())

    async def _open_data(self) -> Connection:
        self.data = await Connection.open(self.address, self._login, on_lost=lambda: self._on_change(self))
        return self.data

    async def _open_news(self) -> Connection:
        connection = await Connection.open(self.address, self._login, on_push=self._hear)
        self.news = connection
        try:
            await connection.send("SUBSCRIBE", HA_CHANNEL, timeout=1.0)
        except ServerError as error:  # no right to listen: it can still be asked
            log.warning("%s: news of failovers will not arrive: %s", self.address, error)
        return connection

    def _hear(self, push: Sequence[Any]) -> None:
        if push[0] != b"message" or push[1] != HA_CHANNEL.encode():
            return
        try:
            news = Topology.from_news(json.loads(push[2]))
        except ValueError as error:
            log.warning("%s: unreadable news: %s", self.address, error)
            return
        if self._on_news is not None:
            self._on_news(news)

"""`ports.Bus` on the streams of one Redis: topics are bounded streams, a request is an entry of its server's stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from redkeep.errors import Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.asking import Caller
from redkeep.northbound.carriage import pack, unpack
from redkeep.northbound.link import Dialer, Link
from redkeep.northbound.serving import Server
from redkeep.northbound.streams import PREFIX, follow
from redkeep.northbound.wire import Login, ServerError
from redkeep.ports import Body, Handler, Message

log = logging.getLogger(__name__)

TOPIC_KEPT = 10_000
"""About how many entries of a topic are kept."""
PUBLISH_TIMEOUT = 2.0


class RedisBus:
    """The nervous system on one Redis.

    `name` says who this is, and stays the same across restarts: by it a server finds the requests that it had begun.
    """

    def __init__(
        self, address: Address, *, username: str | None = None, password: str | None = None, name: str
    ) -> None:
        self._name = name
        self._dialer = Dialer(address, Login(username, password, f"redkeep:{name}"))
        self._link = Link(self._dialer)
        self._caller = Caller(self._dialer, self._link)

    async def publish(self, topic: str, body: Body) -> str:
        """Append to a topic; those published in the same turn of the loop leave in one write."""
        command = ("XADD", _topic_key(topic), "MAXLEN", "~", TOPIC_KEPT, "*", "body", pack(body))
        try:
            entry_id: bytes = await self._link.send(*command, timeout=PUBLISH_TIMEOUT)
        except ServerError as error:
            raise Unavailable(f"{topic} was not published: {error}") from error
        return entry_id.decode()

    async def listen(self, topic: str, *, after: str | None = None) -> AsyncGenerator[Message, None]:
        """Entries after that id, or from now on; from the oldest there is when the log has lost our place."""
        async with aclosing(follow(self._dialer, _topic_key(topic), after)) as found:
            async for entry in found:
                try:
                    message = Message(entry.id, topic, unpack(entry.fields[b"body"]))
                except (KeyError, ValueError) as error:
                    log.warning("%s: entry %s is no message: %r", topic, entry.id, error)
                else:
                    yield message

    async def request(self, to: str, body: Body, *, timeout: float) -> Body:
        """Have `to` execute the body. A request that nobody took in time is withdrawn, and was Unavailable."""
        return await self._caller.request(to, body, timeout=timeout)

    async def serve(self, name: str, handler: Handler) -> None:
        """Execute the requests to `name`. What this bus had begun and not answered is executed again first."""
        await Server(self._dialer, self._link, name, self._name, handler).run()

    async def close(self) -> None:
        """End all connections. Who still listens or serves gets Unavailable; who waits for a reply, OutcomeUnknown."""
        await self._dialer.close()
        await self._link.close()
        await self._caller.close()


def _topic_key(topic: str) -> str:
    return f"{PREFIX}topic:{topic}"

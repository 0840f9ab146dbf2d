"""Reading a Redis stream for ever, and what its ids say."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound.link import Dialer, Pause
from redkeep.northbound.wire import Connection, Reply, ServerError

log = logging.getLogger(__name__)

PREFIX = "redkeep:"
BLOCK_MS = 2000
"""How long a blocking read waits, in milliseconds. Its answer, even an empty one, proves that the connection lives."""
READ_TIMEOUT = BLOCK_MS / 1000 + 1.0
BATCH = 256
OLDEST = "0-0"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream. `fields` is empty when it was deleted while pending."""

    id: str
    fields: Mapping[bytes, bytes]


def order(entry_id: str) -> tuple[int, int]:
    """Milliseconds of the server's clock, and the number within them."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def resume(position: str | None, last: str) -> str:
    """Where to go on reading, given the last id that the stream ever gave out. None means "from now on".

    A stream that has not come as far as we have lost its data and started over: so do we, from the oldest there is.
    """
    if position is None:
        return last
    return OLDEST if order(last) < order(position) else position


def entries(rows: Reply) -> list[Entry]:
    """`[[id, [field, value, ...]], ...]` as Redis says it."""
    return [Entry(row[0].decode(), dict(zip(*[iter(row[1] or ())] * 2, strict=True))) for row in rows or ()]


async def last_id(connection: Connection, key: str) -> str:
    """The last id that the stream gave out, deleted ones included; `0-0` when there is no such stream."""
    try:
        info = await connection.send("XINFO", "STREAM", key, timeout=READ_TIMEOUT)
    except ServerError as error:
        if "no such key" in error.message:
            return OLDEST
        raise
    return str(info[b"last-generated-id"].decode())


async def follow(dialer: Dialer, key: str, position: str | None) -> AsyncGenerator[Entry, None]:
    """Entries after `position`, or from now on. Connects again for ever; raises Unavailable when `dialer` is closed."""
    pause = Pause()
    while True:
        dialer.refuse_when_closed()
        try:
            connection = await dialer.open()
            try:
                while True:
                    # Asked whenever nothing came for a while, too: a stream may start over without a lost connection.
                    position = resume(position, await last_id(connection, key))
                    pause.reset()
                    while found := await _read(connection, key, position):
                        for entry in found:
                            position = entry.id
                            yield entry
            finally:
                connection.abort()
        except (Unavailable, OutcomeUnknown, ServerError) as error:
            log.info("reading %s: %s", key, error)
        await pause.sleep()


async def _read(connection: Connection, key: str, position: str) -> list[Entry]:
    reply = await connection.send(
        "XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS", key, position, timeout=READ_TIMEOUT
    )
    return entries(reply[key.encode()]) if reply else []

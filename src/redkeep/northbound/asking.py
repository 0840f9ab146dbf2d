"""The asking end of requests: hands them over, waits for the replies, takes back what nobody has begun."""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid

from redkeep.errors import OutcomeUnknown, RedkeepError, Unavailable
from redkeep.northbound.carriage import pack, unpack_answer
from redkeep.northbound.link import Dialer, Link, Pause
from redkeep.northbound.serving import GROUP, requests_key
from redkeep.northbound.streams import OLDEST, PREFIX, follow
from redkeep.northbound.wire import ServerError
from redkeep.ports import Body

log = logging.getLogger(__name__)

REQUESTS_KEPT = 100_000
WITHDRAW_TIMEOUT = 0.25
"""Seconds by which a request may outlast its timeout, to find out whether anybody had taken it."""

# 1 when the entry was still there, was never handed to a server, and is gone now: then it can never run.
_WITHDRAW = """
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local named = {}
  for i = 1, #group, 2 do named[group[i]] = group[i + 1] end
  if named['name'] == ARGV[1] then
    local last_ms, last_n = string.match(named['last-delivered-id'], '(%d+)-(%d+)')
    local ms, n = string.match(ARGV[2], '(%d+)-(%d+)')
    last_ms, last_n, ms, n = tonumber(last_ms), tonumber(last_n), tonumber(ms), tonumber(n)
    if ms < last_ms or (ms == last_ms and n <= last_n) then return 0 end
  end
end
return redis.call('XDEL', KEYS[1], ARGV[2])
"""


class Caller:
    """Asks, and sorts the replies out: one stream of replies and one reader for all that this process asks."""

    def __init__(self, dialer: Dialer, link: Link) -> None:
        self._dialer = dialer
        self._link = link
        self._replies = f"{PREFIX}replies:{uuid.uuid4().hex}"
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def request(self, to: str, body: Body, *, timeout: float) -> Body:
        """As `ports.Bus.request`; may take `WITHDRAW_TIMEOUT` seconds longer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        packed = pack(body)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_replies())
        number = b"%d" % next(self._numbers)
        self._waiting[number] = future = loop.create_future()
        try:
            entry_id = await self._hand_over(to, number, packed, deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await future
            except TimeoutError:
                raise await self._given_up(to, entry_id, timeout) from None
        finally:
            del self._waiting[number]
        return unpack_answer(answer)

    async def _hand_over(self, to: str, number: bytes, packed: str, deadline: float) -> bytes | None:
        """Write the request; return its entry's id, or None when it may have been written more than once.

        What may have been lost is written again, since requests are executed at least once anyway and their server
        does not run two of the same number side by side. Raises Unavailable when it was certainly not written.
        """
        pause = Pause()
        lost = False
        while not self._waiting[number].done() and (left := deadline - asyncio.get_running_loop().time()) > 0:
            try:
                entry_id = await self._write(to, number, packed, left)
            except OutcomeUnknown as error:
                log.info("a request to %s may be lost: %s", to, error)
                lost = True
            except Unavailable:
                if not lost:
                    raise
            else:
                return None if lost else entry_id
            await pause.sleep()
        return None

    async def _write(self, to: str, number: bytes, packed: str, left: float) -> bytes:
        deadline = asyncio.get_running_loop().time() + left
        try:
            connection = await self._link.connection(timeout=left)
            left = deadline - asyncio.get_running_loop().time()
            fields = ("id", number, "reply", self._replies, "ttl", max(1, int(left * 1000)), "body", packed)
            entry_id: bytes = await connection.send(
                "XADD", requests_key(to), "MAXLEN", "~", REQUESTS_KEPT, "*", *fields, timeout=left
            )
        except ServerError as error:
            raise Unavailable(f"the request to {to} was not taken: {error}") from error
        return entry_id

    async def _given_up(self, to: str, entry_id: bytes | None, timeout: float) -> RedkeepError:
        """What to raise: Unavailable when the request will certainly never run, OutcomeUnknown otherwise."""
        if entry_id is not None and await self._withdrawn(to, entry_id):
            return Unavailable(f"{to} did not take the request within {timeout} s; it was withdrawn")
        return OutcomeUnknown(f"no reply from {to} within {timeout} s")

    async def _withdrawn(self, to: str, entry_id: bytes) -> bool:
        try:
            return bool(
                await self._link.send("EVAL", _WITHDRAW, 1, requests_key(to), GROUP, entry_id, timeout=WITHDRAW_TIMEOUT)
            )
        except (Unavailable, OutcomeUnknown, ServerError) as error:
            log.info("withdrawing %r from %s: %s", entry_id, to, error)
            return False

    async def _read_replies(self) -> None:
        async for entry in follow(self._dialer, self._replies, OLDEST):
            future = self._waiting.get(entry.fields.get(b"id", b""))
            if future is not None and not future.done():
                future.set_result(entry.fields.get(b"answer", b""))

    async def close(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(OutcomeUnknown("this side closed before the reply came"))
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

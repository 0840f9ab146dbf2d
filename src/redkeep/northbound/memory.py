"""The bus within one process, for tests of those who use it: the same promises as `RedisBus`, and faults to order."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import partial

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound.carriage import answer_of, pack, unpack, unpack_answer
from redkeep.northbound.link import Bell
from redkeep.northbound.streams import OLDEST, order, resume
from redkeep.ports import Body, Handler, Message

KEPT = 10_000


@dataclass(slots=True, eq=False)
class _Request:
    body: str
    deadline: float
    answer: asyncio.Future[str]
    taken_by: str | None = None


@dataclass(slots=True)
class _Topic:
    entries: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    last: str = OLDEST


class MemoryExchange:
    """What the buses of one process share, in the place of a Redis. Tests break it by its public names."""

    def __init__(self) -> None:
        self._available = True
        self.lost_replies = 0
        """So many of the next replies get lost on their way."""
        self._topics: defaultdict[str, _Topic] = defaultdict(_Topic)
        self._requests: defaultdict[str, deque[_Request]] = defaultdict(deque)
        self._bell: Bell | None = None

    @property
    def available(self) -> bool:
        """While False nobody reaches it; what is in it stays."""
        return self._available

    @available.setter
    def available(self, available: bool) -> None:
        self._available = available
        self.bell.ring()

    def lose_messages(self, topic: str) -> None:
        """The log starts over, as that of a Redis which came back empty."""
        del self._topics[topic]
        self.bell.ring()

    def reach(self) -> None:
        """Raises Unavailable while the exchange is away."""
        if not self.available:
            raise Unavailable("the exchange is away")

    @property
    def bell(self) -> Bell:
        """Rings when anything changed."""
        if self._bell is None:  # not in the constructor: fixtures are made before there is a loop
            self._bell = Bell()
        return self._bell

    def append(self, topic: str, text: str) -> str:
        log_ = self._topics[topic]
        log_.last = f"{order(log_.last)[0] + 1}-0"
        log_.entries.append((log_.last, text))
        self.bell.ring()
        return log_.last

    def last(self, topic: str) -> str:
        return self._topics[topic].last

    def after(self, topic: str, position: str) -> list[tuple[str, str]]:
        return [entry for entry in self._topics[topic].entries if order(entry[0]) > order(position)]

    def hand_over(self, to: str, request: _Request) -> None:
        self._requests[to].append(request)
        self.bell.ring()

    def undone(self, name: str, consumer: str) -> list[_Request]:
        """What this consumer took and did not answer."""
        return [request for request in self._requests[name] if request.taken_by == consumer]

    def waiting(self, name: str) -> list[_Request]:
        return [request for request in self._requests[name] if request.taken_by is None]

    def remove(self, name: str, request: _Request) -> None:
        if request in self._requests[name]:
            self._requests[name].remove(request)


class MemoryBus:
    """One process' face of the exchange. To restart a server: cancel its `serve`, and serve again by the same name."""

    def __init__(self, exchange: MemoryExchange, *, name: str) -> None:
        self._exchange = exchange
        self._name = name
        self._closed = False
        self._asked: set[_Request] = set()

    async def publish(self, topic: str, body: Body) -> str:
        text = pack(body)
        await asyncio.sleep(0)
        self._reach()
        return self._exchange.append(topic, text)

    async def listen(self, topic: str, *, after: str | None = None) -> AsyncGenerator[Message, None]:
        position = after
        while True:
            self._refuse_when_closed()
            if self._exchange.available:
                position = resume(position, self._exchange.last(topic))
                while found := self._exchange.after(topic, position):
                    for entry_id, text in found:
                        position = entry_id
                        yield Message(entry_id, topic, unpack(text))
            await self._exchange.bell.wait()

    async def request(self, to: str, body: Body, *, timeout: float) -> Body:
        loop = asyncio.get_running_loop()
        request = _Request(pack(body), loop.time() + timeout, loop.create_future())
        self._reach()
        self._exchange.hand_over(to, request)
        self._asked.add(request)
        try:
            async with asyncio.timeout(timeout):
                answer = await request.answer
        except TimeoutError:
            if request.taken_by is None:
                self._exchange.remove(to, request)
                raise Unavailable(f"{to} did not take the request within {timeout} s; it was withdrawn") from None
            raise OutcomeUnknown(f"no reply from {to} within {timeout} s") from None
        finally:
            self._asked.discard(request)
        return unpack_answer(answer)

    async def serve(self, name: str, handler: Handler) -> None:
        running: dict[_Request, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while not self._closed:
                for request in self._due(name):
                    if request not in running:
                        request.taken_by = self._name
                        running[request] = task = tasks.create_task(self._execute(name, request, handler))
                        task.add_done_callback(partial(_forget, running, request))
                await self._exchange.bell.wait()
            for task in running.values():
                task.cancel()
        self._refuse_when_closed()

    def _due(self, name: str) -> list[_Request]:
        if not self._exchange.available:
            return []
        return [*self._exchange.undone(name, self._name), *self._exchange.waiting(name)]

    async def _execute(self, name: str, request: _Request, handler: Handler) -> None:
        if asyncio.get_running_loop().time() < request.deadline:
            self._reply(request, await answer_of(handler, unpack(request.body), f"a request to {name}"))
        self._exchange.remove(name, request)

    def _reply(self, request: _Request, answer: str) -> None:
        if self._exchange.lost_replies > 0:
            self._exchange.lost_replies -= 1
        elif not request.answer.done():
            request.answer.set_result(answer)

    async def close(self) -> None:
        self._closed = True
        for request in self._asked:
            if not request.answer.done():
                request.answer.set_exception(OutcomeUnknown("this side closed before the reply came"))
        self._exchange.bell.ring()

    def _reach(self) -> None:
        self._refuse_when_closed()
        self._exchange.reach()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Unavailable("this side has closed")


def _forget(running: dict[_Request, asyncio.Task[None]], request: _Request, _: asyncio.Task[None]) -> None:
    del running[request]

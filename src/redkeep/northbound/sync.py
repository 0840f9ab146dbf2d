"""The synchronous face: the same tables, publishers and subscribers, for threads.

    from redkeep.northbound.sync import Tables, connect

    with connect(["127.0.0.1:6379"]) as client:
        tables = Tables(client)
        tables.set_key("ports", "p1", "up")

Everything may be called from any thread. Handlers of a subscriber are called by its subscribe thread, one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from redkeep.decide.consistency import Health, Meta
from redkeep.decide.routing import Retry
from redkeep.model.slots import key_of, slot_of
from redkeep.model.topology import Address, Topology
from redkeep.northbound import availability, connecting, detector, keeping, mirror, publishing, subscribing, tables
from redkeep.northbound import client as asynchronous
from redkeep.northbound.blocking import BlockingDoor, LoopThread, finish
from redkeep.northbound.dispatching import Call, ThreadDispatcher
from redkeep.northbound.memory_client import MemoryClient
from redkeep.northbound.memory_tables import MemoryDoor
from redkeep.northbound.messages import Message
from redkeep.northbound.tables import Text, V
from redkeep.northbound.wire import Argument, Reply

T = TypeVar("T")


def connect(seeds: Iterable[Address | str], **options: Any) -> Client:
    """As `redkeep.northbound.connect`, with the same options. Raises as that does."""
    thread = LoopThread("redkeep-northbound")
    with ExitStack() as unless_connected:
        unless_connected.callback(thread.close)
        client = Client(thread.run(connecting.connect(seeds, **options)), thread)
        unless_connected.pop_all()
    return client


def connect_twin(door: MemoryDoor) -> Client:
    """A client of servers that are only in memory, for tests of applications."""
    thread = LoopThread("redkeep-northbound")

    async def make() -> asynchronous.Client:
        return MemoryClient(door)

    return Client(thread.run(make()), thread, door)


class Client:
    """Made by `connect`."""

    def __init__(self, inner: asynchronous.Client, thread: LoopThread, door: MemoryDoor | None = None) -> None:
        self.inner = inner
        """Lives on the loop of `thread`: to be used from there alone."""
        self.thread = thread
        self.door: BlockingDoor | MemoryDoor = door or BlockingDoor(inner, thread)

    @property
    def mode(self) -> str:
        """`single`, `replicated` or `cluster`."""
        return self.inner.mode

    @property
    def topology(self) -> Topology:
        return self.inner.topology

    def execute(self, *args: Argument, retry: Retry = "if_not_run", timeout: float = asynchronous.TIMEOUT) -> Reply:
        """As `northbound.Client.execute`."""
        asynchronous.refuse_if_not_shared(args)
        key = key_of(args)
        return finish(self.door.send(0 if key is None else slot_of(key), args, retry=retry, timeout=timeout))

    def close(self) -> None:
        self.door.close()
        self.thread.run(self.inner.close())
        self.thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Publisher:
    """As `northbound.Publisher`."""

    def __init__(self, client: Client, **options: Any) -> None:
        self._inner = publishing.Publisher(client.door, **options)

    def publish(self, channel: str, data: Any) -> str:
        return finish(self._inner.publish(channel, data))


class Subscriber:
    """As `northbound.Subscriber`; handlers are called by its subscribe thread, and may call its methods."""

    def __init__(self, client: Client, **options: Any) -> None:
        self._thread = client.thread
        self.inner = self._thread.run(_subscriber(client.inner, options))

    @property
    def depth(self) -> int:
        return self.inner.depth

    @property
    def channels(self) -> list[str]:
        return self.inner.channels

    @property
    def recoveries(self) -> int:
        return self.inner.recoveries

    def position(self, channel: str) -> str | None:
        return self.inner.position(channel)

    def subscribe(
        self, channel: str, handler: Call, *, after: str | None = None, timeout: float = asynchronous.TIMEOUT
    ) -> bool:
        return self._thread.run(self.inner.subscribe(channel, handler, after=after, timeout=timeout))

    def unsubscribe(self, channel: str) -> bool:
        return self._thread.run(self.inner.unsubscribe(channel))

    def close(self) -> None:
        self._thread.run(self.inner.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def _subscriber(client: asynchronous.Client, options: dict[str, Any]) -> subscribing.Subscriber:
    return subscribing.Subscriber(client, dispatcher=ThreadDispatcher, **options)


class _Service:
    """Runs on the event loop of its client from the beginning until it is closed. What it tells is told by a thread of
    its own, one call at a time: that may take its time, and may call anything here."""

    def __init__(self, client: Client, make: Callable[[ThreadDispatcher], Any]) -> None:
        self._thread = client.thread
        self.inner, self._dispatcher, self._task = self._thread.run(self._begin(make))

    async def _begin(self, make: Callable[[ThreadDispatcher], Any]) -> tuple[Any, ThreadDispatcher, asyncio.Task[None]]:
        dispatcher = ThreadDispatcher(lambda: None)
        inner = make(dispatcher)
        return inner, dispatcher, asyncio.create_task(inner.run())

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._dispatcher.close()

    def close(self) -> None:
        self._thread.run(self._end())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Detector(_Service):
    """As `northbound.Detector`, running."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, lambda _: detector.Detector(client.inner, **options))

    @property
    def generation(self) -> int:
        return int(self.inner.generation)


class Availability(_Service):
    """As `northbound.Availability`, running."""

    def __init__(self, client: Client, *, on_generation: Callable[[int], Any] | None = None, **options: Any) -> None:
        super().__init__(
            client,
            lambda dispatcher: availability.Availability(
                client.inner, on_generation=_told_by(dispatcher, on_generation), **options
            ),
        )

    @property
    def generation(self) -> int:
        return int(self.inner.generation)

    @property
    def reads(self) -> int:
        return int(self.inner.reads)


class Mirror:
    """As `northbound.Mirror`. `on_change` is called by the event loop's thread: it must be quick, and whatever of this
    client's it calls raises RuntimeError, since it would wait for itself. Put into a queue what takes longer."""

    def __init__(self, client: Client, **options: Any) -> None:
        self._thread = client.thread
        self.inner = mirror.Mirror(client.inner, **options)
        """Lives on the event loop: that alone changes it."""

    @property
    def owner(self) -> str:
        return self.inner.owner

    @property
    def channels(self) -> list[str]:
        return self.inner.channels

    def entries(self, table: str) -> dict[str, bytes]:
        return self._call(self.inner.entries, table)

    def metas(self, table: str) -> dict[str, Meta]:
        return self._call(self.inner.metas, table)

    def put(self, table: str, key: str, value: bytes) -> None:
        self._thread.run(self.inner.put(table, key, value))

    def drop(self, table: str, key: str) -> None:
        self._thread.run(self.inner.drop(table, key))

    def hear(self, message: Message) -> None:
        self._call(self.inner.hear, message)

    def load(self) -> mirror.Report:
        return self._thread.run(self.inner.load())

    def push(self) -> mirror.Report:
        return self._thread.run(self.inner.push())

    def pull(self, report: mirror.Report | None = None) -> mirror.Report:
        return self._thread.run(self.inner.pull(report))

    def _call(self, work: Callable[..., T], *args: Any) -> T:
        async def there() -> T:
            return work(*args)

        return self._thread.run(there())


class Keeper(_Service):
    """As `northbound.Keeper`, running. `on_clean` is given the generation and the report."""

    def __init__(
        self,
        client: Client,
        kept: Mirror,
        *,
        on_clean: Callable[[int, mirror.Report], Any] | None = None,
        **options: Any,
    ) -> None:
        def make(dispatcher: ThreadDispatcher) -> keeping.Keeper:
            told = _told_by(dispatcher, None if on_clean is None else lambda both: on_clean(*both))
            clean = None if told is None else lambda generation, report: told((generation, report))
            return keeping.Keeper(client.inner, kept.inner, on_clean=clean, **options)

        super().__init__(client, make)

    def hear(self, generation: int) -> None:
        self._thread.loop.call_soon_threadsafe(self.inner.hear, generation)

    @property
    def health(self) -> Health:
        found: Health = self.inner.health
        return found

    @property
    def resyncs(self) -> int:
        return int(self.inner.resyncs)


def _told_by(dispatcher: ThreadDispatcher, call: Call | None) -> Call | None:
    """For the event loop: have that called by the dispatcher's thread."""
    if call is None:
        return None

    def tell(subject: Any) -> None:
        dispatcher.queue.append((call, subject))
        dispatcher.wake()

    return tell


class BasicTables(Generic[V]):
    """Each method does, returns and raises what the one of the same name in `northbound.tables` does."""

    def __init__(self, inner: tables.BasicTables[V]) -> None:
        self._inner: tables.BasicTables[V] = inner

    def create_table(self, table: str) -> None:
        finish(self._inner.create_table(table))

    def delete_table(self, table: str) -> None:
        finish(self._inner.delete_table(table))

    def allocate_unique_key(self, table: str) -> int:
        return finish(self._inner.allocate_unique_key(table))

    def get_key(self, table: str, key: Text, topic: str | None = None) -> V:
        return finish(self._inner.get_key(table, key, topic))

    def set_key(self, table: str, key: Text, value: Text, topic: str | None = None) -> None:
        finish(self._inner.set_key(table, key, value, topic))

    def create_key(self, table: str, key: Text, value: Text, topic: str | None = None) -> None:
        finish(self._inner.create_key(table, key, value, topic))

    def delete_key(self, table: str, key: Text, topic: str | None = None) -> None:
        finish(self._inner.delete_key(table, key, topic))

    def set_keys(self, table: str, values: Mapping[Text, Text], topic: str | None = None) -> None:
        finish(self._inner.set_keys(table, values, topic))

    def get_keys(self, table: str, keys: Iterable[Text], topic: str | None = None) -> list[V | None]:
        return finish(self._inner.get_keys(table, keys, topic))

    def get_all_keys(self, table: str, topic: str | None = None) -> list[str]:
        return finish(self._inner.get_all_keys(table, topic))

    def get_all_entries(self, table: str, topic: str | None = None) -> list[V]:
        return finish(self._inner.get_all_entries(table, topic))

    def get_all(self, table: str, topic: str | None = None) -> dict[str, V]:
        return finish(self._inner.get_all(table, topic))

    def iterate(self, table: str, topic: str | None = None) -> Iterator[tuple[str, V]]:
        pages = self._inner.iterate(table, topic)
        while True:
            try:
                yield finish(pages.__anext__())
            except StopAsyncIteration:
                return


class Tables(BasicTables[str]):
    """Values as text."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(tables.Tables(client.door, **options))


class RawTables(BasicTables[bytes]):
    """Values as bytes."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(tables.RawTables(client.door, **options))

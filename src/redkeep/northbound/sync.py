"""The synchronous face: the same tables, publishers and subscribers, for threads.

    from redkeep.northbound.sync import Tables, connect

    with connect(["127.0.0.1:6379"]) as client:
        tables = Tables(client)
        tables.set_key("ports", "p1", "up")

Everything may be called from any thread. Handlers of a subscriber are called by its subscribe thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self

from redkeep.decide.routing import Retry
from redkeep.model.slots import key_of, slot_of
from redkeep.model.topology import Address, Topology
from redkeep.northbound import client as asynchronous
from redkeep.northbound import connecting, publishing, subscribing, tables
from redkeep.northbound.blocking import BlockingDoor, LoopThread, finish
from redkeep.northbound.dispatching import Call, ThreadDispatcher
from redkeep.northbound.memory_client import MemoryClient
from redkeep.northbound.memory_tables import MemoryDoor
from redkeep.northbound.tables import Text, V
from redkeep.northbound.wire import Argument, Reply


def connect(seeds: Iterable[Address | str], **options: Any) -> Client:
    """As `redkeep.northbound.connect`, with the same options. Raises as that does."""
    thread = LoopThread("redkeep-northbound")
    try:
        return Client(thread.run(connecting.connect(seeds, **options)), thread)
    except BaseException:
        thread.close()
        raise


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

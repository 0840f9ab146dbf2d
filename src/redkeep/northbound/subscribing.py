"""Subscribing: channels to handlers, over connections that are spread over the servers.

What is promised: a handler gets the messages of its channel in order, each at least once, as long as its subscription
stands. When a connection is lost all subscriptions are cleared; when there is one again the subscriber is told once
that it is `recovered` and must subscribe again, giving the id of the last message that it saw. Then what it missed
comes from the log. Only if the log no longer has it is it told to `resynchronise` that channel.

When handlers are slow, the queue fills up to its limit. Further messages of a channel are then left in its log, and
fetched from there when half of the queue is free: nobody is blocked, and nothing is lost but what the log has dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from redkeep.decide.catching_up import BEGINNING, is_whole, order
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.client import TIMEOUT, Client
from redkeep.northbound.dispatching import Call, Dispatcher, TaskDispatcher
from redkeep.northbound.ears import Ear, Ears
from redkeep.northbound.link import Pause
from redkeep.northbound.messages import live, logged
from redkeep.northbound.places import Feed, feed_of
from redkeep.northbound.tables import KEPT
from redkeep.northbound.wire import Reply, ServerError

log = logging.getLogger(__name__)

LIMIT = 10_000
"""Messages that wait for their handlers, at most."""
PAGE = 256


@dataclass(frozen=True, slots=True)
class Notice:
    """What a subscriber is told beside messages."""

    kind: Literal["recovered", "resynchronise"]
    channel: str | None = None
    """Of which the messages are incomplete; None for `recovered`: subscribe again to all."""


@dataclass(slots=True, eq=False)
class _Subscription:
    feed: Feed
    handler: Call
    ear: Ear
    last: str = ""
    """Id of the last message that was queued."""
    floor: tuple[int, int] | None = None
    """Live messages up to here were queued from the log already."""
    behind: str | None = None
    """While set, live messages are left in the log; the id of the last one that was."""
    catching_up: bool = False


class Subscriber:
    """Who hears. Its methods may be called from handlers."""

    def __init__(
        self,
        client: Client,
        *,
        on_notice: Callable[[Notice], Any] | None = None,
        limit: int = LIMIT,
        kept: int = KEPT,
        dispatcher: Callable[[Callable[[], None]], Dispatcher] = TaskDispatcher,
    ) -> None:
        """`kept` is what the publishers say. `on_notice` is called like a handler, in the order of the messages."""
        self._client = client
        self._on_notice = on_notice
        self._limit = limit
        self._kept = kept
        self._ears = Ears(client, on_push=self._hear, on_lost=self._lost)
        self._subscriptions: dict[bytes, _Subscription] = {}
        self._positions: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovering = False
        self._closed = False
        self.left_in_log = 0
        """Live messages that found the queue full."""
        self.recoveries = 0
        self._dispatcher = dispatcher(self._drained)
        self._queue = self._dispatcher.queue

    # --- for applications --------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Messages that wait for their handlers."""
        return len(self._queue)

    @property
    def channels(self) -> list[str]:
        """Subscribed to at this moment."""
        return [one.feed.channel for one in self._subscriptions.values()]

    def position(self, channel: str) -> str | None:
        """The id of the last message queued for a handler of that channel, also after the subscription was cleared."""
        subscription = self._subscriptions.get(feed_of(channel).live)
        return (subscription.last if subscription else "") or self._positions.get(channel)

    async def subscribe(
        self, channel: str, handler: Call, *, after: str | None = None, timeout: float = TIMEOUT
    ) -> bool:
        """Have `handler` called with each Message, from now on or after that id. False if it was subscribed before.

        Raises Unavailable when it did not come about in `timeout` seconds, ServerError when it is not allowed.
        """
        feed = feed_of(channel)
        known = self._subscriptions.get(feed.live)
        if known is not None:
            known.handler = handler
            return False
        deadline = asyncio.get_running_loop().time() + timeout
        ear = await self._ears.subscribe(feed, deadline)
        if self._closed:
            raise Unavailable("the subscriber is closed")
        subscription = _Subscription(feed, handler, ear)
        self._subscriptions[feed.live] = subscription
        if after is not None:
            subscription.last, subscription.behind = after, ""
            self._begin(self._catch_up(subscription))
        elif channel not in self._positions:
            self._begin(self._find_position(subscription))
        if not ear.alive:  # meanwhile
            self._lost(ear)
        return True

    async def unsubscribe(self, channel: str) -> bool:
        """What is queued is still handled. False if it was not subscribed."""
        subscription = self._subscriptions.pop(feed_of(channel).live, None)
        if subscription is None:
            return False
        self._positions.pop(channel, None)
        self._ears.unsubscribe(subscription.feed, subscription.ear)
        return True

    async def close(self) -> None:
        self._closed = True
        self._subscriptions.clear()
        self._ears.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._dispatcher.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # --- hearing -----------------------------------------------------------------------------------------------------

    def _hear(self, ear: Ear, push: Sequence[Any]) -> None:
        subscription, queue = self._subscriptions.get(push[1]), self._queue
        if subscription is None:
            return
        if push[0] == b"sunsubscribe":  # unasked: the slot moved, or its primary was demoted
            self._lost(ear)
            return
        try:
            message = live(subscription.feed.channel, push[2])
        except ValueError as error:
            log.warning("%s", error)
            return
        if subscription.behind is not None or len(queue) >= self._limit:
            subscription.behind = message.id
            self.left_in_log += 1
            return
        if subscription.floor is not None:
            if order(message.id) <= subscription.floor:
                return
            subscription.floor = None
        subscription.last = message.id
        queue.append((subscription.handler, message))
        if len(queue) == 1:  # else it is awake
            self._dispatcher.wake()

    def _say(self, notice: Notice) -> None:
        if self._on_notice is None:
            log.warning("nobody handles %s", notice)
        else:
            self._queue.append((self._on_notice, notice))
            self._dispatcher.wake()

    def _drained(self) -> None:
        """The dispatcher has made room."""
        if len(self._queue) > self._limit // 2:
            return
        for subscription in self._subscriptions.values():
            if subscription.behind and not subscription.catching_up:
                self._begin(self._catch_up(subscription))

    # --- the log -----------------------------------------------------------------------------------------------------

    async def _catch_up(self, subscription: _Subscription) -> None:
        """Queue from the log what came after `last`, until all that was passed over is queued, or the queue is full."""
        subscription.catching_up = True
        pause = Pause()
        try:
            while self._stands(subscription):
                try:
                    await self._check(subscription)
                    while self._stands(subscription) and not await self._take_page(subscription):
                        pause.reset()
                    return
                except (Unavailable, OutcomeUnknown, ServerError) as error:
                    log.info("catching up %s: %s", subscription.feed.channel, error)
                await pause.sleep()
        finally:
            subscription.catching_up = False

    async def _take_page(self, subscription: _Subscription) -> bool:
        """Queue one page; whether that is all for now."""
        entries = await self._read(subscription.feed, f"({subscription.last or BEGINNING}")
        if not self._stands(subscription):
            return True
        for id_, fields in entries:
            message = logged(subscription.feed.channel, id_, fields[1])
            subscription.last = message.id
            self._queue.append((subscription.handler, message))
        self._dispatcher.wake()
        reached = order(subscription.last or BEGINNING)
        if len(entries) < PAGE and reached >= order(subscription.behind or BEGINNING):
            subscription.floor, subscription.behind = reached, None
            return True
        if len(self._queue) >= self._limit:
            subscription.behind = subscription.behind or subscription.last
            return True
        return False

    async def _check(self, subscription: _Subscription) -> None:
        """Tell of a gap, and go on at the end of the log, if the log no longer holds all since the last one seen."""
        feed, after = subscription.feed, subscription.last or BEGINNING
        first = await self._read(feed, after, count=1)
        length = await self._client.send(feed.slot, ("XLEN", feed.log), retry="always")
        last = await self._last(feed)
        seen = first[0][0].decode() if first else None
        if not is_whole(after, first=seen, last=last, length=length, kept=self._kept):
            subscription.last = last
            self._say(Notice("resynchronise", feed.channel))

    async def _find_position(self, subscription: _Subscription) -> None:
        """From where to catch up if the connection is lost before the first message."""
        with contextlib.suppress(Unavailable, OutcomeUnknown, ServerError):
            last = await self._last(subscription.feed)
            subscription.last = subscription.last or last

    async def _read(self, feed: Feed, start: str, *, count: int = PAGE) -> list[Reply]:
        found = await self._client.send(
            feed.slot, ("XRANGE", feed.log, start, "+", "COUNT", count), retry="always", timeout=TIMEOUT
        )
        return list(found)

    async def _last(self, feed: Feed) -> str:
        found = await self._client.send(feed.slot, ("XREVRANGE", feed.log, "+", "-", "COUNT", 1), retry="always")
        return found[0][0].decode() if found else BEGINNING

    def _stands(self, subscription: _Subscription) -> bool:
        return self._subscriptions.get(subscription.feed.live) is subscription

    # --- losing and finding a connection -----------------------------------------------------------------------------

    def _lost(self, ear: Ear) -> None:
        """Clear all subscriptions, reconnect, tell once."""
        if self._closed or not any(one.ear is ear for one in self._subscriptions.values()):
            self._ears.drop(ear)
            return
        feeds = [one.feed for one in self._subscriptions.values()]
        self._positions |= {one.feed.channel: one.last for one in self._subscriptions.values() if one.last}
        self._subscriptions.clear()
        self._ears.drop_all(ear)
        if not self._recovering:
            self._recovering = True
            self._begin(self._recover(feeds, ear.address))

    async def _recover(self, feeds: Sequence[Feed], failed: Address) -> None:
        """Until those who were lost can be subscribed to again. At once on another node, then with growing pauses."""
        pause = Pause(longest=0.5)
        try:
            while True:
                try:
                    for feed in feeds:
                        await self._ears.open_for(feed, avoid=failed)
                    break
                except (Unavailable, OutcomeUnknown, ServerError) as error:
                    log.info("hearing again: %s", error)
                    self._client.doubt(f"subscribers lost {failed}")
                await pause.sleep()
        finally:
            self._recovering = False
        self.recoveries += 1
        self._say(Notice("recovered"))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

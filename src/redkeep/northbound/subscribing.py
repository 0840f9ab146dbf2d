"""Subscribing: channels to handlers, over connections that are spread over the servers.

What is promised: a handler gets the messages of its channel in order, each at least once, as long as its subscription
stands. When a connection is lost all subscriptions are cleared; when there is one again the subscriber is told once
that it is `recovered` and must subscribe again, giving the id of the last message that it saw. Then what it missed
comes from the log. Only if the log no longer has it is it told to `resynchronise` that channel.

A connection that lives is no proof that everything comes over it: the bus of a cluster drops what it cannot deliver at
that moment, and a replica that synchronises in full is not told what it was spared. So each message names the one
before it: who has not seen that fetches what is between from the log. And where messages travel through others, a
channel that is quiet is compared with the end of its log, soon after the last message and at the least every five
seconds.

When handlers are slow, the queue fills up to its limit. Further messages of a channel are then left in its log, and
fetched from there when half of the queue is free: nobody is blocked, and nothing is lost but what the log has dropped.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
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
TICK = 0.5
"""Seconds between looks at which channels are due to be compared with their logs."""
FIRST_CHECK = 1.0
LAST_CHECK = 5.0
"""Seconds of quiet after which a channel is compared, doubling from the first to the last."""


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
    last: str
    """Id of the last message that was queued, or that there was before the subscription."""
    floor: tuple[int, int] | None = None
    """Live messages up to here were queued from the log already."""
    behind: str | None = ""
    """While set, live messages are left in the log; the id of the last one that was."""
    catching_up: bool = False
    checked: str = ""
    """What `last` was when it was last looked whether the channel is quiet."""
    due: float = math.inf
    """Loop time at which a quiet channel is compared with its log."""
    quiet: Pause = field(default_factory=lambda: Pause(FIRST_CHECK, LAST_CHECK))


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
        self._ears: Ears = (client.hearing or Ears)(client, on_push=self._hear, on_lost=self._lost)
        self._subscriptions: dict[bytes, _Subscription] = {}
        self._positions: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovering = False
        self._closed = False
        self.left_in_log = 0
        """Live messages that found the queue full."""
        self.gaps = 0
        """How often messages did not come over a connection that lives, and were fetched from the log."""
        self.recoveries = 0
        self._dispatcher = dispatcher(self._drained)
        self._queue = self._dispatcher.queue
        self._begin(self._compare_the_quiet())

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

        Where "now" is gets settled by the log before the connection hears: so what is published while it is only about
        to hear is fetched. Raises Unavailable when it did not come about in `timeout` seconds, ServerError when it is
        not allowed.
        """
        feed = feed_of(channel)
        known = self._subscriptions.get(feed.live)
        if known is not None:
            known.handler = handler
            return False
        deadline = asyncio.get_running_loop().time() + timeout
        start = await self._last_told(feed, timeout) if after is None else after
        ear = await self._ears.subscribe(feed, deadline)
        if self._closed:
            raise Unavailable("the subscriber is closed")
        self._subscriptions[feed.live] = subscription = _Subscription(feed, handler, ear, start)
        self._fetch(subscription, check=after is not None)
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
            self.left_in_log += len(queue) >= self._limit
            return
        if subscription.floor is not None:
            if order(message.id) <= subscription.floor:
                return
            subscription.floor = None
        if message.after is not None and message.after != subscription.last:
            self._miss(subscription, message.id)
            return
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
            if subscription.behind:
                self._fetch(subscription)

    # --- the log -----------------------------------------------------------------------------------------------------

    def _miss(self, subscription: _Subscription, up_to: str) -> None:
        """Something did not come, up to that id: have it fetched."""
        self.gaps += 1
        subscription.behind = up_to
        self._fetch(subscription)

    def _fetch(self, subscription: _Subscription, *, check: bool = True) -> None:
        """One at a time: two would queue everything twice."""
        if not subscription.catching_up:
            subscription.catching_up = True
            self._begin(self._catch_up(subscription, check=check))

    async def _catch_up(self, subscription: _Subscription, *, check: bool) -> None:
        """Queue from the log what came after `last`, until all that was passed over is queued, or the queue is full."""
        pause = Pause()
        try:
            while self._stands(subscription):
                try:
                    if check:
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
        told = subscription.behind
        entries = await self._read(subscription.feed, f"({subscription.last or BEGINNING}")
        if not self._stands(subscription):
            return True
        for id_, fields in entries:
            message = logged(subscription.feed.channel, id_, fields[1])
            subscription.last = message.id
            self._queue.append((subscription.handler, message))
        self._dispatcher.wake()
        left = order(subscription.behind or BEGINNING)
        if len(entries) < PAGE and (subscription.behind == told or order(subscription.last or BEGINNING) >= left):
            self._at_the_end(subscription, left)
            return True
        if len(self._queue) >= self._limit:
            subscription.behind = subscription.behind or subscription.last
            return True
        return False

    def _at_the_end(self, subscription: _Subscription, told: tuple[int, int]) -> None:
        """All that the log has is queued. It was written before it was told: if it ends before what was, a failover has
        taken the end of it."""
        reached = order(subscription.last or BEGINNING)
        subscription.floor, subscription.behind = max(reached, told), None
        if reached < told:
            self._say(Notice("resynchronise", subscription.feed.channel))

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

    async def _last_told(self, feed: Feed, timeout: float) -> str:
        """The id of the last message at this moment. Raises Unavailable or ServerError."""
        try:
            found = await self._client.send(feed.slot, ("GET", feed.last), retry="always", timeout=timeout)
        except OutcomeUnknown as error:
            raise Unavailable(f"not subscribed to {feed.channel}: {error}") from error
        return found.decode() if found else BEGINNING

    async def _compare_the_quiet(self) -> None:
        """Where messages come through other servers than the one that was told, silence proves nothing."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            if self._client.mode == "single":
                continue
            now, due = loop.time(), list[_Subscription]()
            for one in self._subscriptions.values():
                if self._client.sharded and one.ear.address == self._client.owner(one.feed.slot):
                    continue  # it hears where it is told
                if one.checked != one.last:
                    one.quiet.reset()
                    one.checked, one.due = one.last, now + one.quiet.take()
                elif one.due <= now and one.behind is None:
                    one.due = now + one.quiet.take()
                    due.append(one)
            await asyncio.gather(*map(self._compare, due))

    async def _compare(self, subscription: _Subscription) -> None:
        """Fetch what did not come. Whether it was lost, or is only about to come, makes no difference."""
        try:
            last = await self._last_told(subscription.feed, TIMEOUT)
        except (Unavailable, ServerError) as error:
            log.debug("%s is not compared: %s", subscription.feed.channel, error)
            return
        if self._stands(subscription) and subscription.behind is None and order(last) > order(subscription.last):
            self._miss(subscription, last)

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

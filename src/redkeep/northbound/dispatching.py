"""The one who calls the handlers: a task, or a thread. One message after the other, in the order of their coming."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from inspect import isawaitable
from types import TracebackType
from typing import Any, Protocol

log = logging.getLogger(__name__)

Call = Callable[[Any], Any]
TURN = 128
"""Calls after which a dispatching task lets others have their turn."""


class _supervised:  # noqa: N801 (reads as a statement; a generator would cost each message twice as much)
    """The supervisor of handlers: what an application's handler raises is logged, and ends no other's turn."""

    __slots__ = ("_subject",)

    def __init__(self, subject: Any) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            log.error("a handler of %r failed", self._subject, exc_info=error)
            return True
        return False


class Dispatcher(Protocol):
    """`put` and `depth` are for the event loop's thread."""

    queue: deque[tuple[Call, Any]]

    def wake(self) -> None:
        """Something is in the queue."""
        ...

    async def close(self) -> None:
        """Stop after the call that is under way."""
        ...


class TaskDispatcher:
    """For asynchronous applications: a handler may be a function or a coroutine function."""

    def __init__(self, on_drained: Callable[[], None]) -> None:
        self.queue: deque[tuple[Call, Any]] = deque()
        self._on_drained = on_drained
        self._awake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="northbound dispatch")

    def wake(self) -> None:
        self._awake.set()

    async def _run(self) -> None:
        queue, turn = self.queue, 0
        while True:
            while queue:
                call, subject = queue.popleft()
                with _supervised(subject):
                    answer = call(subject)
                    if answer is not None and isawaitable(answer):
                        await answer
                turn += 1
                if turn % TURN == 0:
                    self._on_drained()
                    await asyncio.sleep(0)
            self._on_drained()
            self._awake.clear()
            await self._awake.wait()

    async def close(self) -> None:
        self._task.cancel()
        if self._task is not asyncio.current_task():
            await asyncio.wait([self._task])


class ThreadDispatcher:
    """The subscribe thread: handlers may take their time, the event loop goes on."""

    def __init__(self, on_drained: Callable[[], None]) -> None:
        self.queue: deque[tuple[Call, Any]] = deque()
        loop = asyncio.get_running_loop()
        self._loop, self._drained = loop, on_drained
        self._awake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="redkeep-subscribe", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        if not self._awake.is_set():
            self._awake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._awake.wait()
            self._awake.clear()
            done = 0
            while self.queue and not self._stopped:
                call, subject = self.queue.popleft()
                done += 1
                with _supervised(subject):
                    call(subject)
                if done % TURN == 0:
                    self._loop.call_soon_threadsafe(self._drained)
            if done and not self._stopped:
                self._loop.call_soon_threadsafe(self._drained)

    async def close(self) -> None:
        self._stopped = True
        self._awake.set()
        if threading.current_thread() is not self._thread:
            await asyncio.to_thread(self._thread.join)

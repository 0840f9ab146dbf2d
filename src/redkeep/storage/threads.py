"""Blocking work in threads of its own, which stops when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from redkeep.ports import Report

Result = TypeVar("Result")

_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="storage")
"""Not asyncio's own, which other work of the process waits for: a transfer may take hours."""


class Stopped(Exception):
    """Raised inside of the work, from its report, when nobody waits for it any more."""


async def in_thread(work: Callable[[Report], Result], report: Report) -> Result:
    """Run the work, which calls its argument with the bytes done so far. Cancelled, it ends before this does."""
    stop = threading.Event()

    def tell(count: int) -> None:
        if stop.is_set():
            raise Stopped
        report(count)

    running = asyncio.get_running_loop().run_in_executor(_THREADS, partial(work, tell))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({running})
        running.exception()
        raise


def silent(_: int) -> None:
    """For work that nobody watches."""

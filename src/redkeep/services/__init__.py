"""What each service opens, and how it is told to stop. A module per service: a process loads what it runs, no more."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redkeep.bootstrap import control_password
from redkeep.config import Config, Northbound
from redkeep.model.topology import Address
from redkeep.northbound.bus import RedisBus
from redkeep.northbound.detector import keep_detecting
from redkeep.vault import Vault

log = logging.getLogger(__name__)


def on_stop(act: Callable[[], object]) -> None:
    """Call this at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)


@asynccontextmanager
async def open_bus(config: Config, vault: Vault, name: str) -> AsyncIterator[RedisBus]:
    """The northbound, under this name."""
    found = _northbound(config, vault)
    bus = RedisBus(found.address, username=found.username, password=found.password, name=name)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def detecting(config: Config, vault: Vault, name: str) -> AsyncIterator[None]:
    """Look at the topology of the northbound and tell all who use it, unless another of us does: one leads."""
    found = _northbound(config, vault)
    task = asyncio.create_task(
        keep_detecting([found.address], name=name, username=found.username, password=found.password), name="detector"
    )
    task.add_done_callback(_report)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _report(task: asyncio.Task[None]) -> None:
    """A detector that ends by itself is a bug, and no reason for a manager to end."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the northbound is no longer looked at", exc_info=error)


def _northbound(config: Config, vault: Vault) -> Northbound:
    if config.northbound is not None:
        return config.northbound
    return Northbound(Address("127.0.0.1", config.northbound_port), None, control_password(config, vault))

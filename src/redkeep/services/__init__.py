"""What each service opens, and how it is told to stop. A module per service: a process loads what it runs, no more."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redkeep.bootstrap import control_password
from redkeep.config import Config
from redkeep.model.topology import Address
from redkeep.northbound.bus import RedisBus
from redkeep.vault import Vault


def on_stop(act: Callable[[], object]) -> None:
    """Call this at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)


@asynccontextmanager
async def open_bus(config: Config, vault: Vault, name: str) -> AsyncIterator[RedisBus]:
    """The northbound, under this name."""
    if config.northbound is not None:
        address, user, password = config.northbound.address, config.northbound.username, config.northbound.password
    else:
        address, user, password = Address("127.0.0.1", config.northbound_port), None, control_password(config, vault)
    bus = RedisBus(address, username=user, password=password, name=name)
    try:
        yield bus
    finally:
        await bus.close()

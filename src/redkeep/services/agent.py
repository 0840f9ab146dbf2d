"""The agent of a host as a process."""

from __future__ import annotations

import asyncio
import logging

from redkeep.agent.service import Agent
from redkeep.config import Config
from redkeep.errors import Refused
from redkeep.services import on_stop, open_bus
from redkeep.storage import open_storage
from redkeep.vault import Vault

log = logging.getLogger(__name__)


async def run(config: Config) -> None:
    """Own this host's servers until SIGTERM; they go on after it. Raises Refused when there is no redis-server."""
    if not config.agent.programs:
        raise Refused("there is no redis-server 6.2 or newer on this machine: `redkeep doctor` says how to get one")
    vault = Vault.open(config.key_file, create=False)
    async with open_bus(config, vault, f"agent-{config.agent.host_id}") as bus:
        agent = Agent(config.agent, bus, vault, open_storage(config.backup))
        task = asyncio.ensure_future(agent.run())
        on_stop(task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log.info("agent stops; its servers go on")
        finally:
            await agent.close()

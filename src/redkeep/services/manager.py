"""A manager as a process."""

from __future__ import annotations

from redkeep.backends.loading import load_driver
from redkeep.config import Config
from redkeep.manager.membership import Membership
from redkeep.manager.service import Manager
from redkeep.operations.context import Tools
from redkeep.orders import BusAgents
from redkeep.services import detecting, on_stop, open_bus
from redkeep.store.sql import open_store
from redkeep.vault import Vault


async def run(config: Config) -> None:
    """Look, decide and act until SIGTERM; what is being worked on may finish first.

    Raises Refused when the backend's driver is not there, or not one that it may start with.
    """
    vault = Vault.open(config.key_file, create=False)
    async with open_bus(config, vault, f"manager-{config.manager.name}") as bus:
        store = await open_store(config.store_url)
        try:
            tools = Tools(
                store=store,
                agents=BusAgents(bus),
                bus=bus,
                flavors=config.manager.flavors,
                backend=config.backend,
                word_seconds=config.manager.word_seconds,
                roll_patience=config.manager.roll_patience,
                host_lost=config.manager.host_lost,
            )
            driver = load_driver(config.backend.driver)
            membership = Membership(config.manager, store, bus, tools.agents, driver)
            manager = Manager(config.manager, tools, membership)
            on_stop(manager.stop)
            async with detecting(config, vault, config.manager.name):
                await manager.run()
        finally:
            await store.close()

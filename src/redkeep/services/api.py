"""The REST API as a process."""

from __future__ import annotations

import uvicorn

from redkeep.api.app import create_app
from redkeep.config import Config
from redkeep.services import open_bus
from redkeep.store.sql import open_store
from redkeep.vault import Vault

GRACE = 5
"""Seconds that requests under way get to finish."""


async def run(config: Config) -> None:
    """Serve until SIGTERM."""
    vault = Vault.open(config.key_file, create=False)
    async with open_bus(config, vault, "api") as bus:
        store = await open_store(config.store_url)
        try:
            server = uvicorn.Server(
                uvicorn.Config(
                    create_app(config.api, store, bus, vault),
                    host=config.listen.host,
                    port=config.listen.port,
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    timeout_graceful_shutdown=GRACE,
                )
            )
            await server.serve()
        finally:
            await store.close()

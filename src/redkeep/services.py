"""One service per process: opens what it stands on, runs it until SIGTERM, closes in order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn

from redkeep.agent.service import Agent
from redkeep.api.app import create_app
from redkeep.bootstrap import control_password
from redkeep.config import Config
from redkeep.errors import Refused
from redkeep.manager.service import Manager
from redkeep.model.topology import Address
from redkeep.northbound.bus import RedisBus
from redkeep.operations.context import Tools
from redkeep.orders import BusAgents
from redkeep.ports import Store
from redkeep.store.sql import open_store
from redkeep.vault import Vault

log = logging.getLogger(__name__)


async def run_api(config: Config) -> None:
    """The REST API."""
    vault = Vault.open(config.key_file)
    async with _bus(config, vault, "api") as bus, _store(config) as store:
        app = create_app(config.api, store, bus, vault)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=config.listen.host,
                port=config.listen.port,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=5,
            )
        )
        await server.serve()


async def run_manager(config: Config) -> None:
    """A manager."""
    vault = Vault.open(config.key_file)
    name = config.manager.name
    async with _bus(config, vault, f"manager-{name}") as bus, _store(config) as store:
        tools = Tools(
            store=store,
            agents=BusAgents(bus),
            bus=bus,
            flavors=config.manager.flavors,
            word_seconds=config.manager.word_seconds,
        )
        manager = Manager(config.manager, tools)
        _on_stop(manager.stop)
        await manager.run()


async def run_agent(config: Config) -> None:
    """The agent of this host."""
    if not config.agent.programs:
        raise Refused("there is no redis-server 6.2 or newer on this machine: `redkeep doctor` says how to get one")
    vault = Vault.open(config.key_file)
    async with _bus(config, vault, f"agent-{config.agent.host_id}") as bus:
        agent = Agent(config.agent, bus, vault)
        task = asyncio.ensure_future(agent.run())
        _on_stop(task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log.info("agent stops; its servers go on")
        finally:
            await agent.close()


def _on_stop(act: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)


@asynccontextmanager
async def _bus(config: Config, vault: Vault, name: str) -> AsyncIterator[RedisBus]:
    if config.northbound is not None:
        address, user, password = config.northbound.address, config.northbound.username, config.northbound.password
    else:
        address, user, password = Address("127.0.0.1", config.northbound_port), None, control_password(config, vault)
    bus = RedisBus(address, username=user, password=password, name=name)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Store]:
    store = await open_store(config.store_url)
    try:
        yield store
    finally:
        await store.close()

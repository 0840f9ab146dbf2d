"""Replicas that attach: one data set for all of them, and settings that are put back whoever dies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from redkeep.model.instance import Instance
from redkeep.model.orders import AwaitReplicas
from redkeep.orders import BusAgents
from redkeep.redis.admin import Admin
from redkeep.redis.versions import find_servers
from redkeep.testing.stack import Part, Stack, stack

pytestmark = pytest.mark.real

SYNC = ("repl-diskless-sync-delay", "repl-diskless-sync-max-replicas", "rdbcompression")


@asynccontextmanager
async def a_primary(version: str) -> AsyncIterator[tuple[Stack, Instance, Part]]:
    async with stack() as found:
        agent = await found.start_agent()
        await found.start_manager()
        await found.create(version=version)
        yield found, (await found.rows())[0], agent


async def settings(found: Stack, instance: Instance) -> dict[str, str]:
    assert instance.address is not None
    admin = Admin(instance.address, found.vault.unseal((await found.group(instance.group_id)).secrets.admin))
    try:
        answers = await admin.run(*(("CONFIG", "GET", name) for name in SYNC))
    finally:
        await admin.close()
    return {name: value for answer in answers for name, value in pairs(answer)}


def pairs(answer: dict[str, str] | list[str]) -> list[tuple[str, str]]:
    return list(answer.items()) if isinstance(answer, dict) else list(zip(answer[::2], answer[1::2], strict=True))


async def hurry(found: Stack, instance: Instance, *, patience: float) -> None:
    bus = found.bus("test")
    epoch = (await found.group(instance.group_id)).epoch
    await BusAgents(bus).tell("host-1", AwaitReplicas(instance.id, instance.group_id, epoch, 2, patience))
    await bus.close()


@pytest.mark.parametrize("version", find_servers())
async def test_replicas_that_are_made_together_share_one_data_set_and_settings_are_as_before(version: str) -> None:
    async with a_primary(version) as (found, primary, _):
        before = await settings(found, primary)

        body = {"name": "replica", "replica_of": primary.id, "replica_count": 3}
        await found.call("POST", "/instances", {"instance": body})
        for one in await found.rows():
            await found.until(one.id, "ACTIVE")

        log = (found.directory / "host-1" / primary.id / "redis.log").read_text()
        assert log.count("Starting BGSAVE for SYNC") == 1
        assert await settings(found, primary) == before


@pytest.mark.parametrize("version", find_servers())
async def test_when_nobody_says_it_again_a_primary_stops_waiting_for_replicas(version: str) -> None:
    async with a_primary(version) as (found, primary, _):
        before = await settings(found, primary)

        await hurry(found, primary, patience=0.5)

        assert (await settings(found, primary))["rdbcompression"] == "no"

        async def as_before() -> bool:
            return await settings(found, primary) == before

        await found.eventually(as_before, 10, what="the settings of before")


async def test_an_agent_that_takes_over_puts_back_what_the_one_before_it_had_changed() -> None:
    async with a_primary(next(iter(find_servers()))) as (found, primary, agent):
        before = await settings(found, primary)
        await hurry(found, primary, patience=600)
        await agent.kill()
        assert await settings(found, primary) != before

        await found.start_agent()

        async def as_before() -> bool:
            return await settings(found, primary) == before

        await found.eventually(as_before, 10, what="the settings of before")

"""What each durability promises, on real servers through the driver."""

from __future__ import annotations

import asyncio
import signal

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redkeep.decide.durability import MAX_LAG_SECONDS
from redkeep.decide.liveness import Patience
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.instance import Instance
from redkeep.model.topology import Role
from redkeep.northbound import connect
from redkeep.testing.stack import Stack, stack
from redkeep.testing.writer import Writer

pytestmark = pytest.mark.real

VERSIONS = ("6.2", "7.0")


async def of_role(found: Stack, role: Role) -> list[Instance]:
    return [one for one in await found.rows() if one.role is role]


async def group(found: Stack, durability: str, replicas: int, version: str | None = None) -> None:
    primary = await found.create(durability=durability, version=version)
    order = {"name": "replica", "replica_of": primary["id"], "replica_count": replicas}
    await found.call("POST", "/instances", {"instance": order})
    for one in await found.rows():
        await found.until(one.id, "ACTIVE")
    await found.idle()


def server(found: Stack, instance: Instance, how: signal.Signals) -> None:
    next(one for one in found.redis_processes() if one.cwd().endswith(instance.id)).send_signal(how)


@pytest.mark.parametrize("version", VERSIONS)
async def test_sync_loses_nothing_that_was_acknowledged_when_the_primary_is_killed(version: str) -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        await group(found, "sync", 2, version)
        seeds = [str(one.address) for one in await found.rows()]
        async with await connect(seeds, password=found.passwords["db"], confirm=True) as client:
            assert client.confirmations >= 1
            async with Writer(client) as writer:
                await writer.further(200)
                server(found, (await of_role(found, Role.PRIMARY))[0], signal.SIGKILL)
                await writer.further(200)
            assert await writer.lost() == []


async def test_sync_does_not_acknowledge_what_no_replica_has() -> None:
    async with stack(agent_options={"patience": Patience(stopped=60, silent=60)}) as found:
        await found.start_agent()
        await found.start_manager()
        await group(found, "sync", 2)
        seeds = [str(one.address) for one in await found.rows()]
        async with await connect(seeds, password=found.passwords["db"], confirm=True) as client:
            assert await client.execute("SET", "before", "1") == b"OK"
            for one in await of_role(found, Role.REPLICA):
                server(found, one, signal.SIGSTOP)

            with pytest.raises((OutcomeUnknown, Unavailable)):
                await client.execute("SET", "after", "1", timeout=1)


async def test_the_news_of_a_sync_group_turns_confirmation_on() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        await group(found, "sync", 2)
        seeds = [str(one.address) for one in await found.rows()]
        async with await connect(seeds, password=found.passwords["db"]) as client:

            async def told() -> bool:
                return client.confirmations == 1

            await found.eventually(told, what="the news that writes are to be confirmed")


@pytest.mark.parametrize(("durability", "expected"), [("async", 0), ("bounded", 1), ("sync", 1)])
async def test_servers_refuse_writes_without_as_many_replicas_as_promised(durability: str, expected: int) -> None:
    """And without more, once the guard of a healthy group is lowered since its replicas have fallen silent."""
    async with stack(agent_options={"patience": Patience(stopped=60, silent=60)}) as found:
        await found.start_agent()
        await found.start_manager()
        await group(found, durability, 2)
        (primary,) = await of_role(found, Role.PRIMARY)
        settings = (await found.group(primary.group_id)).secrets
        assert primary.address is not None
        admin = Redis(port=primary.address.port, username="redkeep-admin", password=found.vault.unseal(settings.admin))
        for one in await of_role(found, Role.REPLICA):
            server(found, one, signal.SIGSTOP)

        async with admin as redis:

            async def as_promised() -> bool:
                said = await redis.config_get("min-replicas-*")
                return said == {"min-replicas-to-write": str(expected), "min-replicas-max-lag": str(MAX_LAG_SECONDS)}

            await found.eventually(as_promised, what="what its promise asks of it")


async def test_a_configuration_group_changes_the_promise_of_a_running_group_and_gives_it_back() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        await group(found, "async", 2)
        (primary,) = await of_role(found, Role.PRIMARY)
        order = {
            "name": "safe",
            "values": {"redkeep-durability": "sync"},
            "datastore": {"type": "redis", "version": primary.version},
        }
        made = (await found.call("POST", "/configurations", {"configuration": order}))["configuration"]
        seeds = [str(one.address) for one in await found.rows()]
        async with await connect(seeds, password=found.passwords["db"]) as client:

            async def attached(configuration_id: str | None, confirmations: int) -> None:
                (source,) = await of_role(found, Role.PRIMARY)
                body = {"instance": {"configuration": configuration_id}}
                await found.call("PUT", f"/instances/{source.id}", body)
                await found.until(source.id, "ACTIVE")

                async def told() -> bool:
                    return client.confirmations == confirmations

                await found.eventually(told, what="the news of another promise")

            await attached(made["id"], 1)
            assert {one.configuration_id for one in await found.rows()} == {made["id"]}
            async with Writer(client) as writer:
                await writer.further(100)
                server(found, primary, signal.SIGKILL)
                await writer.further(100)
            assert await writer.lost() == []
            assert client.confirmations == 1, "the promise is of the group, whoever is its primary"

            await found.idle()
            await attached(None, 0)


async def test_a_group_of_one_accepts_writes_whatever_it_promises() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        await found.create(durability="bounded")
        (primary,) = await found.rows()
        assert primary.address is not None
        async with Redis(port=primary.address.port, password=found.passwords["db"]) as redis:
            try:
                assert await redis.set("key", "value")
            except ResponseError as error:
                pytest.fail(f"refused: {error}")
            await asyncio.sleep(0)

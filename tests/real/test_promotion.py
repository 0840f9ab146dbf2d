"""What a client that knows nothing of Redkeep sees of a planned promotion."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, ResponseError

from redkeep.model.instance import Instance
from redkeep.model.operation import Kind
from redkeep.model.topology import Role
from redkeep.testing.stack import Stack, kill_at, stack

pytestmark = pytest.mark.real

VERSIONS = ("6.2", "7.0")


def client(found: Stack, instance: Instance) -> Redis:
    assert instance.address is not None
    address = instance.address
    return Redis(host=address.host, port=address.port, password=found.passwords["db"], decode_responses=True)


async def of_role(found: Stack, role: Role) -> Instance:
    return next(one for one in await found.rows() if one.role is role)


@pytest.mark.parametrize("version", VERSIONS)
async def test_writers_wait_and_are_told_to_go_elsewhere_only_when_that_is_true(version: str) -> None:
    """Never an error for a write that could have waited; READONLY once the server is a replica."""
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        _, replica = await found.replicated(replicas=1, version=version)
        old = await of_role(found, Role.PRIMARY)
        said: list[str] = []

        async def write() -> None:
            async with client(found, old) as redis:
                number = 0
                while True:
                    number += 1
                    try:
                        await redis.set(f"key:{number}", number)
                    except ReadOnlyError:
                        said.append("READONLY")
                        return
                    except ResponseError as error:
                        said.append(str(error))

        writer = asyncio.create_task(write())
        await found.call("POST", f"/instances/{replica['id']}/action", {"promote_to_replica_source": {}})
        async with asyncio.timeout(20):
            await writer

    assert said == ["READONLY"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_hold_that_lasts_too_long_refuses_writes_and_never_opens(version: str) -> None:
    """The manager dies while writes are held, and nobody takes over."""
    dead = asyncio.Event()
    async with stack() as found:
        await found.start_agent()
        manager = await found.start_manager(at_step=kill_at(Kind.PROMOTE_REPLICA, "promote", dead))
        _, replica = await found.replicated(replicas=1, version=version)
        old = await of_role(found, Role.PRIMARY)
        await found.call("POST", f"/instances/{replica['id']}/action", {"promote_to_replica_source": {}})
        async with asyncio.timeout(20):
            await dead.wait()
        await manager.kill()

        async def refused() -> bool:
            async with client(found, old) as redis:
                info = await redis.info("clients") if version == "6.2" else None
                if info is not None:  # there writers wait for ever, since scripts could not be refused
                    return await waits(redis)
                try:
                    async with asyncio.timeout(0.2):
                        await redis.set("late", "1")
                except ResponseError as error:
                    return "NOREPLICAS" in str(error)
                except TimeoutError:
                    return False
            raise AssertionError("a held primary accepted a write")

        await found.eventually(refused, what="the refusal of writes")
        await found.start_manager("second")
        await found.until(replica["id"], "ACTIVE")
        assert (await of_role(found, Role.PRIMARY)).id == replica["id"]


async def waits(redis: Redis) -> bool:
    try:
        async with asyncio.timeout(0.5):
            await redis.set("late", "1")
    except TimeoutError:
        return True
    return False

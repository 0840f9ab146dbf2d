"""All members of a group stopped and started (FAULTS 10): the newest data comes back as primary, nobody's is wiped."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest
from tests.faults.scene import Scene, scene

from redkeep.model.instance import Instance

pytestmark = [pytest.mark.real, pytest.mark.faults]

HOSTS = ("host-1", "host-2", "host-3")


async def lose_all(playing: Scene) -> None:
    """The power goes: agents first, then every server."""
    for host in playing.hosts.values():
        await host.kill()
    for process in playing.found.redis_processes():
        process.kill()
        process.wait(10)


async def write(playing: Scene, count: int, prefix: str) -> None:
    async with playing.redis(await playing.primary()) as redis:
        for number in range(count):
            await redis.set(f"{prefix}:{number}", number)
        assert await redis.wait(2, 2000) == 2


async def has_all(playing: Scene, one: Instance, count: int, prefix: str) -> bool:
    async with playing.redis(one) as redis:
        return len([1 async for _ in redis.scan_iter(f"{prefix}:*", count=1000)]) == count


@pytest.mark.parametrize("order", list(permutations(HOSTS)), ids="-".join)
async def test_10_whoever_starts_first_the_primary_that_was_last_is_primary_with_all_its_data(
    order: tuple[str, ...],
) -> None:
    async with scene(hosts=3) as playing:
        await write(playing, 50, "kept")
        last = await playing.primary()
        await lose_all(playing)

        for name in order:
            playing.hosts[name] = await playing.found.start_agent(name)
            await asyncio.sleep(0.4)  # so that each is alone for a while: nobody may take that for an invitation

        await playing.settled(servers=3, limit=60)
        assert (await playing.primary()).id == last.id
        assert all([await has_all(playing, one, 50, "kept") for one in await playing.members()])


async def test_10_a_replica_that_missed_the_last_writes_does_not_become_primary_by_being_first() -> None:
    """It is stopped before the last writes, and started before anybody else."""
    async with scene(hosts=3) as playing:
        await write(playing, 20, "old")
        newest, behind = await playing.primary(), (await playing.replicas())[0]
        await playing.hosts[behind.host_id or ""].kill()
        playing.process(behind).kill()
        async with playing.redis(newest) as redis:
            for number in range(50):
                await redis.set(f"new:{number}", number)
            assert await redis.wait(1, 2000) == 1
        await lose_all(playing)

        first, *others = (behind.host_id or "", *(name for name in HOSTS if name != behind.host_id))
        playing.hosts[first] = await playing.found.start_agent(first)
        await asyncio.sleep(3)  # longer than silence and word: it is alone, and nobody may promote it
        assert (await playing.primary()).id == newest.id
        assert not await playing.accepts_writes(behind)
        for name in others:
            playing.hosts[name] = await playing.found.start_agent(name)

        await playing.settled(servers=3, limit=60)
        assert all([await has_all(playing, one, 50, "new") for one in await playing.members()])

"""One that has left its group belongs to nobody there any more (FAULTS 21)."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from redis.exceptions import RedisError
from tests.faults.scene import Scene, scene

from redkeep.model.instance import Instance
from redkeep.model.topology import Role

pytestmark = [pytest.mark.real, pytest.mark.faults]


async def test_21_a_detached_replica_is_left_alone_when_its_old_primary_dies() -> None:
    async with scene(hosts=3) as playing:
        primary, (leaving, staying) = await playing.primary(), await playing.replicas()
        async with playing.redis(primary) as redis:
            await redis.set("before", "kept")
            await redis.wait(2, 2000)

        await playing.found.call("PUT", f"/instances/{leaving.id}", {"instance": {"replica_of": None}})
        await playing.found.until(leaving.id, "ACTIVE")
        await playing.found.idle()
        async with playing.redis(leaving) as redis:
            await redis.set("mine", "alone")
        process = playing.process(primary)
        process.kill()

        new = await playing.found.eventually(partial(_successor, playing, primary), 30, what="a new primary")
        await playing.found.idle()
        assert new.id == staying.id
        await playing.found.eventually(partial(_follows, playing, primary, staying), 30, what="the old one's return")
        async with playing.redis(leaving) as redis:
            said = await redis.info("replication")
            assert (said["role"], said["connected_slaves"]) == ("master", 0)
            assert await redis.mget("before", "mine") == ["kept", "alone"]
        async with playing.redis(staying) as redis:
            assert await redis.mget("before", "mine") == ["kept", None]
        row = next(one for one in await playing.members() if one.id == leaving.id)
        assert (row.role, row.replica_of) == (Role.PRIMARY, None)
        assert row.group_id != staying.group_id


async def _successor(playing: Scene, old: Instance) -> Instance | None:
    group = await playing.found.group(old.group_id)
    return next((one for one in await playing.members() if one.id == group.primary_id != old.id), None)


async def _follows(playing: Scene, one: Instance, primary: Instance) -> bool:
    assert primary.address is not None
    try:
        async with playing.redis(one) as redis:
            said = await redis.info("replication")
    except RedisError:
        return False
    return bool(
        await asyncio.sleep(0, said["role"] == "slave")
        and said["master_port"] == primary.address.port
        and said["master_link_status"] == "up"
    )

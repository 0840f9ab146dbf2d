"""FAULTS 30, 31: a change that goes through a whole group stops before it does harm, and says where and why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Role
from redkeep.redis.versions import find_servers
from redkeep.testing.stack import Stack, stack

pytestmark = [pytest.mark.real, pytest.mark.faults]

FATAL = {"io-threads": 128}
"""Redis takes it; the stacks of so many threads do not fit into the address space of the smallest flavor."""


async def admin(found: Stack, instance: Instance) -> Redis:
    assert instance.address is not None
    password = found.vault.unseal((await found.group(instance.group_id)).secrets.admin)
    return Redis(port=instance.address.port, username="redkeep-admin", password=password, decode_responses=True)


async def row(found: Stack, instance_id: str) -> Instance:
    return next(one for one in await found.rows() if one.id == instance_id)


async def shown(found: Stack, instance_id: str) -> dict[str, Any]:
    instance: dict[str, Any] = (await found.call("GET", f"/instances/{instance_id}"))["instance"]
    return instance


def server(found: Stack, instance_id: str) -> psutil.Process:
    """The oldest of its processes: the others are its children, which save."""
    ours = (process for process in found.redis_processes() if process.cwd().endswith(instance_id))
    return min(ours, key=lambda process: process.create_time())


def pid(found: Stack, instance_id: str) -> int:
    return server(found, instance_id).pid


async def attach(found: Stack, instance_id: str, values: dict[str, Any]) -> str:
    made = await found.call("POST", "/configurations", {"configuration": {"name": "mine", "values": values}})
    mine = str(made["configuration"]["id"])
    await found.call("PUT", f"/instances/{instance_id}", {"instance": {"configuration": mine}}, expect=202)
    await found.idle()
    return mine


class Writer:
    """Counts up in one key for the length of the block, and knows what was acknowledged."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.acknowledged = 0
        self._ends = False

    async def __aenter__(self) -> Writer:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends = True  # not cancelled: a client in the middle of a command may not notice
        async with asyncio.timeout(10):
            await self._task

    async def _write(self) -> None:
        while not self._ends:
            self.acknowledged = int(await self._redis.incr("count"))
            await asyncio.sleep(0.002)


async def test_30_an_upgrade_with_a_replica_that_never_synchronises_stops_before_the_primary() -> None:
    async with stack(manager_options={"roll_patience": 1.5}) as found:
        await found.start_agent()
        await found.start_manager()
        primary, *replicas = await found.replicated(replicas=2, version="6.2")
        first, second = sorted(replicas, key=lambda one: str(one["name"]))
        group = (await row(found, primary["id"])).group_id
        untouched = {one["id"]: pid(found, one["id"]) for one in (primary, second)}
        async with await admin(found, await row(found, primary["id"])) as redis, Writer(redis) as writer:
            await redis.acl_setuser("redkeep-replica", enabled=False)  # who is linked stays linked

            change = {"instance": {"datastore_version": "7.0"}}
            await found.call("PATCH", f"/instances/{primary['id']}", change, expect=202)

            async def waits_visibly() -> bool:
                report = await found.call("GET", "/status")
                return any("waits for db-replica-1" in text for text in report["operations"])

            await found.eventually(waits_visibly, what="the replica that is waited for, named")
            await found.idle()
        async with await admin(found, await row(found, primary["id"])) as redis:
            assert int(await redis.get("count") or 0) >= writer.acknowledged > 0

        assert (await found.group(group)).primary_id == primary["id"]
        assert {name: pid(found, name) for name in untouched} == untouched
        for one in (primary, second):
            after = await shown(found, one["id"])
            assert (after["status"], after["datastore"]["version"]) == ("ACTIVE", "6.2")
        assert "The roll stopped at db-replica-1" in (await shown(found, primary["id"]))["fault"]["message"]
        broken = await shown(found, first["id"])
        assert (broken["status"], broken["datastore"]["version"]) == ("ERROR", "6.2")
        assert "link to the primary is down" in broken["fault"]["message"]


async def test_30_a_single_server_whose_new_version_does_not_come_up_has_the_old_one_with_all_its_data(
    tmp_path: Path,
) -> None:
    """The stand-in does to the files what 7.0 does to those of 6.2, and dies."""
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\nmkdir -p appendonlydir && mv appendonly.aof appendonlydir/\nexit 1\n")
    broken.chmod(0o755)
    async with stack(versions={"7.0": broken, "6.2": find_servers()["6.2"]}) as found:
        await found.start_agent()
        await found.start_manager()
        made = await found.create(version="6.2")
        async with await admin(found, await row(found, made["id"])) as redis:
            await redis.set("before", "kept")

        change = {"instance": {"datastore_version": "7.0"}}
        await found.call("PATCH", f"/instances/{made['id']}", change, expect=202)
        await found.idle()

        after = await shown(found, made["id"])
        assert (after["status"], after["datastore"]["version"]) == ("ACTIVE", "6.2")
        assert "did not come back" in after["fault"]["message"]
        async with await admin(found, await row(found, made["id"])) as redis:
            assert await redis.get("before") == "kept"
            assert await redis.set("after", "written")


async def test_31_a_bad_parameter_is_refused_before_anything_is_recorded() -> None:
    async with stack() as found:
        order = {"name": "bad", "values": {"appendonly": "no", "save": ""}}
        await found.call("POST", "/configurations", {"configuration": order}, expect=400)


async def test_31_a_parameter_that_is_fatal_at_the_next_start_stops_at_the_first_replica() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, *_ = await found.replicated(replicas=2)
        good = await attach(found, primary["id"], {"hz": 50})
        await found.call("POST", f"/instances/{primary['id']}/action", {"restart": {"rolling": True}}, expect=202)
        await found.idle(60)
        source = next(one for one in await found.rows() if one.role is Role.PRIMARY)
        await attach(found, source.id, {"hz": 60, **FATAL})
        assert (await shown(found, source.id))["status"] == "RESTART_REQUIRED"
        before = pid(found, source.id)

        async with await admin(found, source) as redis, Writer(redis) as writer:
            await found.call("POST", f"/instances/{source.id}/action", {"restart": {"rolling": True}}, expect=202)
            await found.idle(60)
            written = writer.acknowledged

        rows = await found.rows()
        assert (pid(found, source.id), written > 0) == (before, True)
        assert {one.status for one in rows} == {Status.ACTIVE}
        assert {one.configuration_id for one in rows} == {good}
        assert "The roll stopped at" in (await shown(found, source.id))["fault"]["message"]
        for one in rows:
            assert (await shown(found, one.id))["status"] == "ACTIVE"
            async with await admin(found, one) as redis:
                assert (await redis.config_get("hz"), await redis.config_get("io-threads")) == (
                    {"hz": "50"},
                    {"io-threads": "1"},
                )
                role = (await redis.info("replication"))["role"]
                assert role == ("master" if one.id == source.id else "slave")


async def test_31_a_server_that_crashes_before_the_restart_comes_back_without_the_fatal_parameter() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        made = await found.create()
        await attach(found, made["id"], FATAL)
        async with await admin(found, await row(found, made["id"])) as redis:
            await redis.set("before", "kept")

        server(found, made["id"]).kill()

        async def writes() -> bool:
            async with await admin(found, await row(found, made["id"])) as redis:
                try:
                    return bool(await redis.set("after", "written") and await redis.get("before") == "kept")
                except RedisError:
                    return False

        await found.eventually(writes, what="a server that serves")
        await found.idle()
        assert (await shown(found, made["id"]))["status"] == "RESTART_REQUIRED"


@pytest.mark.parametrize("version", ["6.2", "7.0"])
async def test_31_a_single_server_has_its_old_parameters_and_all_its_data_again(version: str) -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        made = await found.create(version=version)
        async with await admin(found, await row(found, made["id"])) as redis:
            await redis.set("before", "kept")
        order = {"name": "mine", "values": FATAL, "datastore": {"type": "redis", "version": version}}
        fatal = (await found.call("POST", "/configurations", {"configuration": order}))["configuration"]["id"]
        await found.call("PUT", f"/instances/{made['id']}", {"instance": {"configuration": fatal}})
        await found.idle()

        await found.call("POST", f"/instances/{made['id']}/action", {"restart": {}}, expect=202)
        await found.idle()

        after = await shown(found, made["id"])
        assert (after["status"], "configuration" in after) == ("ACTIVE", False)
        assert "does not start with its new parameters" in after["fault"]["message"]
        async with await admin(found, await row(found, made["id"])) as redis:
            assert await redis.get("before") == "kept"
            assert await redis.set("after", "written")

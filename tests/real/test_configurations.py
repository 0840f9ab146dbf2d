"""Parameters on real servers: applied while they run, kept across restarts, refused whole, rolled out with care."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from redkeep.model.instance import Instance
from redkeep.testing.stack import Stack, stack

pytestmark = pytest.mark.real

VERSIONS = ("6.2", "7.0")


async def configuration(found: Stack, version: str = "7.0", **values: object) -> str:
    named = {name.replace("_", "-"): value for name, value in values.items()}
    order = {"name": "mine", "values": named, "datastore": {"type": "redis", "version": version}}
    made = await found.call("POST", "/configurations", {"configuration": order})
    return str(made["configuration"]["id"])


async def attach(found: Stack, instance_id: str, configuration_id: str | None) -> None:
    await found.call("PUT", f"/instances/{instance_id}", {"instance": {"configuration": configuration_id}}, expect=202)
    await found.idle()


async def parameter(found: Stack, instance: Instance, name: str) -> str:
    async with await admin(found, instance) as redis:
        return str((await redis.config_get(name))[name])


async def admin(found: Stack, instance: Instance) -> Redis:
    assert instance.address is not None
    secrets = (await found.group(instance.group_id)).secrets
    password = found.vault.unseal(secrets.admin)
    return Redis(port=instance.address.port, username="redkeep-admin", password=password, decode_responses=True)


async def everywhere(found: Stack, name: str) -> set[str]:
    return {await parameter(found, one, name) for one in await found.rows()}


async def shown(found: Stack, instance_id: str) -> dict[str, object]:
    instance: dict[str, object] = (await found.call("GET", f"/instances/{instance_id}"))["instance"]
    return instance


async def events(found: Stack, group_id: str) -> list[str]:
    assert found.store is not None
    async with found.store.read() as tx:
        return [event.text for event in await tx.events(group_id=group_id)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_values_are_applied_to_a_running_group_and_taken_away_again(version: str) -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, *_ = await found.replicated(replicas=1, version=version)
        mine = await configuration(found, version, hz=50, maxmemory_policy="allkeys-lru", save="")

        await attach(found, primary["id"], mine)

        assert await everywhere(found, "hz") == {"50"}
        assert await everywhere(found, "save") == {""}
        assert (await shown(found, primary["id"]))["status"] == "ACTIVE"
        await found.call("PATCH", f"/configurations/{mine}", {"configuration": {"values": {"hz": 60}}}, expect=200)
        await found.idle()
        assert await everywhere(found, "hz") == {"60"}
        assert await everywhere(found, "maxmemory-policy") == {"allkeys-lru"}

        await attach(found, primary["id"], None)

        assert await everywhere(found, "hz") == {"10"}
        assert await everywhere(found, "maxmemory-policy") == {"noeviction"}
        assert await everywhere(found, "save") == {"3600 1 300 100 60 10000"}
        assert "configuration" not in await shown(found, primary["id"])


async def test_an_instance_is_born_with_a_configuration_and_its_replicas_too() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        mine = await configuration(found, databases=32, hz=50)

        made = await found.create(configuration=mine)
        replica = await found.create("copy", replica_of=made["id"])

        assert made["configuration"]["id"] == replica["configuration"]["id"] == mine
        assert (await everywhere(found, "databases"), await everywhere(found, "hz")) == ({"32"}, {"50"})
        attached = await found.call("GET", f"/configurations/{mine}/instances")
        assert {one["id"] for one in attached["instances"]} == {made["id"], replica["id"]}


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_redis_itself_refuses_changes_nothing_and_is_said(version: str) -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, *_ = await found.replicated(replicas=1, version=version)
        mine = await configuration(found, version, hz=50, activedefrag=True)  # needs a build that these are not

        await attach(found, primary["id"], mine)

        after = await shown(found, primary["id"])
        assert after["status"] == "ACTIVE"
        assert "configuration" not in after
        assert "Active defragmentation cannot be enabled" in str(after["fault"])
        assert await everywhere(found, "hz") == {"10"}
        (row, *_) = await found.rows()
        assert any("Active defragmentation" in text for text in await events(found, row.group_id))


async def test_what_needs_a_restart_is_shown_until_there_was_one() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        made = await found.create()
        await attach(found, made["id"], await configuration(found, databases=32, hz=50))
        (row,) = await found.rows()
        before = await shown(found, made["id"])
        assert (before["status"], before["operating_status"]) == ("RESTART_REQUIRED", "RESTART_REQUIRED")
        assert (await parameter(found, row, "databases"), await parameter(found, row, "hz")) == ("16", "50")

        await found.call("POST", f"/instances/{made['id']}/action", {"restart": {}}, expect=202)

        assert (await found.until(made["id"], "ACTIVE"))["operating_status"] == "HEALTHY"
        assert await parameter(found, row, "databases") == "32"


async def test_a_rolling_restart_takes_every_server_along_and_loses_nothing() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, *_ = await found.replicated(replicas=2)
        await attach(found, primary["id"], await configuration(found, databases=32))
        pids = {process.pid for process in found.redis_processes()}
        (row, *_) = await found.rows()
        async with await admin(found, row) as redis:
            await redis.set("before", "kept")

        await found.call("POST", f"/instances/{primary['id']}/action", {"restart": {"rolling": True}}, expect=202)
        await found.idle(60)

        rows = await found.rows()
        group = await found.group(rows[0].group_id)
        assert not pids & {process.pid for process in found.redis_processes()}
        assert group.primary_id != primary["id"]
        assert {(await shown(found, one.id))["status"] for one in rows} == {"ACTIVE"}
        assert await everywhere(found, "databases") == {"32"}
        for one in rows:
            async with await admin(found, one) as redis:
                assert await redis.get("before") == "kept"


async def test_a_rolling_upgrade_goes_from_6_2_to_7_0() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, *_ = await found.replicated(replicas=1, version="6.2")
        mine = await configuration(found, "6.2", hash_max_ziplist_entries=99)
        await attach(found, primary["id"], mine)
        (row, *_) = await found.rows()
        async with await admin(found, row) as redis:
            await redis.set("before", "kept")

        await found.call("PATCH", f"/instances/{primary['id']}", {"instance": {"datastore_version": "7.0"}}, expect=202)
        await found.idle(60)

        for one in await found.rows():
            async with await admin(found, one) as redis:
                assert str((await redis.info("server"))["redis_version"]).startswith("7.0.")
                assert await redis.get("before") == "kept"
                assert (await redis.config_get("hash-max-listpack-entries")) == {"hash-max-listpack-entries": "99"}
            after = await shown(found, one.id)
            assert (after["status"], after["datastore"]) == (
                "ACTIVE",
                {"type": "redis", "version": "7.0", "version_number": "7.0"},
            )


async def test_a_single_server_is_upgraded_with_its_data() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        made = await found.create(version="6.2")
        (row,) = await found.rows()
        async with await admin(found, row) as redis:
            await redis.set("before", "kept")

        await found.call("PATCH", f"/instances/{made['id']}", {"instance": {"datastore_version": "7.0"}}, expect=202)
        await found.idle()

        async with await admin(found, row) as redis:
            assert str((await redis.info("server"))["redis_version"]).startswith("7.0.")
            assert await redis.get("before") == "kept"
            assert await redis.set("after", "written")
        refusal = {"instance": {"datastore_version": "6.2"}}
        await found.call("PATCH", f"/instances/{made['id']}", refusal, expect=400)

"""What is done with clusters that work: slots move, replicas come and go, servers are restarted and upgraded."""

from __future__ import annotations

import time

import pytest
from redis.asyncio import Redis
from tests.real.cluster_members import all_there, filled, in_order, members, ranges, seeds, writing

from redkeep.model.instance import Instance, Status
from redkeep.model.slots import SLOTS, slots_in
from redkeep.model.topology import Role
from redkeep.northbound import connect
from redkeep.testing.stack import MEMBER, Stack, stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
LIMIT = 240.0


async def agreed(found: Stack, cluster_id: str) -> None:
    await found.eventually(lambda: in_order(found, cluster_id), what="members of one mind")


async def setting(found: Stack, one: Instance, name: str) -> str:
    assert one.address is not None
    secret = found.vault.unseal((await found.group(one.group_id)).secrets.admin)
    async with Redis(port=one.address.port, username="redkeep-admin", password=secret, decode_responses=True) as redis:
        return str((await redis.config_get(name))[name])


async def test_who_joins_gets_a_share_and_who_leaves_gives_it_back_with_every_key() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2)
        key = shown["id"]
        async with await connect(seeds(shown), password=found.passwords["c"]) as client:
            await filled(client)

            body = {"grow": {"instances": [MEMBER], "rebalance": True, "pace": "fast"}}
            grown = await found.act_on(key, body, LIMIT)
            counts = {name: len(slots_in(owned)) for name, owned in (await ranges(found, key)).items()}
            assert sorted(counts.values()) == [SLOTS // 3, SLOTS // 3, SLOTS // 3 + 1]
            assert await all_there(client)

            last = grown["instances"][-1]["id"]
            body = {"shrink": {"instances": [{"id": last}], "drain": True, "pace": "fast"}}
            await found.act_on(key, body, LIMIT)
            assert set(await ranges(found, key)) == {"c-member-1", "c-member-2"}
            assert await all_there(client)
        await agreed(found, key)


async def test_slots_that_move_can_be_stopped_and_moved_on() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2)
        key, last = shown["id"], shown["instances"][1]["id"]
        async with await connect(seeds(shown), password=found.passwords["c"]) as client:
            await filled(client)

            await found.call("POST", f"/clusters/{key}", {"rebalance": {"weights": {last: 9}}})
            await found.eventually(lambda: moving(found, key), 60, what="a slot that has moved")
            await found.call("POST", f"/clusters/{key}", {"cancel": {}}, expect=202)
            await found.idle(60)
            stopped = (await found.call("GET", f"/clusters/{key}"))["cluster"]
            assert stopped["task"]["name"] == "NONE"
            assert "stopped on request" in stopped["fault"]["message"]
            await agreed(found, key)

            await found.call("POST", f"/clusters/{key}", {"rebalance": {"pace": "fast"}})
            await found.idle(LIMIT)
            again = await found.until_free(key)
            assert "fault" not in again
            counts = [len(slots_in(owned)) for owned in (await ranges(found, key)).values()]
            assert counts == [SLOTS // 2, SLOTS // 2]
            assert await all_there(client)


async def moving(found: Stack, key: str) -> bool:
    shown = (await found.call("GET", f"/clusters/{key}"))["cluster"]
    return bool(0.0 < shown.get("progress", 0.0) < 0.9)


async def test_every_shard_gets_as_many_replicas_as_are_asked_for() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2)
        key = shown["id"]

        more = await found.act_on(key, {"replicas": {"per_shard": 2}}, LIMIT)
        await agreed(found, key)
        rows = await members(found, key)
        assert len(more["instances"]) == 6
        assert sorted((one.shard, one.role) for one in rows if one.role is Role.REPLICA) == [
            ("1", Role.REPLICA),
            ("1", Role.REPLICA),
            ("2", Role.REPLICA),
            ("2", Role.REPLICA),
        ]

        fewer = await found.act_on(key, {"replicas": {"per_shard": 1}}, LIMIT)
        await agreed(found, key)
        assert [(one["name"], one["role"]) for one in fewer["instances"]][:2] == [
            ("c-member-1", "primary"),
            ("c-member-2", "primary"),
        ]
        assert len(fewer["instances"]) == 4
        assert fewer["replicas_per_shard"] == 1


async def test_a_restart_and_an_upgrade_lose_nothing_and_are_hardly_noticed() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2, replicas=1, version="6.2")
        key = shown["id"]

        async with writing(found, shown) as writer:
            began = time.monotonic()
            await found.act_on(key, {"restart": {}}, LIMIT)
            upgraded = await found.act_on(key, {"upgrade": {"datastore_version": "7.0"}}, LIMIT)
            await writer.further(50)
            await writer.stop()
            assert await writer.lost() == []
            assert writer.unknown == []
            assert writer.longest_gap(began).seconds < 10, "a shard was away for as long as a restart takes"

        assert upgraded["datastore"]["version"] == "7.0"
        assert {(one.version, one.status) for one in await members(found, key)} == {("7.0", Status.ACTIVE)}
        await agreed(found, key)


async def test_a_configuration_group_reaches_all_members_and_those_to_come() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2, version="7.0")
        key = shown["id"]
        order = {"name": "mine", "values": {"hz": 50}, "datastore": {"type": "redis", "version": "7.0"}}
        mine = (await found.call("POST", "/configurations", {"configuration": order}))["configuration"]["id"]

        await found.act_on(key, {"configuration_attach": {"configuration_id": mine}})
        await found.act_on(key, {"grow": [MEMBER]})
        assert {await setting(found, one, "hz") for one in await members(found, key)} == {"50"}

        await found.call("PATCH", f"/configurations/{mine}", {"configuration": {"values": {"hz": 20}}})
        await found.until_free(key)
        assert {await setting(found, one, "hz") for one in await members(found, key)} == {"20"}

        await found.act_on(key, {"configuration_detach": {}})
        assert {await setting(found, one, "hz") for one in await members(found, key)} == {"10"}
        await found.call("DELETE", f"/configurations/{mine}", expect=202)


async def test_what_redis_refuses_changes_nothing() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2, version="6.2")
        key = shown["id"]
        order = {
            "name": "bad",
            "values": {"hz": 50, "activedefrag": "yes"},
            "datastore": {"type": "redis", "version": "6.2"},
        }
        bad = (await found.call("POST", "/configurations", {"configuration": order}))["configuration"]["id"]

        await found.call("POST", f"/clusters/{key}", {"configuration_attach": {"configuration_id": bad}})
        await found.idle()

        after = (await found.call("GET", f"/clusters/{key}"))["cluster"]
        assert after["task"]["name"] == "NONE"
        assert "not changed" in after["fault"]["message"]
        assert "configuration" not in after
        rows = await members(found, key)
        assert {(one.status, one.configuration_id) for one in rows} == {(Status.ACTIVE, None)}
        assert {await setting(found, one, "hz") for one in rows} == {"10"}

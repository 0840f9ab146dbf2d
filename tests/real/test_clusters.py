"""Clusters on real servers: created, grown, shrunk and deleted, while clients go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.cluster import RedisCluster
from redis.exceptions import AuthenticationError
from tests.real.cluster_members import Counting, all_there, filled, in_order, members, ranges, seeds, views, writing

from redkeep.model.instance import Status
from redkeep.model.topology import Role
from redkeep.northbound import connect
from redkeep.redis.versions import find_servers
from redkeep.status import Report, render
from redkeep.testing.stack import MEMBER, Stack, stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
PATIENCE = 30.0


async def agreed(found: Stack, cluster_id: str) -> None:
    await found.eventually(lambda: in_order(found, cluster_id), PATIENCE, what="members of one mind")


@pytest.mark.parametrize("version", find_servers())
async def test_a_cluster_is_made_with_its_slots_divided_evenly(version: str) -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()

        shown = await found.create_cluster(primaries=3, version=version)

        assert await in_order(found, shown["id"]), "it was called ready before all agreed"
        assert await ranges(found, shown["id"]) == {
            "c-member-1": ((0, 5461),),
            "c-member-2": ((5462, 10922),),
            "c-member-3": ((10923, 16383),),
        }
        assert {one["status"] for one in shown["instances"]} == {"ACTIVE"}
        assert shown["ip"] == ["127.0.0.1"] * 3
        async with await connect(seeds(shown), password=found.passwords["c"]) as client:
            await filled(client)
            assert await all_there(client)


async def test_replicas_stand_apart_from_their_primaries_and_follow_them() -> None:
    async with stack() as found:
        for number in (1, 2, 3):
            await found.start_agent(f"host-{number}", zone="ab"[number % 2])
        await found.start_manager()

        shown = await found.create_cluster(primaries=3, replicas=1)

        await agreed(found, shown["id"])
        rows = await members(found, shown["id"])
        by_shard = {shard: [one for one in rows if one.shard == shard] for shard in "123"}
        for shard in by_shard.values():
            assert {one.role for one in shard} == {Role.PRIMARY, Role.REPLICA}
            assert len({one.host_id for one in shard}) == 2
        seen = (await views(found, shown["id"]))["c-member-1"][2]
        names = {one.node_id: one for one in rows}
        for one in seen.members:
            if one.primary_id:
                assert names[one.id].shard == names[one.primary_id].shard


async def test_a_cluster_grows_and_shrinks_while_stock_and_own_clients_go_on() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=3)
        key, before = shown["id"], await ranges(found, shown["id"])
        errors: list[str] = []
        async with using_redis_py(found, shown, errors), writing(found, shown) as writer:
            grown = await found.act_on(key, {"grow": [MEMBER] * 2})
            assert [one["name"] for one in grown["instances"]][3:] == ["c-member-4", "c-member-5"]
            assert await ranges(found, key) == before | {"c-member-4": (), "c-member-5": ()}
            await agreed(found, key)
            await writer.further(200)

            leaving = [{"id": one["id"]} for one in grown["instances"][3:]]
            shrunk = await found.act_on(key, {"shrink": leaving})
            assert await ranges(found, key) == before
            await agreed(found, key)
            await writer.further(200)
            again = await found.act_on(key, {"grow": [MEMBER]})
            assert [one["name"] for one in again["instances"]][3:] == ["c-member-6"]
            await writer.stop()
            assert await writer.lost() == []
            assert (writer.refused, writer.unknown) == (0, [])

        assert errors == []
        assert [one["id"] for one in shrunk["instances"]] == [one["id"] for one in shown["instances"]]
        assert len(found.redis_processes()) == 4


@asynccontextmanager
async def using_redis_py(found: Stack, shown: dict[str, Any], errors: list[str]) -> AsyncIterator[None]:
    """A thread with redis-py's cluster client at work; what it meets with stands in `errors`."""
    done = threading.Event()
    stock = asyncio.create_task(asyncio.to_thread(_use_redis_py, found, shown, errors, done))
    try:
        yield
    finally:
        done.set()
        await stock


def _use_redis_py(found: Stack, shown: dict[str, Any], errors: list[str], done: threading.Event) -> None:
    """redis-py's own cluster client, as anybody uses it."""
    first = seeds(shown)[0]
    with RedisCluster(host=first.host, port=first.port, password=found.passwords["c"]) as redis:
        number = 0
        while not done.is_set():
            number += 1
            try:
                redis.set(f"stock:{number}", number)
                if redis.get(f"stock:{number}") != str(number).encode():
                    errors.append(f"{number} was lost")
            except Exception as error:  # noqa: BLE001 (the test is that there is none, of whatever kind)
                errors.append(repr(error))


async def test_users_and_passwords_are_the_same_on_every_member_and_stay_so_as_it_grows() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2)
        first = shown["instances"][1]["id"]
        body = {"users": [{"name": "app", "password": "correct horse"}]}
        await found.call("POST", f"/instances/{first}/users", body)
        await found.idle()
        root = await found.call("POST", f"/clusters/{shown['id']}/root", {"password": "another"})
        await found.idle()

        await found.act_on(shown["id"], {"grow": [MEMBER]})

        assert root == {"user": {"name": "default", "password": "another"}}
        for one in await members(found, shown["id"]):
            assert one.address is not None
            for user, password in (("app", "correct horse"), ("default", "another")):
                async with Redis(port=one.address.port, username=user, password=password) as redis:
                    assert await redis.ping()
            with pytest.raises(AuthenticationError):
                async with Redis(port=one.address.port, password=found.passwords["c"]) as redis:
                    await redis.ping()


async def test_growing_brings_replicas_for_the_new_shards() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2, replicas=1)

        grown = await found.act_on(shown["id"], {"grow": [MEMBER]})

        await agreed(found, shown["id"])
        assert [(one["shard"], one["role"]) for one in grown["instances"][-2:]] == [("3", "primary"), ("3", "replica")]
        replica = [{"id": grown["instances"][-1]["id"]}]
        shrunk = await found.act_on(shown["id"], {"shrink": replica})
        assert len(shrunk["instances"]) == 5
        await agreed(found, shown["id"])


async def test_a_deleted_cluster_leaves_nothing() -> None:
    async with stack() as found:
        agent = await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2, replicas=1)

        await found.call("DELETE", f"/clusters/{shown['id']}", expect=None)
        await found.idle()

        await found.call("GET", f"/clusters/{shown['id']}", expect=404)
        assert await found.call("GET", "/clusters") == {"clusters": []}
        assert await members(found, shown["id"]) == []
        assert found.redis_processes() == []
        directories = [one for one in agent.service._settings.directory.iterdir() if one.is_dir()]
        assert [one.name for one in directories if one.name in {each["id"] for each in shown["instances"]}] == []


async def test_a_stuck_task_is_reset_and_the_cluster_deleted() -> None:
    """The stock clients' force delete: while the members cannot even be placed."""
    async with stack() as found:
        await found.start_agent(port_high=0)
        await found.start_manager()
        body = {"cluster": {"name": "c", "instances": [MEMBER] * 2}}
        made = (await found.call("POST", "/clusters", body))["cluster"]
        await found.call("DELETE", f"/clusters/{made['id']}", expect=422)

        await found.call("POST", f"/clusters/{made['id']}", {"reset-status": {}})
        await found.call("DELETE", f"/clusters/{made['id']}", expect=202)
        await found.idle()

        await found.call("GET", f"/clusters/{made['id']}", expect=404)


async def test_a_cluster_of_one_works() -> None:
    """With the runbooks of a strategy that is not ours."""
    strategy = {"taskmanager_strategy": "tests.real.cluster_members.Counting"}
    async with stack(manager_options=strategy) as found:
        await found.start_agent()
        await found.start_manager()

        shown = await found.create_cluster(primaries=1)

        assert Counting.created == [shown["id"]]
        await agreed(found, shown["id"])
        assert await ranges(found, shown["id"]) == {"c-member-1": ((0, 16383),)}
        assert {one.status for one in await members(found, shown["id"])} == {Status.ACTIVE}


async def test_the_status_shows_shards_and_their_slots() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        shown = await found.create_cluster(primaries=2, replicas=1)
        await agreed(found, shown["id"])

        report = await found.call("GET", "/status")

        assert [(one["cluster"], one["shard"], one["role"], one["slots"]) for one in report["members"]] == [
            ("c", "1", "primary", 8192),
            ("c", "1", "replica", 0),
            ("c", "2", "primary", 8192),
            ("c", "2", "replica", 0),
        ]
        assert {one["health"] for one in report["members"]} == {"ok"}
        text = render(Report(report["members"], []))
        assert "SLOTS" in text.splitlines()[0]
        assert "8192" in text

"""Replicas that are detached, and primaries that are ejected: they keep their data and never come back."""

from __future__ import annotations

import asyncio
import signal

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from redkeep.errors import StaleEpoch
from redkeep.model.facts import Assignment
from redkeep.model.instance import Group, Instance
from redkeep.model.orders import Follow
from redkeep.model.topology import Role, Topology
from redkeep.orders import BusAgents
from redkeep.testing.stack import Part, Stack, stack

pytestmark = pytest.mark.real

VERSIONS = ("6.2", "7.0")


def client(found: Stack, instance: Instance, name: str = "db") -> Redis:
    assert instance.address is not None
    address = instance.address
    return Redis(host=address.host, port=address.port, password=found.passwords[name], decode_responses=True)


async def row(found: Stack, instance_id: str) -> Instance:
    return next(one for one in await found.rows() if one.id == instance_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_detached_replica_keeps_its_data_and_stands_on_its_own(version: str) -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, replica, other = await found.replicated(version=version)
        async with client(found, await row(found, primary["id"])) as redis:
            await redis.set("before", "kept")
            await redis.wait(2, 1000)

        await found.call("PUT", f"/instances/{replica['id']}", {"instance": {"replica_of": None}}, expect=202)
        shown = await found.until(replica["id"], "ACTIVE")

        assert "replica_of" not in shown
        detached = await row(found, replica["id"])
        assert detached.group_id != (await row(found, primary["id"])).group_id
        async with client(found, detached) as redis:
            assert (await redis.info("replication"))["role"] == "master"
            assert await redis.get("before") == "kept"
            assert await redis.set("own", "yes")
        async with client(found, await row(found, primary["id"])) as redis:
            assert await redis.get("own") is None
        source = (await found.call("GET", f"/instances/{primary['id']}"))["instance"]
        assert [one["id"] for one in source["replicas"]] == [other["id"]]


async def test_a_detached_replica_has_secrets_of_its_own() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, replica = await found.replicated(replicas=1)
        old = await found.group((await row(found, primary["id"])).group_id)

        await found.call("PUT", f"/instances/{replica['id']}", {"instance": {"replica_of": None}})
        await found.until(replica["id"], "ACTIVE")

        detached = await row(found, replica["id"])
        assert not await admin_enters(found, detached, old)
        assert await admin_enters(found, detached, await found.group(detached.group_id))


async def admin_enters(found: Stack, instance: Instance, group: Group) -> bool:
    assert instance.address is not None
    secret = found.vault.unseal(group.secrets.admin)
    async with Redis(port=instance.address.port, username="redkeep-admin", password=secret) as redis:
        try:
            return bool(await redis.ping())
        except AuthenticationError:
            return False


async def test_nothing_adopts_a_detached_replica_when_its_old_primary_dies() -> None:
    """FAULTS 21."""
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, replica, other = await found.replicated()
        await found.call("PUT", f"/instances/{replica['id']}", {"instance": {"replica_of": None}})
        await found.until(replica["id"], "ACTIVE")
        await found.idle()

        next(one for one in found.redis_processes() if one.cwd().endswith(primary["id"])).kill()

        async def failed_over() -> bool:
            return (await row(found, other["id"])).role is Role.PRIMARY

        await found.eventually(failed_over, what="the failover to the replica that stayed")
        await found.idle()
        detached = await row(found, replica["id"])
        async with client(found, detached) as redis:
            assert (await redis.info("replication"))["role"] == "master"
            assert (await redis.info("replication"))["connected_slaves"] == 0


async def test_an_order_of_the_group_that_it_left_comes_too_late() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, replica = await found.replicated(replicas=1)
        old = await row(found, primary["id"])
        await found.call("PUT", f"/instances/{replica['id']}", {"instance": {"replica_of": None}})
        await found.until(replica["id"], "ACTIVE")

        bus = found.bus("late")
        told = Topology(old.group_id, 10**6, old.address)
        late = Assignment(replica["id"], old.group_id, 10**6, Role.REPLICA, old.address, told)
        with pytest.raises(StaleEpoch):
            await BusAgents(bus).tell("host-1", Follow(late))
        await bus.close()

        async with client(found, await row(found, replica["id"])) as redis:
            assert (await redis.info("replication"))["role"] == "master"


async def lost_host(found: Stack, part: Part, instance_id: str) -> None:
    """As the others see it: the agent says nothing more, the server answers nobody."""
    next(one for one in found.redis_processes() if one.cwd().endswith(instance_id)).send_signal(signal.SIGSTOP)
    await part.kill()


QUICK = {"word_seconds": 1.0, "look_interval": 0.2}


async def test_a_primary_that_is_not_heard_of_is_ejected() -> None:
    options = {"api_options": {"heartbeat_expiry_seconds": 1.0}, "manager_options": QUICK}
    async with stack(**options, agent_options={"word_seconds": 1.0}) as found:
        hosts = [await found.start_agent(f"host-{number}") for number in (1, 2, 3)]
        await found.start_manager()
        primary, replica, other = await found.replicated()
        await found.call("POST", f"/instances/{primary['id']}/action", {"pause_failover": {}}, expect=202)
        home = (await row(found, primary["id"])).host_id
        await lost_host(found, hosts[int(str(home)[-1]) - 1], primary["id"])

        async def ejected() -> bool:
            body: dict[str, object] = {"eject_replica_source": {}}
            assert found.api is not None
            reply = await found.api.post(f"/instances/{primary['id']}/action", json=body)
            return reply.status_code == 202

        await found.eventually(ejected, what="a heartbeat old enough to eject")
        for one in (replica, other):
            await found.until(one["id"], "ACTIVE")

        survivors = [await row(found, one["id"]) for one in (replica, other)]
        assert sorted(one.role for one in survivors) == [Role.PRIMARY, Role.REPLICA]
        left = await row(found, primary["id"])
        assert left.group_id != survivors[0].group_id
        new = next(one for one in survivors if one.role is Role.PRIMARY)
        async with client(found, new) as redis:
            assert await redis.set("after", "written")

        await found.start_agent(str(home), port_low=61000, port_high=61100)
        for process in found.redis_processes():
            process.send_signal(signal.SIGCONT)
        await found.until(primary["id"], "ACTIVE")
        async with client(found, await row(found, primary["id"])) as redis:
            info = await redis.info("replication")
            assert (info["role"], info["connected_slaves"]) == ("master", 0)


async def test_a_primary_that_is_heard_of_is_not_ejected() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, _ = await found.replicated(replicas=1)

        await found.call("POST", f"/instances/{primary['id']}/action", {"eject_replica_source": {}}, expect=400)

        assert (await row(found, primary["id"])).status == "ACTIVE"


async def test_a_paused_group_does_not_fail_over_until_it_is_resumed() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, replica = await found.replicated(replicas=1)
        await found.call("POST", f"/instances/{replica['id']}/action", {"pause_failover": {}}, expect=202)

        next(one for one in found.redis_processes() if one.cwd().endswith(primary["id"])).kill()
        await asyncio.sleep(2)  # nothing must happen, and nothing tells of that
        assert (await row(found, replica["id"])).role is Role.REPLICA
        await found.call("POST", f"/instances/{replica['id']}/action", {"resume_failover": {}}, expect=202)

        async def failed_over() -> bool:
            return (await row(found, replica["id"])).role is Role.PRIMARY

        await found.eventually(failed_over, what="the failover after the pause")

"""FAULTS 39, 42, 43: a site is lost; one is left in order and gone back to after the two have gone apart; freezes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.instance import Durability
from redkeep.model.site import ReplicationStatus
from redkeep.model.topology import Role

from .two_sites import NORTH, SITE_SECONDS, SOUTH, two_sites

pytestmark = [pytest.mark.real, pytest.mark.faults]


async def test_39_the_other_site_takes_over_when_one_is_lost_and_everybody_agrees_when_it_is_back() -> None:
    """The API, a manager and the agent of the other site are all that is left."""
    async with two_sites("north-1", "south-1") as sites:
        await sites.create()
        async with sites.writing() as writer:
            await writer.further(200)
            north = await sites.row(NORTH)
            lost_at = time.monotonic()
            await sites.managers["north-1"].kill()
            await sites.agents[NORTH].kill()
            sites.process(north).kill()

            row = await sites.fail_over(SOUTH, forced=True)
            await writer.further(50, 60)

            assert row.replication_status is ReplicationStatus.FAILED_OVER
            assert row.active_backend_id == SOUTH
            assert (await sites.primary()).site == SOUTH
            assert row.failover is not None
            (update,) = row.failover.updates
            assert "may be lost" in update.detail, "what may be lost is named"
            when = dict(zip(writer.acknowledged, writer.times, strict=True))
            assert all(when[number] > lost_at - 2 for number in await writer.lost())

            await sites.found.start_agent(f"host-{NORTH}", site=NORTH)
            await sites.start_managers("north-1")
            await sites.whole(2)

            async def agree() -> bool:
                assert sites.found.store is not None
                async with sites.found.store.read() as tx:
                    services = await tx.services()
                return {(one.active_backend_id, one.applied_epoch) for one in services} == {(SOUTH, row.epoch)}

            await sites.found.eventually(agree, what="managers of both sites that agree")
            assert (await sites.row(NORTH)).role is Role.REPLICA
            assert not [n for n in await writer.lost() if when.get(n, lost_at + 1) < lost_at - 2]


async def test_42_a_planned_switch_under_load_loses_nothing_either_way() -> None:
    async with two_sites() as sites:
        await sites.create(local_replicas=1)
        async with sites.writing() as writer:
            await writer.further(200)
            for target, site in ((SOUTH, SOUTH), ("default", NORTH)):
                row = await sites.fail_over(target, forced=False)
                assert row.failover is not None
                assert row.failover.error is None
                assert (await sites.primary()).site == site
                await writer.further(50, 60)
                await sites.whole(3)
            await writer.stop()

            assert not await writer.lost()
            assert (await sites.cluster()).replication_status is ReplicationStatus.ENABLED


async def test_42_what_only_the_old_site_has_is_in_a_file_before_it_resynchronises() -> None:
    async with two_sites() as sites:
        await sites.create()
        north = await sites.row(NORTH)
        await sites.write(north, "both", "here")
        async with sites.redis(north) as redis:
            async with await sites.admin(north) as admin:  # nobody can replicate from it any more
                await admin.acl_setuser("redkeep-replica", enabled=False, reset=False)
                await admin.client_kill_filter(_type="replica")
            await redis.set("only-north", "a write that nobody else has")

        await sites.fail_over(SOUTH, forced=True)
        await sites.whole(2)

        kept = list(Path(sites.found.directory).glob("*.diverged/*/*.resp"))
        assert len(kept) == 1
        assert b"only-north" in kept[0].read_bytes()
        assert b"both" not in kept[0].read_bytes()

        async def told() -> bool:
            return any(str(kept[0]) in one.text for one in await sites.events())

        await sites.found.eventually(told, what="an event that names the file")
        async with sites.redis(await sites.row(NORTH)) as redis:
            assert await redis.get("both") == "here"
            assert await redis.get("only-north") is None


async def test_42_nothing_goes_back_before_everything_is_in_step() -> None:
    async with two_sites() as sites:
        await sites.create()
        await sites.fail_over(SOUTH)
        await sites.whole(2)
        primary, replica = await sites.primary(), await sites.row(NORTH)
        async with await sites.admin(replica) as admin:
            await admin.config_set("replica-read-only", "no")
            await admin.set("spoilt", "by hand")
        async with sites.redis(primary) as redis:
            await sites.write(primary, "spoilt", "as it should be")
            await redis.wait(1, 5000)
        async with await sites.admin(replica) as admin:
            await admin.set("spoilt", "by hand")

        row = await sites.fail_over("default", forced=False)

        assert row.replication_status is ReplicationStatus.FAILED_OVER, "as it was"
        assert row.failover is not None
        assert "other values under 1 of 1 keys" in (row.failover.error or "")
        assert (await sites.primary()).id == primary.id
        async with await sites.admin(replica) as admin:
            await admin.set("spoilt", "as it should be")
        row = await sites.fail_over("default", forced=False)
        assert row.replication_status is ReplicationStatus.ENABLED


async def test_43_frozen_it_is_read_and_not_changed_and_an_operator_may_still_fail_it_over() -> None:
    async with two_sites() as sites:
        shown = await sites.create(local_replicas=1)
        assert (await sites.ask("freeze")).status_code == 200
        api = sites.found.api
        assert api is not None

        assert (await api.get(f"/instances/{shown['id']}")).status_code == 200
        order = {"instance": {"name": "no", "flavorRef": 1, "volume": {"size": 1}}}
        assert (await api.post("/instances", json=order)).status_code == 409
        assert (await api.delete(f"/instances/{shown['id']}")).status_code == 409

        old = await sites.primary()
        sites.process(old).kill()

        async def replaced() -> bool:
            return (await sites.primary()).id != old.id

        await sites.found.eventually(replaced, what="a failover inside of the site")
        assert (await sites.primary()).site == NORTH, "automatic failover goes on, and stays at its site"

        await sites.whole(3)
        row = await sites.fail_over(SOUTH)
        assert row.replication_status is ReplicationStatus.FAILED_OVER
        assert row.frozen
        assert (await sites.primary()).site == SOUTH
        assert (await sites.ask("thaw")).status_code == 200
        await sites.fail_over("default")
        assert (await api.post("/instances", json=order)).status_code == 200


async def test_a_primary_with_a_stand_by_stops_when_nobody_gives_its_site_the_word_and_goes_on_when_somebody_does() -> (
    None
):
    async with two_sites() as sites:
        await sites.create(local_replicas=2)
        north = await sites.row(NORTH)
        async with sites.redis(north) as redis:
            await sites.write(north, "before", "1")
            await sites.managers["manager-1"].kill()

            async def fenced() -> bool:
                try:
                    await redis.set("during", 1)
                except Exception as error:  # noqa: BLE001
                    return "NOREPLICAS" in str(error)
                return False

            began = time.monotonic()
            await sites.found.eventually(fenced, what="a fence, though a majority of its site follows")
            assert time.monotonic() - began >= SITE_SECONDS / 2
            await sites.start_managers("manager-2")

            async def opened() -> bool:
                try:
                    return bool(await redis.set("after", 1))
                except Exception:  # noqa: BLE001
                    return False

            await sites.found.eventually(opened, what="writes again")
        assert (await sites.primary()).id == north.id


async def test_sync_writes_wait_for_enough_of_their_own_site() -> None:
    """With one replica here and one there, both must have a write: else the local one might not."""
    async with two_sites() as sites:
        await sites.create(local_replicas=1, durability=Durability.SYNC)
        north, south = await sites.row(NORTH, Role.PRIMARY), await sites.row(SOUTH)
        async with await sites.admin(north) as admin:
            wanted = await admin.config_get("min-replicas-to-write")
            assert wanted["min-replicas-to-write"] == "2"
        async with sites.writing() as writer:
            await writer.further(10)
            await writer.stop()
            told = writer.client.topology

            async def knows() -> bool:
                return writer.client.topology.confirmations == 2

            await sites.found.eventually(knows, what=f"a client that has heard what its group promises, not {told}")
            await sites.agents[SOUTH].kill()  # which would end a server that hangs, and start it again
            with sites.stopped(south), pytest.raises((Unavailable, OutcomeUnknown)):
                await writer.client.execute("SET", "waits", 1, timeout=1.0)
            assert await writer.client.execute("SET", "goes-on", 1, timeout=10.0)

"""Ejecting a primary whose only replica is behind (FAULTS 18): refused in bytes, or done by force and told in bytes."""

from __future__ import annotations

import re

import pytest
from tests.faults.scene import Scene, scene

from redkeep.model.instance import Instance, Status
from redkeep.model.orders import Isolate
from redkeep.orders import BusAgents

pytestmark = [pytest.mark.real, pytest.mark.faults]

EXPIRY = 1.0
LOST = 20_000


async def fall_behind(playing: Scene) -> tuple[Instance, Instance]:
    """The replica follows nobody for a while in which the primary, as its agent reports, writes; then that is lost."""
    primary, (replica,), bus = await playing.primary(), await playing.replicas(), playing.found.bus("test")
    order = Isolate(replica.id, replica.group_id, (await playing.group()).epoch)
    await BusAgents(bus).tell(replica.host_id or "", order)
    await bus.close()
    async with playing.redis(primary) as redis:
        before = int((await redis.info("replication"))["master_repl_offset"])
        await redis.set("lost", "x" * LOST)
    await seen_beyond(playing, primary, before + LOST)
    await playing.lose_host(primary)
    return primary, replica


async def seen_beyond(playing: Scene, primary: Instance, offset: int) -> None:
    """A heartbeat has told the manager that the primary has produced so much."""
    sightings = playing.managers[0].service._sightings

    async def told() -> bool:
        seen = sightings.last_seen(primary.id)
        return seen is not None and seen.offset > offset

    await playing.found.eventually(told, what="a heartbeat that tells of the last write")


async def eject(playing: Scene, primary: Instance, *, force: bool) -> None:
    """Ask until the heartbeat of its host is old enough to be allowed to."""

    async def taken() -> bool:
        assert playing.found.api is not None
        body = {"eject_replica_source": {"force": force}}
        reply = await playing.found.api.post(f"/instances/{primary.id}/action", json=body)
        return reply.status_code == 202

    await playing.found.eventually(taken, 30, what="an order to eject")


async def test_18_a_primary_is_not_ejected_for_a_replica_that_is_known_to_be_behind_except_by_force() -> None:
    async with scene(hosts=2, replicas=1, api={"heartbeat_expiry_seconds": EXPIRY}) as playing:
        (one, *_) = await playing.members()
        await playing.found.call("POST", f"/instances/{one.id}/action", {"pause_failover": {}}, expect=202)
        primary, replica = await fall_behind(playing)

        await eject(playing, primary, force=False)
        await playing.found.idle()
        refused = next(event.text for event in await playing.events() if event.kind == "eject_primary")
        assert int(re.findall(r"lacks (\d+) bytes", refused)[0]) >= LOST
        assert (await playing.primary()).id == primary.id
        assert {row.status for row in await playing.members()} == {Status.ACTIVE}

        await eject(playing, primary, force=True)
        told = await playing.found.eventually(lambda: ejection(playing, replica), 30, what="the ejection")
        assert int(re.findall(r"lacks (\d+) bytes", told)[0]) >= LOST
        assert await playing.accepts_writes(replica)


async def ejection(playing: Scene, replica: Instance) -> str | None:
    """What is told of it in the group that is left."""
    assert playing.found.store is not None
    async with playing.found.store.read() as tx:
        events = await tx.events(group_id=replica.group_id)
    return next((event.text for event in events if "was ejected" in event.text), None)

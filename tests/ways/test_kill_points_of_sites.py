"""The manager that moves a group to another site dies at a step, and with it the one that works on the whole failover:
another one finishes, and everything is where it belongs."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.two_sites import NORTH, OPEN, SOUTH, two_sites

from redkeep.model.operation import Kind
from redkeep.model.site import ReplicationStatus
from redkeep.model.topology import Role
from redkeep.testing.stack import kill_at

pytestmark = [pytest.mark.real]

IN_ORDER = ("look", "choose", "hold writes", "promote", "repoint", "record", "tell")
FORCED = ("look", "choose", "wait out its word", "choose again", "promote", "record", "repoint")
WAYS = [(Kind.PROMOTE_REPLICA, step) for step in IN_ORDER] + [(Kind.FAIL_OVER, step) for step in FORCED]


@pytest.mark.parametrize(("kind", "step"), WAYS, ids=str)
async def test_another_manager_finishes_what_one_began(kind: Kind, step: str) -> None:
    dead, forced = asyncio.Event(), kind is Kind.FAIL_OVER
    async with two_sites("first", at_step=kill_at(kind, step, dead)) as sites:
        await sites.create()
        north = await sites.row(NORTH)
        await sites.write(north, "kept", "through it all")

        await sites.begin(SOUTH, forced=forced)
        async with asyncio.timeout(30):
            await dead.wait()
        await sites.managers["first"].kill()
        await sites.start_managers("second")

        async def over() -> bool:
            return (await sites.cluster()).replication_status is not OPEN

        await sites.found.eventually(over, 60, what="the end of the failover")
        row = await sites.cluster()
        assert (row.replication_status, row.active_backend_id) == (ReplicationStatus.FAILED_OVER, SOUTH)
        await sites.whole(2)
        await sites.found.idle()
        group, primary = await sites.group(), await sites.row(SOUTH)
        assert (group.primary_id, group.successor_id) == (primary.id, None)
        assert (primary.role, (await sites.row(NORTH)).role) == (Role.PRIMARY, Role.REPLICA)
        async with sites.redis(primary) as redis:
            assert await redis.get("kept") == "through it all"
        await sites.write(primary, "goes-on", "1")


@pytest.mark.parametrize(("kind", "steps"), [(Kind.PROMOTE_REPLICA, IN_ORDER), (Kind.FAIL_OVER, FORCED)], ids=str)
async def test_these_are_all_the_steps(kind: Kind, steps: tuple[str, ...]) -> None:
    """A runbook that grows a step grows a kill-point."""
    entered: list[str] = []
    hook = lambda entering, step: entered.append(step) if entering is kind else None  # noqa: E731
    async with two_sites(at_step=hook) as sites:
        await sites.create()
        await sites.fail_over(SOUTH, forced=kind is Kind.FAIL_OVER)
        await sites.found.idle()

    assert tuple(dict.fromkeys(entered)) == steps

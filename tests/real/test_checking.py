"""The checks on real servers, with the harm done by hand while nobody manages the group: each is caught."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from redkeep.model.instance import Instance
from redkeep.model.topology import Address, Role
from redkeep.redis.admin import Admin, Command
from redkeep.testing import invariants
from redkeep.testing.load import load
from redkeep.testing.stack import Stack, stack

pytestmark = pytest.mark.real


@asynccontextmanager
async def unmanaged() -> AsyncIterator[tuple[Stack, Instance, Instance]]:
    """A primary with one replica; whoever made them is gone."""
    async with stack() as found:
        agent, manager = await found.start_agent(), await found.start_manager()
        await found.replicated(replicas=1)
        await invariants.whole(found)
        await manager.kill()
        await agent.kill()
        primary, replica = sorted(await found.rows(), key=lambda one: one.role is not Role.PRIMARY)
        yield found, primary, replica


def address(one: Instance) -> Address:
    assert one.address is not None
    return one.address


async def as_admin(found: Stack, one: Instance, *commands: Command) -> None:
    admin = Admin(address(one), found.vault.unseal((await found.group(one.group_id)).secrets.admin))
    await admin.run(*commands)
    await admin.close()


async def test_two_primaries_and_rows_that_are_not_true_are_caught() -> None:
    async with unmanaged() as (found, primary, replica):
        probes = invariants.Probes([address(primary), address(replica)], found.passwords["db"])
        assert not await invariants.disagreements(found)

        async with probes.running():
            await found.eventually(lambda: accepted_by(probes, primary), what="a write")
            await as_admin(found, replica, ("REPLICAOF", "NO", "ONE"))
            await found.eventually(lambda: accepted_by(probes, replica), what="a write of the second one")
            before = len(probes.accepted)
            await found.eventually(lambda: more(probes, before + 6), what="more writes of both")

        assert invariants.rivals(probes.accepted)
        assert f"{replica.name} is primary, its row says replica" in await invariants.disagreements(found)
        with pytest.raises(AssertionError, match="not whole after"):
            await invariants.whole(found, 0.1)


async def accepted_by(probes: invariants.Probes, one: Instance) -> bool:
    return any(accepted.address == one.address for accepted in probes.accepted)


async def more(probes: invariants.Probes, count: int) -> bool:
    return len(probes.accepted) >= count


async def test_data_that_is_taken_away_and_values_that_are_brought_in_are_caught() -> None:
    async with unmanaged() as (found, primary, replica):
        seeds = [address(primary), address(replica)]
        async with load(seeds, found.passwords["db"], confirmations=1) as writing:
            async with writing.running():
                await writing.further(30)
            before = await invariants.keys(found)
            findings, impossible = await writing.verdict()
            assert findings.sound
            assert not impossible

            await as_admin(found, primary, ("RPUSH", "append:a", 10**9), ("SET", "set:a", 10**9), ("DEL", "append:b"))
            findings, impossible = await writing.verdict()
            assert len(findings.lost) > 1
            assert findings.unexpected == (("append:a", 10**9),)
            assert impossible == ["set:a"]

            await as_admin(found, primary, ("FLUSHALL",))
            assert primary.id in invariants.emptied(before, await invariants.keys(found))


async def test_an_order_that_is_given_twice_changes_nothing_and_one_that_does_is_caught() -> None:
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        primary, replica = await found.replicated(replicas=1)
        promote: dict[str, Any] = {"promote_to_replica_source": {}}

        assert not await invariants.changed_by_repeating(found, "POST", f"/instances/{primary['id']}/action", promote)
        assert await invariants.changed_by_repeating(found, "POST", f"/instances/{replica['id']}/action", promote)

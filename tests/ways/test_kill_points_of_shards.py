"""The manager dies at every mark of what is done to shards; another one finishes, and no key is lost or doubled."""

from __future__ import annotations

import asyncio
import signal

import pytest

from redkeep.model.operation import Kind
from redkeep.testing.shards import ManagedCluster, managed_cluster
from redkeep.testing.stack import Stack, kill_at, stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

QUICK = {"lease_seconds": 1.0, "look_interval": 0.2}
MARKS = {
    Kind.FAIL_OVER_SHARD: ("look", "choose", "take over", "record", "bring back"),
    Kind.PROMOTE_SHARD_REPLICA: ("look", "choose", "hold writes", "take over", "yield", "agree", "record"),
    Kind.REBALANCE_CLUSTER: ("move", "agree", "record"),
}


async def begin(cluster: ManagedCluster, kind: Kind, turn: int) -> None:
    """Something that makes such an operation."""
    primary, replicas = await cluster.shard("1")
    match kind:
        case Kind.FAIL_OVER_SHARD:
            cluster.process(primary).send_signal(signal.SIGKILL)
        case Kind.PROMOTE_SHARD_REPLICA:
            await cluster.submit(kind, {"instance": replicas[0].id})
        case _:
            await cluster.submit(kind, {"weights": {} if turn % 2 else {primary.id: 1.01}, "pace": "fast"})


@pytest.mark.parametrize("kind", list(MARKS))
async def test_another_manager_finishes_what_one_died_in(kind: Kind) -> None:
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        manager = await found.start_manager("maker")
        async with managed_cluster(found, primaries=3, replicas=1) as cluster:
            data = await cluster.fill(3000)
            for turn, mark in enumerate(MARKS[kind]):
                await manager.kill()
                await _dies_at(found, cluster, kind, mark, turn)

                manager = await found.start_manager(f"finisher-{turn}")

                await cluster.settled()
                await cluster.compare(data)
                if kind is Kind.FAIL_OVER_SHARD:
                    assert any("took over" in one.text for one in await cluster.events())


async def _dies_at(found: Stack, cluster: ManagedCluster, kind: Kind, mark: str, turn: int) -> None:
    reached = asyncio.Event()
    doomed = await found.start_manager(f"doomed-{turn}", kill_at(kind, mark, reached))
    await begin(cluster, kind, turn)
    async with asyncio.timeout(60):
        await reached.wait()
    await doomed.kill()

"""Running servers become a cluster, against redis-cli --cluster create: seconds until all are ok and of one view."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.cluster_groups import WHOLE_LIMIT, Nodes, loose_servers, run_cli
from benchmarks.contest import Options, circumstances
from benchmarks.writing import until
from redkeep.agent.service import Agent
from redkeep.api.settings import ApiSettings
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.instance import Group, Instance, RedisUser, Secrets, Status
from redkeep.model.operation import Kind, Operation
from redkeep.model.topology import Address, Role
from redkeep.operations.context import Run, Tools
from redkeep.operations.forming import form
from redkeep.operations.membership import places, running
from redkeep.orders import BusAgents
from redkeep.testing.servers import free_port
from redkeep.testing.stack import Stack, stack
from redkeep.vault import digest, new_password

NAME = "cluster-create"
SHAPES = {"3": (3, 0), "6": (3, 1), "12": (6, 1), "30": (15, 1)}
"""Members: primaries, and replicas of each."""
BOOTED = 3.0
"""Seconds after which a member that was started takes commands: Redis waits two for news after its start."""
PASSWORD = "bench"


def run(options: Options) -> dict[str, Any]:
    """The JSON object."""
    cases: dict[str, dict[str, list[float]]] = {}
    for name, (primaries, replicas) in SHAPES.items():
        cases[name] = {"ours": [], "peer": []}
        for number in range(options.runs):
            cases[name]["ours"].append(asyncio.run(_ours(options.version, primaries, replicas)))
            cases[name]["peer"].append(_peer(options.version, primaries, replicas))
            last = {who: round(found[-1], 3) for who, found in cases[name].items()}
            print(f"run {number + 1}, {name} members: {last}", file=sys.stderr, flush=True)
    figures = {name: _figures(found) for name, found in cases.items()}
    first = figures["6"]
    return {
        "name": NAME,
        "unit": "s",
        "ours": first["ours"],
        "peer": first["peer"],
        "peer_name": "redis-cli",
        "ratio": first["ratio"],
        "runs": options.runs,
        "spread": first["spread"],
        "members": figures,
        "config": {**circumstances(options), "members": "3; 3 + 3; 6 + 6; 15 + 15", "node_timeout_ms": 15000},
    }


def _figures(found: Mapping[str, list[float]]) -> dict[str, Any]:
    ours, peer = statistics.median(found["ours"]), statistics.median(found["peer"])
    return {
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "ratio": round(peer / ours, 1),
        "spread": {"min": round(min(found["ours"]), 3), "max": round(max(found["ours"]), 3)},
        "samples": {who: [round(one, 3) for one in all_] for who, all_ in found.items()},
    }


async def _ours(version: str, primaries: int, replicas: int) -> float:
    """By the runbook's own function, over the bus and an agent, as a manager calls it."""
    async with stack() as found:
        agent = await found.start_agent()
        async with _run(found, agent.service, version, primaries, replicas) as run:
            members = list(run.instances)
            await asyncio.gather(*(run.tell(one, running(run, one), timeout=60) for one in members))
            await asyncio.sleep(BOOTED)
            began = time.monotonic()
            await form(run, places(members, first_epoch=1, slots=True))
            took = time.monotonic() - began
            nodes = Nodes([one.address for one in members if one.address], PASSWORD)
            if not nodes.agree():
                raise AssertionError("it was not done")
            return took


@contextlib.asynccontextmanager
async def _run(found: Stack, _agent: Agent, version: str, primaries: int, replicas: int) -> AsyncIterator[Run]:
    """The rows of a cluster whose servers are to be started, under a lease."""
    assert found.store is not None
    key, host = str(uuid.uuid4()), "host-1"
    secrets = Secrets(found.vault.seal(new_password()), found.vault.seal(new_password()))
    group = Group(key, "admin", secrets, None, users=(RedisUser("default", digest(PASSWORD)),))
    rows = [
        Instance(
            str(uuid.uuid4()), key, "admin", f"member-{shard}-{at}", Role.REPLICA if at else Role.PRIMARY,
            Status.BUILD, "3", 1, version, 0, 0, host, Address("127.0.0.1", free_port()), shard=str(shard),
        )
        for at in range(replicas + 1)
        for shard in range(1, primaries + 1)
    ]  # fmt: skip
    async with found.store.begin() as tx:
        now = await tx.now()
        await tx.save(group, Cluster(key, "admin", "bench", version, ClusterTask.BUILDING, now, now), *rows)
    claimed = await found.store.claim(key, "bench", 300)
    if claimed is None:
        raise AssertionError("the lease of a new group is free")
    bus = found.bus("bench")
    tools = Tools(found.store, BusAgents(bus), bus, {one.id: one for one in ApiSettings().flavors})
    operation = Operation(str(uuid.uuid4()), key, Kind.CREATE_CLUSTER, now)
    try:
        yield Run(tools, "bench", operation, replace(claimed), tuple(rows))
    finally:
        await bus.close()


def _peer(version: str, primaries: int, replicas: int) -> float:
    servers = loose_servers(primaries * (replicas + 1), version)
    try:
        time.sleep(BOOTED)
        began = time.monotonic()
        addresses = [str(one.address) for one in servers]
        run_cli("create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes")
        nodes = Nodes([one.address for one in servers])
        until(nodes.agree, WHOLE_LIMIT, "a cluster made by redis-cli")
        return time.monotonic() - began
    finally:
        for one in servers:
            one.close()


def table(found: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [f"{NAME}: seconds until every member says ok and all agree, {found['runs']} runs each", ""]
    lines.append(f"{'members':<10}{'redkeep':>10}{'redis-cli':>12}{'ratio':>8}")
    lines += [
        f"{name:<10}{row['ours']:>10}{row['peer']:>12}{row['ratio']:>8}" for name, row in found["members"].items()
    ]
    return "\n".join(lines)

"""A whole site fails over, in order and by force, against promoting the same servers by hand: seconds, as it grows.

Two sites of separate processes, three managers. The floor is a loop of commands to the very same servers, as many at a
time, while nobody of Redkeep runs: pause writers, wait for the offset, promote, repoint, release.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from benchmarks.contest import Options, circumstances
from benchmarks.writing import Failed
from redkeep.backends.redis_sites import PARALLEL
from redkeep.model.instance import Instance
from redkeep.model.site import Backend, ReplicationStatus, ReplicationTarget
from redkeep.redis.conf import ADMIN
from redkeep.store.sql import open_store
from redkeep.testing.sites import NORTH, PROGRESS, SOUTH, Stuck, TwoSites, two_sites
from redkeep.testing.stack import stack
from redkeep.vault import Vault

NAME = "site-failover"
HEADERS = {"OpenStack-API-Version": "volume 3.26"}
MOST_RUNS = 5
"""There and back: one run takes minutes on a small machine."""


def run(options: Options) -> dict[str, Any]:
    """The JSON object."""
    runs = min(options.runs, MOST_RUNS)
    logging.getLogger("redkeep").setLevel(logging.ERROR)
    try:
        cases = {str(count): asyncio.run(_case(count, runs)) for count in options.instances}
        told = {str(count): asyncio.run(_told(count, runs)) for count in options.managers}
    except Stuck as error:
        raise Failed(str(error)) from error
    return {
        "name": NAME,
        "unit": "s",
        "runs": runs,
        "instances": cases,
        "managers": told,
        "config": {
            **{name: value for name, value in circumstances(options).items() if name in ("redis", "python", "cores")},
            "parallel": PARALLEL,
            "load_average": round(os.getloadavg()[0], 2),
        },
    }


# --- instances ----------------------------------------------------------------------------------------------------


async def _case(count: int, runs: int) -> dict[str, Any]:
    print(f"{count} instances", file=sys.stderr, flush=True)
    in_order, forced, floor = [], [], []
    async with two_sites() as found:
        await found.order(count)
        pairs = await _pairs(found)
        for _ in range(runs):
            for target in (SOUTH, "default"):
                in_order.append(await _fail_over(found, target))
                await found.until(found.healthy, 300, "health of all")
            floor.append(await _by_hand(found, pairs))
            await found.until(found.healthy, 300, "health of all, after it was done by hand")
            forced.append(await _fail_over(found, SOUTH, forced=True))
            await found.until(found.healthy, 300, "health of all, after it was forced")
            await _fail_over(found, "default")
            await found.until(found.healthy, 300, "health of all")
        lease = found.site_lease
    beyond = [max(0.0, took - lease) for took in forced]
    return {
        "in_order": _figures(in_order),
        "forced": _figures(forced),
        "forced_beyond_the_lease": _figures(beyond),
        "floor": _figures(floor),
        "ratio": round(statistics.median(in_order) / statistics.median(floor), 1),
    }


async def _fail_over(found: TwoSites, target: str, *, forced: bool = False) -> float:
    """Seconds. Raises Stuck when it was refused again and again: the machine is too busy to measure anything."""
    reason = ""
    for _ in range(5):
        took, cluster = await found.fail_over(target, forced=forced)
        reason = cluster[PROGRESS].get("error") or ""
        if not reason:
            return took
        print(f"refused: {reason[:200]}", file=sys.stderr, flush=True)
        await asyncio.sleep(2)
    raise Stuck(f"a failover to {target} is refused: {reason}")


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary and its replica, as plain Redis servers."""

    primary: Instance
    replica: Instance
    password: str


async def _pairs(found: TwoSites) -> list[Pair]:
    vault = Vault.open(found.directory / "secret.key", create=False)
    store = await open_store(f"sqlite:///{found.directory}/redkeep.db")
    try:
        async with store.read() as tx:
            groups, instances = await tx.groups(), await tx.instances()
    finally:
        await store.close()
    by_site = {(one.group_id, one.site): one for one in instances}
    return [
        Pair(by_site[one.id, NORTH], by_site[one.id, SOUTH], vault.unseal(one.secrets.admin))
        for one in groups
        if (one.id, SOUTH) in by_site
    ]


async def _by_hand(found: TwoSites, pairs: Sequence[Pair]) -> float:
    """There, measured; and back, so that Redkeep finds everything as it was."""
    room = asyncio.Semaphore(PARALLEL)

    async def one(pair: Pair, *, back: bool) -> None:
        old, new = (pair.replica, pair.primary) if back else (pair.primary, pair.replica)
        async with room, _client(old, pair.password) as source, _client(new, pair.password) as target:
            await source.client_pause(60_000, all=False)
            mark = (await source.info("replication"))["master_repl_offset"]
            while (await target.info("replication"))["slave_repl_offset"] < mark:
                await asyncio.sleep(0.0005)
            await target.replicaof("NO", "ONE")
            assert new.address is not None
            await source.replicaof(new.address.host, new.address.port)
            await source.client_unpause()

    with _nobody_else(found):
        began = time.perf_counter()
        await asyncio.gather(*(one(pair, back=False) for pair in pairs))
        took = time.perf_counter() - began
        await _until_linked(pairs)
        await asyncio.gather(*(one(pair, back=True) for pair in pairs))
    return took


async def _until_linked(pairs: Sequence[Pair]) -> None:
    async def linked(pair: Pair) -> None:
        async with _client(pair.primary, pair.password) as redis:
            while (await redis.info("replication")).get("master_link_status") != "up":
                await asyncio.sleep(0.02)

    async with asyncio.timeout(60):
        await asyncio.gather(*(linked(pair) for pair in pairs))


def _client(one: Instance, password: str) -> Redis:
    assert one.address is not None
    return Redis(host=one.address.host, port=one.address.port, username=ADMIN, password=password, socket_timeout=30)


@contextmanager
def _nobody_else(found: TwoSites) -> Iterator[None]:
    """Redkeep's own processes stand still: neither do they help, nor do they put anything right."""
    for process in found.processes.values():
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in found.processes.values():
            process.send_signal(signal.SIGCONT)


# --- managers -----------------------------------------------------------------------------------------------------


async def _told(count: int, runs: int) -> dict[str, Any]:
    """Seconds from the request to the moment at which all of so many managers have followed. There is nothing to move:
    what is measured is the telling. All of them are in one process, or a small machine could not hold them."""
    print(f"{count} managers", file=sys.stderr, flush=True)
    backend = Backend(driver="redis_sites", site=NORTH, targets=(ReplicationTarget(SOUTH, SOUTH),))
    quiet = {"backend": backend, "look_interval": 5.0, "canary_interval": 3600.0, "report_interval": 5.0}
    samples = []
    async with stack(backend=backend, api_options={"sites": backend}, manager_options=quiet) as found:
        for number in range(count):
            await found.start_manager(f"manager-{number}")
        assert found.api is not None
        assert found.store is not None
        for turn in range(2 * runs):
            target = SOUTH if turn % 2 == 0 else "default"
            began = time.perf_counter()
            body = {"cluster": "managers", "backend_id": target, "forced": False}
            url = "http://redkeep.test/v3/admin/os-services/failover"
            reply = await found.api.put(url, json=body, headers=HEADERS)
            if not reply.is_success:
                raise Stuck(reply.text)
            while True:
                async with found.store.read() as tx:
                    (row,), services = await tx.service_clusters(), await tx.services()
                over = row.replication_status is not ReplicationStatus.FAILING_OVER
                if over and all(one.applied_epoch == row.epoch for one in services):
                    break
                if time.perf_counter() - began > 120:
                    raise Stuck(f"{count} managers have not followed in 120 s")
                await asyncio.sleep(0.005)
            samples.append(time.perf_counter() - began)
    return _figures(samples)


def _figures(samples: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(samples), 3),
        "min": round(min(samples), 3),
        "max": round(max(samples), 3),
        "samples": [round(one, 3) for one in samples],
    }


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{NAME}: seconds (median of {found['runs']} runs)", ""]
    lines.append(f"{'instances':>10}{'in order':>12}{'by hand':>12}{'ratio':>8}{'forced':>10}{'beyond the lease':>20}")
    for count, case in found["instances"].items():
        figures = [case[name]["median"] for name in ("in_order", "floor")]
        forced = [case[name]["median"] for name in ("forced", "forced_beyond_the_lease")]
        lines.append(f"{count:>10}{figures[0]:>12}{figures[1]:>12}{case['ratio']:>8}{forced[0]:>10}{forced[1]:>20}")
    lines += ["", f"{'managers':>10}{'all told':>12}"]
    lines += [f"{count:>10}{figures['median']:>12}" for count, figures in found["managers"].items()]
    return "\n".join(lines)

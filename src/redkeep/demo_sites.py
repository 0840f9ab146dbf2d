"""`redkeep demo --sites`: a backend of two sites fails over and back under load, in order and by force.

It prints how long each took, how many acknowledged writes were lost, and what each manager says; and fails when
anything did not hold: in order nothing may be lost, and by force nothing that is older than the loss of the site.
"""

from __future__ import annotations

import time

import httpx
from rich.console import Console
from rich.table import Table

from redkeep.testing.sites import NORTH, PROGRESS, SOUTH, Fleet, Stuck, TwoSites, fleet, two_sites
from redkeep.testing.writer import Writer

BOUND = 2.0
"""Seconds before the loss of a site within which what was acknowledged may be lost: replicas elsewhere are fed at
once, and one that is further behind is a fault."""

TRIES = 5
"""How often a failover in order may be refused, since something is not in step, on a machine that is too busy."""

console = Console(highlight=False)


class Failed(Exception):
    """Something that the demo promises did not hold."""


async def run(*, instances: int = 50) -> int:
    """The demo; the exit status: 0 only if all of it held."""
    began = time.monotonic()
    try:
        async with two_sites() as found:
            await _play(found, instances)
    except (Failed, Stuck, TimeoutError, httpx.HTTPError) as error:
        console.print(f"\n[bold red]It did not hold:[/] {error!s}", markup=True)
        return 1
    console.print(f"\n[bold green]All of it held[/], in {time.monotonic() - began:.0f} s.")
    return 0


async def _play(found: TwoSites, count: int) -> None:
    _title(f"1. Two sites, three managers, {count} instances with a replica at the other site")
    began = time.monotonic()
    ordered = await found.order(count)
    _say(f"{count} instances and {count} replicas run after {time.monotonic() - began:.0f} s")
    async with fleet(ordered) as writers:
        await writers.all_write()
        _say(f"{count} clients write without pause from now on")

        _title("2. In order: both sites live, and nothing may be lost")
        await _in_order(found, writers, SOUTH)
        await _in_order(found, writers, "default")

        _title(f"3. By force: site {NORTH} is lost, with two of the three managers")
        await _forced(found, writers)

        _title(f"4. Site {NORTH} is back")
        await _come_back(found, writers)
        await _in_order(found, writers, "default")


async def _in_order(found: TwoSites, writers: Fleet, target: str) -> None:
    for _ in range(TRIES):
        began = time.monotonic()
        took, cluster = await found.fail_over(target, forced=False)
        if not (reason := cluster[PROGRESS].get("error")):
            break
        _say(f"to {target}: refused, and nothing was changed: {reason[:160]}")
    else:
        raise Failed(f"it was refused {TRIES} times")
    await writers.all_write()
    where = NORTH if target == "default" else target
    await _require_primaries(found, where)
    _say(
        f"to {target}: {took:.2f} s for all; no instance was without a write for longer than "
        f"{writers.longest_gap(began) * 1000:.0f} ms"
    )
    if lost := await writers.lost():
        raise Failed(f"{sum(map(len, lost.values()))} acknowledged writes are lost: {lost}")
    _say(f"   {writers.acknowledged} acknowledged writes so far, 0 lost")
    await _show_views(found, cluster[PROGRESS]["followed"])


async def _forced(found: TwoSites, writers: Fleet) -> None:
    lost_at = time.monotonic()
    found.lose(NORTH)
    took, cluster = await found.fail_over(SOUTH, forced=True)
    await writers.all_write()
    await _require_primaries(found, SOUTH)
    _say(
        f"to {SOUTH}: {took:.2f} s for all, {found.site_lease:g} s of it until the last word of {NORTH} was over; "
        f"writes were away for {writers.longest_gap(lost_at):.2f} s"
    )
    lost = await writers.lost()
    old = [number for one in writers.writers for number in lost.get(one.prefix, ()) if _before(one, number, lost_at)]
    if old:
        raise Failed(f"{len(old)} lost writes are older than {BOUND:g} s before the loss of the site")
    _say(
        f"   {writers.acknowledged} acknowledged writes so far, {sum(map(len, lost.values()))} lost, all of the last "
        f"{BOUND:g} s before the site was"
    )
    named = [one for one in cluster[PROGRESS]["volume_updates"] if "may be lost" in one["detail"]]
    _say(f"   for {len(named)} instances the failover names what may be lost, the first: {named[0]['detail']}")
    writers.forget(lost)
    await _show_views(found, cluster[PROGRESS]["followed"])


def _before(writer: Writer, number: int, lost_at: float) -> bool:
    return writer.times[writer.acknowledged.index(number)] < lost_at - BOUND


async def _come_back(found: TwoSites, writers: Fleet) -> None:
    began = time.monotonic()
    found.start(NORTH)
    await found.ask("default", forced=False)
    await found.until(found.has_ended, 300, "an answer to a failback that comes too soon")
    shown = await found.cluster()
    if shown["replication_status"] == "failed-over":
        _say(f"failing back at once is refused, and changes nothing: {shown[PROGRESS]['error'][:120]}")
    else:
        raise Failed(f"failing back at once was not refused: {shown['replication_status']}")
    await found.until(found.healthy, 300, "the resynchronisation of all")
    kept = list((found.directory / "servers").glob("*.diverged/*/*"))
    _say(f"all have resynchronised after {time.monotonic() - began:.1f} s; {len(kept)} kept first what only they had")
    await found.until(found.all_are_up, 60, "all managers")
    await writers.all_write()


async def _require_primaries(found: TwoSites, site: str) -> None:
    where = await found.primaries_at()
    if any(count for name, count in where.items() if name != site):
        raise Failed(f"the primaries are at {where}, not all at {site}")


async def _show_views(found: TwoSites, followed: int) -> None:
    rows = await found.views()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("     MANAGER", "STATE", "REPLICATION", "ACTIVE AT"):
        table.add_column(name)
    for one in rows:
        active = one["active_backend_id"] or "default"
        table.add_row(f"     {one['host']}", one["state"], one["replication_status"], active)
    console.print(table)
    console.print(f"     {followed} of {len(rows)} managers have followed")


def _title(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _say(text: str) -> None:
    console.print(f"   {text}", markup=False)

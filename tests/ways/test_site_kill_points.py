"""A site failover whose doer dies at every step, and members that restart at every step: at the end both sites, all
rows and all drivers agree, and the storage was moved once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.ways.site_scene import Scene, dies_at, scene

from redkeep.operations.fail_over_site import STEPS

WAYS = {"over": ("dr1",), "on": ("dr1", "dr2"), "back": ("dr1", "default")}


async def brought_to(site: Scene, targets: tuple[str, ...]) -> str:
    """Everything up to the last target; returns that."""
    for target in targets[:-1]:
        await site.ask(target)
        await site.settled(target)
    return targets[-1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
async def test_when_the_doer_dies_at_a_step_another_one_finishes(tmp_path: Path, way: str, step: str) -> None:
    async with scene(tmp_path) as site:
        await site.start_all("m1", "m2", "m3")
        target = await brought_to(site, WAYS[way])
        dead = asyncio.Event()
        hook = dies_at(step, dead)
        for member in site.members.values():
            member.membership._at_step = hook

        await site.ask(target)
        await asyncio.wait_for(dead.wait(), 60)
        (doer,) = [
            one
            for one in site.members.values()
            if one.membership._worker is not None
            and one.membership._worker.done()
            and one.membership._worker.exception() is not None
        ]
        await doer.kill()
        others = [name for name in site.members if name != doer.name]
        await site.settled(target, *others)
        await site.start(doer.name)
        await site.settled(target)

        assert site.storage.moves == list(WAYS[way])


@pytest.mark.parametrize("step", STEPS)
async def test_whoever_dies_at_a_step_all_of_them_one_after_the_other_it_ends_well(tmp_path: Path, step: str) -> None:
    """Two doers die at the same step before the third gets through."""
    async with scene(tmp_path) as site:
        for name in ("m1", "m2"):
            dead = asyncio.Event()
            doer = await site.start(name, dies_at(step, dead))
            if name == "m1":
                await site.ask("dr1")
            over = asyncio.create_task(site.until("failed-over"))
            died = asyncio.create_task(dead.wait())
            await asyncio.wait({over, died}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
            for waiting in (over, died):
                waiting.cancel()
            await doer.kill()

        await site.start("m3")
        await site.settled("dr1", "m3")
        await site.start_all("m1", "m2")
        await site.settled("dr1")

        assert site.storage.moves == ["dr1"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_member_that_restarts_at_a_step_changes_nothing_and_is_where_the_others_are(
    tmp_path: Path, step: str
) -> None:
    async with scene(tmp_path, lease_seconds=3600.0) as site:
        dead = asyncio.Event()
        await site.start_all("m2", "m3")
        for name in ("m2", "m3"):
            await site.members[name].kill()
        doer = await site.start("m1", dies_at(step, dead))
        await site.ask("dr1")
        await asyncio.wait_for(dead.wait(), 60)
        await doer.kill()
        before = await site.cluster()

        await site.start_all("m2", "m3")
        joined = await site.cluster()
        await site.restart("m2")
        await site.store.release_cluster(joined.id, joined.holder or "", joined.lease_epoch)
        await site.settled("dr1", "m2", "m3")

        assert joined == before
        assert site.storage.moves == ["dr1"]

"""A failover of a backend whose rows are in PostgreSQL, where transactions run at once: what SQLite does one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.ways.site_scene import CLUSTER, dies_at, scene

from redkeep.operations.fail_over_site import STEPS


async def test_managers_that_start_at_once_fail_over_and_back_and_freeze(tmp_path: Path, postgres_url: str) -> None:
    async with scene(tmp_path, url=postgres_url) as site:
        await asyncio.gather(*(site.start(f"m{n}") for n in range(5)))

        for target in ("dr1", "dr2", "default"):
            answers = await asyncio.gather(
                *(site.put("failover", cluster=CLUSTER, backend_id=target) for _ in range(4)),
                site.put("freeze", cluster=CLUSTER),
            )
            await site.settled(target)
            assert (await site.put("thaw", cluster=CLUSTER)).status_code == 200
            # One was accepted; the others came while it went on (400), or found it done (202, and nothing happens).
            assert {answer.status_code for answer in answers[:4]} <= {202, 400}
            assert answers[-1].status_code == 200

        assert site.storage.moves == ["dr1", "dr2", "default"]
        assert (await site.cluster()).epoch == 3


@pytest.mark.parametrize("step", STEPS)
async def test_when_the_doer_dies_at_a_step_another_one_finishes(tmp_path: Path, postgres_url: str, step: str) -> None:
    async with scene(tmp_path, url=postgres_url) as site:
        dead = asyncio.Event()
        doer = await site.start("m1", dies_at(step, dead))
        await site.ask("dr1")
        await asyncio.wait_for(dead.wait(), 60)
        await doer.kill()

        await site.start("m2")
        await site.settled("dr1", "m2")
        await site.start("m1")
        await site.settled("dr1")

        assert site.storage.moves == ["dr1"]

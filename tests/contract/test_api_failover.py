"""The operator's switch for automatic failover of all groups."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.api_world import World, fault, world


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found:
        yield found


async def test_failover_of_all_groups_is_paused_and_resumed(keep: World) -> None:
    before = (await keep.call("GET", "/failover")).json()
    answer = await keep.call("PUT", "/failover", {"paused": True})
    again = await keep.call("PUT", "/failover", {"paused": True})
    paused = (await keep.call("GET", "/failover")).json()
    await keep.call("PUT", "/failover", {"paused": False})

    assert (before, paused) == ({"paused": False}, {"paused": True})
    assert (answer.status_code, again.status_code) == (202, 202)
    assert (await keep.call("GET", "/failover")).json() == before


@pytest.mark.parametrize("body", [{}, {"paused": "yes"}, {"paused": 1}, {"paused": True, "until": 3}])
async def test_a_switch_is_on_or_off(keep: World, body: dict[str, object]) -> None:
    assert fault(await keep.call("PUT", "/failover", body))[:2] == (400, "badRequest")

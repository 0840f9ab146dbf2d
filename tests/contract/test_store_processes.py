"""Several processes on one store, and one that is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redkeep.model.instance import Group, Secrets
from redkeep.store import SqlStore, open_store

WORKER = Path(__file__).with_name("store_worker.py")
COUNTS, LEASES = 40, 30  # as in the worker


def a_group(group_id: str) -> Group:
    return Group(group_id, "p", Secrets("a", "r"), None)


class Worker:
    """A process that runs the tasks of `store_worker.py`."""

    def __init__(self, name: str) -> None:
        self.name = name
        command = [sys.executable, "-W", "error", str(WORKER)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, task: str, url: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([task, url, self.name]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker ended with status {self.process.wait(10)}"
        return json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


@contextlib.contextmanager
def workers(number: int) -> Iterator[list[Worker]]:
    """Processes that have imported all they need, and wait for a task."""
    team = [Worker(f"m{n}") for n in range(number)]
    try:
        assert [worker.answer() for worker in team] == ["ready"] * number
        yield team
    finally:
        for worker in team:
            worker.kill()


@pytest.fixture(scope="module")
def team() -> Iterator[list[Worker]]:
    with workers(3) as team:
        yield team


def all_at_once(team: list[Worker], task: str, url: str) -> list[Any]:
    for worker in team:
        worker.begin(task, url)
    return [worker.answer() for worker in team]


def test_processes_that_open_a_new_database_at_once_all_succeed(database_url: str, team: list[Worker]) -> None:
    assert all_at_once(team, "look", database_url) == [0, 0, 0]


async def test_processes_that_lock_a_group_take_turns(store: SqlStore, database_url: str, team: list[Worker]) -> None:
    async with store.begin() as unit:
        await unit.save(a_group("g"))

    assert all_at_once(team, "count", database_url) == [COUNTS] * 3

    async with store.read() as unit:
        group = await unit.group("g")
    assert group is not None
    assert group.topology_epoch == 3 * COUNTS


async def test_every_lease_is_won_by_exactly_one_process(
    store: SqlStore, database_url: str, team: list[Worker]
) -> None:
    ids = [f"g{n}" for n in range(LEASES)]
    async with store.begin() as unit:
        await unit.save(*(a_group(group_id) for group_id in ids))

    won = dict(zip([worker.name for worker in team], all_at_once(team, "claim", database_url), strict=True))

    async with store.read() as unit:
        held = [await unit.group(group_id) for group_id in ids]
    assert sorted(group_id for part in won.values() for group_id in part) == sorted(ids)
    assert all(group and group.epoch == 1 and group.id in won[str(group.holder)] for group in held)


async def test_a_process_that_is_killed_in_a_transaction_leaves_nothing_half_done(database_url: str) -> None:
    with workers(1) as (worker,):
        worker.begin("hang", database_url)
        assert worker.answer() == "half"
        worker.kill()

    store = await open_store(database_url)
    async with store.begin() as unit:
        assert await unit.group("half") is None
        await unit.save(a_group("whole"))
    async with store.read() as unit:
        assert await unit.group("whole") == a_group("whole")
    await store.close()

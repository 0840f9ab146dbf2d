"""Several processes on one store, and one that is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redkeep.model.instance import Group, Secrets
from redkeep.store import open_store

WORKER = Path(__file__).with_name("store_worker.py")
COUNTS, LEASES = 40, 30  # as in the worker


class Worker:
    """A process that runs one task of `store_worker.py`."""

    def __init__(self, url: str, task: str, name: str) -> None:
        command = [sys.executable, "-W", "error", str(WORKER), url, task, name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker ended with status {self.process.wait(10)}"
        return json.loads(line)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def workers(url: str, task: str, *, number: int = 2) -> Iterator[list[Worker]]:
    """Processes that have imported everything and start to work at the same moment."""
    team = [Worker(url, task, f"m{n}") for n in range(number)]
    try:
        for worker in team:
            assert worker.hear() == "ready"
        for worker in team:
            worker.go()
        yield team
    finally:
        for worker in team:
            worker.kill()
            for stream in (worker.process.stdin, worker.process.stdout):
                assert stream is not None
                stream.close()


def test_processes_that_open_a_new_database_at_once_all_succeed(database_url: str) -> None:
    with workers(database_url, "open", number=4) as team:
        assert [worker.hear() for worker in team] == [0, 0, 0, 0]
        assert [worker.process.wait(10) for worker in team] == [0, 0, 0, 0]


async def test_processes_that_lock_a_group_take_turns(database_url: str) -> None:
    store = await open_store(database_url)
    async with store.begin() as unit:
        await unit.save(Group("g", "p", Secrets("a", "r"), None))

    with workers(database_url, "count") as team:
        assert [worker.hear() for worker in team] == [COUNTS, COUNTS]

    async with store.read() as unit:
        group = await unit.group("g")
    await store.close()
    assert group is not None
    assert group.topology_epoch == 2 * COUNTS


async def test_every_lease_is_won_by_exactly_one_process(database_url: str) -> None:
    ids = [f"g{n}" for n in range(LEASES)]
    store = await open_store(database_url)
    async with store.begin() as unit:
        await unit.save(*(Group(group_id, "p", Secrets("a", "r"), None) for group_id in ids))

    with workers(database_url, "claim") as team:
        won = [worker.hear() for worker in team]

    async with store.read() as unit:
        held = [await unit.group(group_id) for group_id in ids]
    await store.close()
    assert sorted(won[0] + won[1]) == sorted(ids)
    assert all(group and group.epoch == 1 and group.id in won[int(str(group.holder)[1:])] for group in held)


async def test_a_process_that_is_killed_in_a_transaction_leaves_nothing_half_done(database_url: str) -> None:
    with workers(database_url, "hang", number=1) as (worker,):
        assert worker.hear() == "half"
        worker.kill()

    store = await open_store(database_url)
    async with store.begin() as unit:
        assert await unit.group("half") is None
        await unit.save(Group("whole", "p", Secrets("a", "r"), None))
    async with store.read() as unit:
        assert await unit.group("whole") is not None
    await store.close()

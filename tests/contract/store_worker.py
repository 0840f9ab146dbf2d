"""Another process at work on the same store. Reads `["task", "url", "name"]` line by line; answers each with a line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from redkeep.model.instance import Group, Secrets
from redkeep.store import SqlStore, open_store

COUNTS = 40
LEASES = 30


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def look(store: SqlStore, _name: str) -> int:
    """How many groups are there?"""
    async with store.read() as unit:
        return len(await unit.groups())


async def count(store: SqlStore, _name: str) -> int:
    """Raise a number that others raise, too; several tasks at once. Answers how often."""

    async def raise_by_one() -> None:
        async with store.begin() as unit:
            group = await unit.group("g", lock=True)
            assert group is not None
            await unit.save(replace(group, topology_epoch=group.topology_epoch + 1))

    for _ in range(COUNTS // 4):
        await asyncio.gather(*(raise_by_one() for _ in range(4)))
    return COUNTS


async def claim(store: SqlStore, name: str) -> list[str]:
    """Try to get every lease. Answers which it got."""
    answers = [await store.claim(f"g{n}", name, 60.0) for n in range(LEASES)]
    return [group.id for group in answers if group]


async def hang(store: SqlStore, _name: str) -> None:
    """Save half of something, say so, and never go on."""
    async with store.begin() as unit:
        await unit.save(Group("half", "p", Secrets("a", "r"), None))
        say("half")
        await asyncio.Event().wait()


TASKS: dict[str, Callable[[SqlStore, str], Awaitable[Any]]] = {
    "look": look,
    "count": count,
    "claim": claim,
    "hang": hang,
}


async def work(task: str, url: str, name: str) -> Any:
    store = await open_store(url)
    try:
        return await TASKS[task](store, name)
    finally:
        await store.close()


if __name__ == "__main__":
    say("ready")
    for line in sys.stdin:
        say(asyncio.run(work(*json.loads(line))))

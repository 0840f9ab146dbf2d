"""Another process at work on the same store: `store_worker.py URL TASK NAME`. Says "ready", waits for a line, works."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

from redkeep.model.instance import Group, Secrets
from redkeep.store import open_store

COUNTS = 40
LEASES = 30


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def heard() -> str:
    return sys.stdin.readline()


async def open_and_close(url: str, _name: str) -> None:
    """Open the store, which may be new."""
    store = await open_store(url)
    async with store.read() as unit:
        say(len(await unit.groups()))
    await store.close()


async def count(url: str, _name: str) -> None:
    """Raise a number that others raise, too; some of it from several tasks."""
    store = await open_store(url)

    async def raise_by_one() -> None:
        async with store.begin() as unit:
            group = await unit.group("g", lock=True)
            assert group is not None
            await unit.save(replace(group, topology_epoch=group.topology_epoch + 1))

    for _ in range(COUNTS // 4):
        await asyncio.gather(*(raise_by_one() for _ in range(4)))
    say(COUNTS)
    await store.close()


async def claim(url: str, name: str) -> None:
    """Try to get every lease; say which it got."""
    store = await open_store(url)
    answers = [await store.claim(f"g{n}", name, 60.0) for n in range(LEASES)]
    say([group.id for group in answers if group])
    await store.close()


async def hang_in_the_middle(url: str, _name: str) -> None:
    """Save half of something, say so, and never go on."""
    store = await open_store(url)
    async with store.begin() as unit:
        await unit.save(Group("half", "p", Secrets("a", "r"), None))
        say("half")
        await asyncio.Event().wait()


TASKS: dict[str, Callable[[str, str], Awaitable[None]]] = {
    "open": open_and_close,
    "count": count,
    "claim": claim,
    "hang": hang_in_the_middle,
}


async def main() -> None:
    url, task, name = sys.argv[1:]
    say("ready")
    heard()
    await TASKS[task](url, name)


if __name__ == "__main__":
    asyncio.run(main())

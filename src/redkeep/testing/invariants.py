"""What must hold of a stack whatever was done to it: the invariants of the fault list, as functions that name breaches.

I1 never two primaries that accept writes (`Probes`, `rivals`) · I2 nothing acknowledged is lost (`history.examine`) ·
I3 no data set is emptied (`emptied`) · I4 every operation ends (`unending`) · I5 rows, events and servers agree
(`disagreements`) · I6 asking again changes nothing (`changed_by_repeating`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from redkeep.model.instance import Group, Instance, Status
from redkeep.model.topology import Address, Role
from redkeep.redis import info
from redkeep.redis.conf import ADMIN
from redkeep.testing.stack import Stack

PROBE_PAUSE = 0.02
PROBE_TIMEOUT = 0.5


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A server has accepted a write, at some moment between the two. Each promotion begins another history."""

    address: Address
    history: str
    began: float
    ended: float


def rivals(accepted: Iterable[Acceptance]) -> list[tuple[Acceptance, Acceptance]]:
    """I1: histories that cannot have followed one another, each named by its last acceptance."""
    reigns: dict[tuple[Address, str], list[Acceptance]] = {}
    for one in accepted:
        reigns.setdefault((one.address, one.history), []).append(one)
    spans = [(min(one.ended for one in reign), max(reign, key=lambda one: one.began)) for reign in reigns.values()]
    return [
        (last, other)
        for at, (first, last) in enumerate(spans)
        for begun, other in spans[at + 1 :]
        if last.began >= begun and other.began >= first
    ]


@dataclass
class Probes:
    """Somebody who tries to write to every server of a group without pause, each by its own address."""

    addresses: Sequence[Address]
    password: str
    accepted: list[Acceptance] = field(default_factory=list)
    _over: bool = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Probes]:
        tasks = [asyncio.create_task(self._probe(address), name=f"probe of {address}") for address in self.addresses]
        try:
            yield self
        finally:
            self._over = True  # not cancelled: redis-py may take that for a timeout of its own, and go on
            await asyncio.gather(*tasks)

    async def _probe(self, address: Address) -> None:
        async with _client(address, self.password) as redis:
            while not self._over:
                began = time.monotonic()
                with contextlib.suppress(RedisError, OSError):
                    async with redis.pipeline(transaction=True) as pipe:
                        pipe.set(f"probe:{address.port}", str(began))
                        pipe.info("replication")
                        said = await pipe.execute()
                    history = str(said[1]["master_replid"])
                    self.accepted.append(Acceptance(address, history, began, time.monotonic()))
                await asyncio.sleep(PROBE_PAUSE)


def emptied(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """I3: servers that had keys and have none, given the keys of each."""
    return [name for name, keys in before.items() if keys and now.get(name) == 0]


async def keys(stack: Stack) -> dict[str, int]:
    """Keys of every server that answers, by instance."""
    said = {one.id: await _info(stack, one) for one in await stack.rows()}
    return {name: info.keys(one) for name, one in said.items() if one is not None}


async def unending(stack: Stack) -> list[str]:
    """I4: operations that are open though nothing is to be done any more, or are past their deadline."""
    assert stack.store is not None  # noqa: S101
    async with stack.store.read() as tx:
        return [f"{one.kind} at {one.step!r}: {one.error}" for one in await tx.open_operations()]


async def disagreements(stack: Stack) -> list[str]:
    """I5: where the rows, what the events told last, and the servers themselves do not say the same."""
    rows = await stack.rows()
    found: list[str] = []
    for group_id in {one.group_id for one in rows}:
        group = await stack.group(group_id)
        members = [one for one in rows if one.group_id == group_id]
        found += _among_rows(group, members)
        for one in members:
            found += _of_server(one, await _info(stack, one), group, members)
        found += await _of_events(stack, group, members)
    return found


def _among_rows(group: Group, members: list[Instance]) -> list[str]:
    found = [f"{one.name} is {one.status}: {one.fault}" for one in members if one.status is not Status.ACTIVE]
    if group.successor_id is not None:
        found.append(f"{group.successor_id} was chosen, and is still not primary")
    primaries = [one.id for one in members if one.role is Role.PRIMARY]
    if primaries != [group.primary_id]:
        found.append(f"the rows name {primaries} as primaries, the group {group.primary_id}")
    return found


def _of_server(one: Instance, said: Mapping[str, Any] | None, group: Group, members: list[Instance]) -> list[str]:
    if said is None:
        return [f"{one.name} does not answer"]
    primary = next((other for other in members if other.id == group.primary_id), None)
    if info.role(said) is not one.role:
        return [f"{one.name} is {info.role(said)}, its row says {one.role}"]
    link = info.upstream(said)
    if link is not None and (primary is None or link.primary != primary.address or not link.link_up or link.syncing):
        return [f"{one.name} does not follow {primary.name if primary else 'anybody'}: {link}"]
    online = sum(follower.online for follower in info.followers(said))
    if one.role is Role.PRIMARY and online != len(members) - 1:
        return [f"{online} of {len(members) - 1} replicas follow {one.name}"]
    return []


async def _of_events(stack: Stack, group: Group, members: list[Instance]) -> list[str]:
    """The last event that tells of a change of primary is about the present one."""
    assert stack.store is not None  # noqa: S101
    async with stack.store.read() as tx:
        events = await tx.events(group_id=group.id, limit=1000)
    names = {one.name: one.id for one in members}
    told = (one for one in events if " is primary" in one.text and one.text.split(" is primary")[0] in names)
    last = next(told, None)
    if last is not None and last.instance_id not in (None, group.primary_id):
        return [f"the last event says: {last.text}"]
    return []


async def whole(stack: Stack, limit: float = 60.0) -> None:
    """Wait until nothing is open and all agree; raises AssertionError with what is wrong still."""
    deadline = time.monotonic() + limit
    while wrong := [*await unending(stack), *await disagreements(stack)]:
        if time.monotonic() > deadline:
            raise AssertionError(f"not whole after {limit:g} s: {'; '.join(wrong)}")
        await asyncio.sleep(0.05)


async def changed_by_repeating(stack: Stack, method: str, path: str, body: Any) -> list[str]:
    """I6: ask for what has been done already; which rows are different once that has been dealt with."""
    before = await _rows(stack)
    assert stack.api is not None  # noqa: S101
    await stack.api.request(method, path, json=body)
    await stack.idle()
    after = await _rows(stack)
    return [f"{name}: {before.get(name)} became {one}" for name, one in after.items() if before.get(name) != one]


async def _rows(stack: Stack) -> dict[str, Instance]:
    return {one.id: replace(one, updated=0.0) for one in await stack.rows()}


async def _info(stack: Stack, instance: Instance) -> Mapping[str, Any] | None:
    """All of INFO from the server itself; None when it does not answer."""
    if instance.address is None:
        return None
    password = stack.vault.unseal((await stack.group(instance.group_id)).secrets.admin)
    async with _client(instance.address, password, ADMIN) as redis:
        try:
            return dict(await redis.info())
        except (RedisError, OSError):
            return None


def _client(address: Address, password: str, user: str | None = None) -> Redis:
    return Redis(
        host=address.host,
        port=address.port,
        username=user,
        password=password,
        socket_timeout=PROBE_TIMEOUT,
        socket_connect_timeout=PROBE_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )

"""Finding out what is there, and the client for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from os import PathLike
from typing import Any

from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.client import TIMEOUT, Client, OnTopology
from redkeep.northbound.cluster import ClusterClient
from redkeep.northbound.group import GroupClient
from redkeep.northbound.link import Pause
from redkeep.northbound.wire import Connection, Login, ServerError, tls_context


async def connect(
    seeds: Iterable[Address | str],
    *,
    username: str | None = None,
    password: str | None = None,
    name: str = "redkeep-client",
    timeout: float = TIMEOUT,
    on_topology: OnTopology | None = None,
    confirm: bool = False,
    tls: ssl.SSLContext | bool = False,
    ca: str | PathLike[str] | None = None,
    cert: str | PathLike[str] | None = None,
    key: str | PathLike[str] | None = None,
) -> Client:
    """A client of the servers that these (`host:port`, any of them) belong to, connected to all who take writes.

    Whether it is one server, a primary with replicas or a cluster is found out by asking. Raises Unavailable when that
    or a primary was not found in `timeout` seconds, ServerError when the credentials are wrong.

    `tls`: encrypt, believing whom this machine believes, or as that context says. `ca`, `cert` and `key` are paths of
    PEM files, and imply it: who signs the servers' certificates, which have to name the addresses, and what we show
    them. Raises Refused when such a file is no good.

    `confirm`: `execute` answers only when a majority of the group has what it wrote, so that no failover loses it. News
    of a group whose durability is `sync` switches it on by itself; say it here to have it from the first write on.
    """
    addresses = [Address.parse(seed) if isinstance(seed, str) else seed for seed in seeds]
    if tls is True or (tls is False and (ca or cert)):
        tls = tls_context(ca, cert, key)
    login = Login(username, password, name, tls or None)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    said = await _ask(addresses, login, deadline)
    kind = ClusterClient if said.get(b"mode") == b"cluster" else GroupClient
    client = kind(addresses, login, on_topology)
    client.confirm = confirm
    client.version = tuple(int(part) for part in said.get(b"version", b"").split(b".") if part.isdigit())
    async with AsyncExitStack() as unless_ready:
        unless_ready.push_async_callback(client.close)
        await client.ready(deadline - loop.time())
        unless_ready.pop_all()
    return client


async def _ask(addresses: Sequence[Address], login: Login, deadline: float) -> dict[bytes, Any]:
    """What the first that answers says of itself."""
    pause, why = Pause(), ""
    while True:
        asked = [asyncio.create_task(_greeting(address, login)) for address in addresses]
        refusal: ServerError | None = None
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    return await answer
                except ServerError as error:
                    refusal = error
                except (Unavailable, OutcomeUnknown) as error:
                    why = str(error)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if refusal is not None:
            raise refusal
        if asyncio.get_running_loop().time() >= deadline:
            raise Unavailable(
                f"nobody answers at {', '.join(map(str, sorted(addresses)))}: no primary is known ({why})"
            )
        await pause.sleep()


async def _greeting(address: Address, login: Login) -> dict[bytes, Any]:
    connection = await Connection.open(address, login)
    try:
        return connection.greeting
    finally:
        connection.abort()

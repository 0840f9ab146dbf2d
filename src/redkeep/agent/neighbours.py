"""What an agent does about servers of other hosts, whose own agent says nothing: see whether one answers, and fence it.

It changes no role there and opens nothing: that is for its own agent, when that is back.
"""

from __future__ import annotations

import asyncio
import contextlib

from redkeep.model.facts import Process, ServerFacts
from redkeep.model.orders import FenceNeighbour
from redkeep.model.topology import Address
from redkeep.ports import REACH_LIMIT
from redkeep.redis import admin as words
from redkeep.redis import info
from redkeep.redis.admin import Admin


async def reaches(address: Address) -> bool:
    """Whether a PING to that address is answered within `REACH_LIMIT` seconds.

    Any answer counts, also that one has to log in first: what is asked is whether somebody is alive there.
    """
    try:
        async with asyncio.timeout(REACH_LIMIT):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(b"PING\r\n")
                return bool(await reader.read(1))
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def fence(order: FenceNeighbour, password: str) -> ServerFacts:
    """See `FenceNeighbour`; `password` is that of the group's administrator.

    Raises Unavailable, OutcomeUnknown, NotNow (still loading) or Refused.
    """
    admin = Admin(order.address, password, timeout=REACH_LIMIT)
    try:
        said = (await admin.run(*words.fence(order.version), words.REPLICATION))[-1]
    finally:
        with contextlib.suppress(OSError):
            await admin.close()
    return ServerFacts(
        order.neighbour_id,
        Process.RUNNING,
        role=info.role(said),
        fenced=True,
        replication_id=str(said["master_replid"]),
        offset=info.offset(said),
        upstream=info.upstream(said),
        followers=info.followers(said),
    )

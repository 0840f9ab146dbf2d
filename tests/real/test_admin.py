"""The agent's way to a server that was started again."""

from __future__ import annotations

import asyncio

import pytest

from redkeep.redis.admin import Admin
from redkeep.testing.servers import redis_process

pytestmark = pytest.mark.real


async def test_the_first_order_after_a_restart_does_not_meet_the_connection_of_before() -> None:
    with redis_process("user redkeep-admin on >secret ~* &* +@all") as server:
        admin = Admin(server.address, "secret")
        assert await admin.run(("PING",)) == [True]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

        assert await admin.run(("PING",)) == [True]
        await admin.ping()
        await admin.close()

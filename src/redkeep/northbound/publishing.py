"""Publishing: logged and told in one call, or not at all."""

from __future__ import annotations

from typing import Any

from redkeep.northbound.messages import body
from redkeep.northbound.places import feed_of
from redkeep.northbound.scripts import PUBLISH, Door
from redkeep.northbound.tables import KEPT, TIMEOUT


class Publisher:
    """Publishes on any channel. The log of each keeps about `kept` messages for those who were away."""

    def __init__(self, door: Door, *, kept: int = KEPT, timeout: float = TIMEOUT) -> None:
        self._door = door
        self._kept = kept
        self._timeout = timeout
        self._command = "SPUBLISH" if door.sharded else "PUBLISH"

    async def publish(self, channel: str, data: Any) -> str:
        """Publish JSON types; the message's id. Never sent a second time when it may have run.

        Raises Unavailable when it was not published (undo what you announced), OutcomeUnknown when nobody can know,
        TypeError or ValueError on what JSON cannot say.
        """
        feed = feed_of(channel)
        args = (body(channel, data), self._kept, self._command)
        found: bytes = await PUBLISH.run(
            self._door, feed.slot, feed.keys, *args, retry="if_not_run", timeout=self._timeout
        )
        return found.decode()

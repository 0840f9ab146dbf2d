"""What most drivers have in common. A driver that moves storage brings the two halves, `failover` and
`failover_completed`; the rest is here. It need not inherit: the port is a Protocol."""

from __future__ import annotations

from collections.abc import Sequence

from redkeep.errors import Refused
from redkeep.model.site import FailoverResult, Volume
from redkeep.ports import BackendContext


class BaseDriver:
    """See `ports.BackendDriver`."""

    SUPPORTS_ACTIVE_ACTIVE: bool = False

    def __init__(self, context: BackendContext) -> None:
        self.context = context

    async def failover(
        self,
        volumes: Sequence[Volume],  # noqa: ARG002
        secondary_id: str,  # noqa: ARG002
        *,
        forced: bool,  # noqa: ARG002
    ) -> FailoverResult:
        """To be brought by a driver that replicates."""
        raise Refused(f"{type(self).__name__} has no other site to fail over to", kind="unsupported")

    async def failover_completed(self, active_backend_id: str) -> None:  # noqa: ARG002
        """To be brought by a driver that replicates."""
        raise Refused(f"{type(self).__name__} has no other site to follow to", kind="unsupported")

    async def failover_host(self, volumes: Sequence[Volume], secondary_id: str, *, forced: bool) -> FailoverResult:
        """The two halves, one after the other."""
        result = await self.failover(volumes, secondary_id, forced=forced)
        await self.failover_completed(result.active_backend_id)
        return result

    async def freeze_backend(self) -> None:
        """The API refuses changes by itself; most storage needs not know."""

    async def thaw_backend(self) -> None:
        """As above."""

    async def close(self) -> None:
        """Nothing is held."""

"""A backend without storage, for tests: two or more sites that exist as values, and drivers that move between them.

`FakeStorage` is what all managers' drivers of one backend share, as real ones share an array: it refuses to be moved by
two at once, and remembers everything that it was told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from redkeep.backends.base import BaseDriver
from redkeep.errors import Refused
from redkeep.model.site import FAILBACK, FailoverResult, ReplicationStatus, Volume, VolumeUpdate
from redkeep.ports import BackendContext

Trouble = Callable[[str, str], None]
"""Called with a manager's name and what its driver was told; raises what the driver is to raise."""


def no_trouble(_manager: str, _told: str) -> None:
    """All is well."""


@dataclass
class FakeStorage:
    """Both sites, seen from nowhere."""

    active: str = FAILBACK
    told: list[tuple[str, str]] = field(default_factory=list)
    """Manager and what its driver was told, in order: `failover dr1`, `completed dr1`, `freeze`, `thaw`."""
    moves: list[str] = field(default_factory=list)
    """The targets to which the storage really moved."""
    trouble: Trouble = no_trouble
    hold: asyncio.Event | None = None
    """While it is there and not set, a failover hangs in the middle."""
    drivers: dict[str, FakeDriver] = field(default_factory=dict)
    """The last one of each manager."""

    def count(self, told: str) -> int:
        """How often any driver was told that."""
        return sum(what == told for _, what in self.told)

    def driver_class(self, *, active_active: bool = True) -> Callable[[BackendContext], FakeDriver]:
        """A class of drivers of this storage, as an entry point would give it."""
        storage = self

        class Driver(FakeDriver):
            SUPPORTS_ACTIVE_ACTIVE = active_active

            def __init__(self, context: BackendContext) -> None:
                super().__init__(context, storage)

        return Driver


class FakeDriver(BaseDriver):
    """One manager's view of the storage."""

    SUPPORTS_ACTIVE_ACTIVE = True

    def __init__(self, context: BackendContext, storage: FakeStorage) -> None:
        super().__init__(context)
        self._storage = storage
        self.site = context.active_backend_id
        """Where it works."""
        self.frozen = context.frozen
        storage.drivers[context.manager] = self

    async def failover(self, volumes: Sequence[Volume], secondary_id: str, *, forced: bool) -> FailoverResult:  # noqa: ARG002
        known = (FAILBACK, *(one.backend_id for one in self.context.backend.targets))
        if secondary_id not in known:
            raise Refused(f"there is no target {secondary_id}")
        await self._hear(f"failover {secondary_id}")
        self.context.progress(0.5)
        if self._storage.hold is not None:
            await self._storage.hold.wait()
        if self._storage.active != secondary_id:
            self._storage.active = secondary_id
            self._storage.moves.append(secondary_id)
        lost = [one for one in volumes if one.replication_status is not ReplicationStatus.ENABLED]
        updates = (VolumeUpdate(one.id, ReplicationStatus.ERROR, "it has no copy there") for one in lost)
        return FailoverResult(secondary_id, tuple(updates))

    async def failover_completed(self, active_backend_id: str) -> None:
        await self._hear(f"completed {active_backend_id}")
        self.site = active_backend_id

    async def freeze_backend(self) -> None:
        await self._hear("freeze")
        self.frozen = True

    async def thaw_backend(self) -> None:
        await self._hear("thaw")
        self.frozen = False

    async def _hear(self, what: str) -> None:
        self._storage.told.append((self.context.manager, what))
        self._storage.trouble(self.context.manager, what)
        await asyncio.sleep(0)

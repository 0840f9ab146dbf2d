"""What a manager does about clusters: asks `decide.shards` about what was seen, and has done what that says."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from redkeep.decide.recovery import Degraded, GroupView, Healthy, Limits
from redkeep.decide.shards import Adopt, FailOverShards, Mend, Restart, Verdict, judge_cluster
from redkeep.model.instance import Event, Group, Instance
from redkeep.model.operation import Kind
from redkeep.ports import Store

log = logging.getLogger(__name__)

MEND_LIMIT = 300.0
"""Seconds after which mending is given up, to be judged anew."""
REPAIR_PAUSE = 2.0
"""Seconds between two attempts at the same cluster that are in no hurry."""


class Submit(Protocol):
    """Record an operation, unless one of its kind is open for the group; whether it was recorded."""

    def __call__(
        self, group: Group, kind: Kind, args: dict[str, object], reason: str, limit: float
    ) -> Awaitable[bool]: ...


def is_cluster(instances: Iterable[Instance]) -> bool:
    """They are members of one."""
    return any(one.shard is not None for one in instances)


class ClusterWatch:
    """One for each manager."""

    def __init__(
        self, store: Store, limits: Limits, submit: Submit, hurry: Callable[[str], None], failover_deadline: float
    ) -> None:
        self._store = store
        self._limits = limits
        self._submit = submit
        self._hurry = hurry
        self._failover_deadline = failover_deadline
        self._tried: dict[str, float] = {}
        self._degraded: dict[str, str] = {}

    async def consider(self, view: GroupView, busy: bool) -> bool:
        """Judge a cluster now; whether there is something to work on. Not before it is formed: until then it is the
        business of the operation that makes it."""
        now = time.monotonic()
        verdict = judge_cluster(view, now, self._limits)
        if isinstance(verdict, FailOverShards | Restart) and now - view.changed_at < self._limits.settle:
            return False  # a report from before the last change may say so; whoever died since is in the next one too
        if isinstance(verdict, Healthy) or not await self._is_formed(view.group.id):
            self._degraded.pop(view.group.id, None)
            return False
        return await self._act(view, verdict, busy)

    async def _act(self, view: GroupView, verdict: Verdict, busy: bool) -> bool:
        group = view.group
        match verdict:
            case FailOverShards(dead, reason):
                return await self._fail_over(group, dead, reason)
            case Restart(instance_ids, reason) if self._may_try(group.id):
                return await self._fail_over(group, instance_ids, reason)
            case Mend(reason) | Adopt(reason=reason) if not busy and self._may_try(group.id):
                return await self._submit(group, Kind.MEND_CLUSTER, {"reason": reason}, reason, MEND_LIMIT)
            case Degraded(reason) if self._degraded.get(group.id) is None:
                self._degraded[group.id] = reason
                log.warning("cluster %s is degraded: %s", group.id, reason)
                await self._note(group, reason)
        return False

    async def _fail_over(self, group: Group, dead: tuple[str, ...], reason: str) -> bool:
        args: dict[str, Any] = {"instances": list(dead), "reason": reason}
        if await self._submit(group, Kind.FAIL_OVER_SHARD, args, reason, self._failover_deadline):
            self._hurry(group.id)
        return True

    def _may_try(self, group_id: str) -> bool:
        now = time.monotonic()
        if now - self._tried.get(group_id, float("-inf")) < REPAIR_PAUSE:
            return False
        self._tried[group_id] = now
        return True

    async def _is_formed(self, group_id: str) -> bool:
        async with self._store.read() as tx:
            cluster = await tx.cluster(group_id)
        return cluster is not None and cluster.formed and not cluster.deleted

    async def _note(self, group: Group, reason: str) -> None:
        async with self._store.begin() as tx:
            now = await tx.now()
            event = Event(at=now, kind="degraded", text=reason, project_id=group.project_id, group_id=group.id)
            await tx.record(event)

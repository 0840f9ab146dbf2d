"""Changing the servers of a group one after the other: in which order, and when to go on."""

from __future__ import annotations

from collections.abc import Iterable

from redkeep.model.facts import Process, ServerFacts
from redkeep.model.instance import Instance
from redkeep.model.topology import Role


def in_order(members: Iterable[Instance], primary_id: str | None) -> tuple[Instance, ...]:
    """The replicas by name, the primary last: what goes wrong goes wrong where nobody writes."""
    return tuple(sorted(members, key=lambda one: (one.id == primary_id, one.name, one.id)))


def by_shards(members: Iterable[Instance]) -> tuple[tuple[Instance, ...], ...]:
    """A cluster's members, shard by shard: the replicas of each by name, its primary last."""
    found: dict[str, list[Instance]] = {}
    for one in sorted(members, key=lambda one: (one.role is Role.PRIMARY, len(one.name), one.name, one.id)):
        found.setdefault(one.shard or "", []).append(one)
    return tuple(tuple(found[label]) for label in sorted(found, key=lambda label: (len(label), label)))


def not_in_step(facts: ServerFacts | None, primary: ServerFacts | None, mark: int) -> str | None:
    """Why a replica that was started anew does not count yet, or None when it does.

    It must have the whole data set, of the primary's present history, and have applied what the primary had at `mark`:
    a link may be up while nothing flows. `mark` is -1 while the primary's offset is not known.
    """
    if facts is None:
        return "its agent does not answer"
    if reason := _not_following(facts):
        return reason
    if primary is None or mark < 0:
        return "the agent of the primary does not answer"
    if facts.replication_id != primary.replication_id:
        return "it holds another history than the primary"
    if facts.offset < mark:
        return f"it lacks {mark - facts.offset} bytes of what the primary had"
    return None


def _not_following(facts: ServerFacts) -> str | None:
    if not facts.alive:
        return f"it is {facts.process}{f' ({facts.detail})' if facts.detail else ''}"
    if facts.upstream is None:
        return "it does not follow anybody"
    if not facts.upstream.link_up:
        return "it is receiving a full copy" if facts.upstream.syncing else "its link to the primary is down"
    return None if facts.synced_once else "it has not completed a synchronisation"


def gets_on(before: ServerFacts | None, now: ServerFacts | None) -> bool:
    """Whether a server that is not in step is on its way: it loads, receives a copy, or applies more than before."""
    if now is None:
        return False
    if now.process is Process.LOADING:
        return before is not None and now.pid == before.pid  # another one each time: it ends while it loads
    if now.upstream is not None and now.upstream.syncing:
        return True
    return before is not None and now.offset > before.offset

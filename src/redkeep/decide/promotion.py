"""Which replica becomes primary. Refuses to guess: a replica that may lack a whole data set is never chosen.

The replication specification says "the smallest `master_last_io_seconds_ago`". Once the primary is dead every replica
reports -1 there, and so does one that never synchronised; with a hung primary the rule picks the wrong one. So the rank
is by history and offset, and the age of the last I/O only breaks ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redkeep.model.facts import ServerFacts
from redkeep.model.topology import Role


@dataclass(frozen=True, slots=True)
class Chosen:
    """The successor, and why."""

    instance_id: str
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class NobodyFit:
    """No replica may be promoted; `reasons` says why of each."""

    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        return "; ".join(self.reasons) or "the group has no replica"


def unfitness(facts: ServerFacts, history: str) -> str | None:
    """Why this replica cannot be promoted, or None when it can.

    `history` is the replication id of the primary it should have followed; "" when that was never seen.
    """
    if not facts.alive:
        return f"{facts.instance_id} is {facts.process}"
    if facts.role is Role.PRIMARY:
        return f"{facts.instance_id} is a primary by itself"
    if not facts.synced_once:
        return f"{facts.instance_id} has never completed a synchronisation"
    if facts.upstream is not None and facts.upstream.syncing:
        return f"{facts.instance_id} is in the middle of a full synchronisation"
    if history and facts.replication_id != history:
        return f"{facts.instance_id} holds another history ({facts.replication_id[:8]}, not {history[:8]})"
    return None


def most_current(replicas: Iterable[ServerFacts], *, history: str = "", quorum: int = 1) -> Chosen | NobodyFit:
    """The replica that has applied most of the given history, if at least `quorum` fit ones were seen.

    Ties go to the one that heard from the primary last, then to the lowest id, so that everyone who decides on the
    same facts decides the same.
    """
    looked = tuple(replicas)
    fit = [facts for facts in looked if unfitness(facts, history) is None]
    if len(fit) < max(1, quorum):
        reasons = [reason for facts in looked if (reason := unfitness(facts, history))]
        missing = [f"{quorum} must be seen so that no acknowledged write is lost, {len(fit)} were"] if fit else []
        return NobodyFit((*reasons, *missing))
    if len({facts.replication_id for facts in fit}) > 1:
        return NobodyFit(tuple(f"{facts.instance_id} may hold the wrong history: theirs differ" for facts in looked))
    best = min(fit, key=_rank)
    others = _behind(best, fit)
    return Chosen(best.instance_id, best.offset, f"it has applied most of the history (offset {best.offset}){others}")


def lag_bytes(replica: ServerFacts, primary: ServerFacts) -> int:
    """How much of the primary's history a replica still lacks, at least 0. Both must have been looked at together."""
    return max(0, primary.offset - replica.offset)


def diverged_bytes(old: ServerFacts, successor: ServerFacts) -> int:
    """How much of the common history an old primary has beyond the point from which its successor went on.

    0 when the two have no such point in common: then nothing can be said.
    """
    if old.replication_id != successor.former_id:
        return 0
    return max(0, old.offset - successor.former_until)


def _rank(facts: ServerFacts) -> tuple[int, int, str]:
    last_io = facts.upstream.last_io_seconds if facts.upstream else -1
    return (-facts.offset, last_io if last_io >= 0 else 1 << 31, facts.instance_id)


def _behind(best: ServerFacts, fit: Sequence[ServerFacts]) -> str:
    gaps = [f"{facts.instance_id} lacks {best.offset - facts.offset} bytes" for facts in fit if facts is not best]
    return f"; {', '.join(gaps)}" if gaps else ""

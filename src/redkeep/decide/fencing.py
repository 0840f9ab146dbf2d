"""When a primary may accept writes, and when another one may take its place.

The invariant: at no moment may two servers of a group accept writes. It rests on two rules over the same count.

* A primary whose agent cannot renew its word with a manager goes on only while it and the replicas that acknowledge to
  it are a majority of the group (`may_write`).
* The same, without its agent: while enough replicas follow, the server itself is told to refuse writes when they do not
  any more (`guard_level`), so that an agent which dies or is stopped leaves a primary that fences itself.
* Without proof that the old primary is gone, a successor may be promoted only when the old one and all replicas that
  may still follow it are *not* a majority (`may_replace`), and its word has run out.

Both cannot hold of one group at one time, since a replica that was told to follow the successor does not acknowledge to
the old primary any more. A group of one is its own majority: nobody can replace it, so nothing stops it.
"""

from __future__ import annotations

from collections.abc import Iterable

from redkeep.model.instance import Instance, Status

ON_THE_WAY = (Status.BUILD, Status.SHUTDOWN, Status.DETACH)
"""Instances that are being made or unmade: their primary's agent may count them, or not."""

GUARD_LAG = 2
"""`min-replicas-max-lag` of a guarded primary: whole seconds since a replica's last acknowledgement, of which there is
one each second. With 1, an acknowledgement that comes a little late would do harm."""
SELF_FENCE = GUARD_LAG + 2.0
"""Seconds after the last acknowledgement within which a guarded primary refuses writes, whether its agent lives or not.
Redis compares whole seconds, and does so once a second."""
GUARD_PAUSE = 2.0
"""Seconds after a guard was lowered before it is raised again: acknowledgements that come and go change nothing."""
FENCE_AHEAD = 0.3
"""Seconds before the end of its word at which an agent sees to the fence, so that this stands when the word is over."""
CONFIRMED_UNSEEN = 2.0
"""Seconds for which a host may be confirmed without a new sign of life in its row: managers write one so often."""


def majority(group_size: int) -> int:
    """How many of a group, the primary counted, are more than the rest."""
    return group_size // 2 + 1


def may_write(*, now: float, word_until: float, group_size: int, acknowledging: int) -> bool:
    """Whether a primary may accept writes at `now` (the agent's monotonic clock).

    `word_until`: when the last confirmation by a manager ends. `acknowledging`: replicas that follow and acknowledge.
    """
    return now < word_until or 1 + acknowledging >= majority(group_size)


def guard_level(local_size: int, elsewhere: int = 0) -> int:
    """How many replicas must acknowledge to a guarded primary for it to accept writes; 0: nobody could replace it.

    With itself a majority. Redis counts acknowledgements and does not say whose: as many more as there are replicas at
    other sites (`elsewhere`).
    """
    needed = majority(local_size) - 1
    return needed + elsewhere if needed else 0


def guard(*, level: int, acknowledging: int, strangers: int) -> bool:
    """Whether a confirmed primary is to be guarded: if so many members acknowledge that it costs nothing.

    `strangers` follow too and are no members: they would hold it open when the members have gone.
    """
    return 0 < level <= acknowledging and not strangers


def sure_size(instances: Iterable[Instance]) -> int:
    """How many servers the agent of a group's primary counts at the least, itself included.

    Whoever is on its way in or out is not among them, but may follow: that makes a replacement harder, never easier.
    """
    return sum(one.status not in ON_THE_WAY and one.address is not None for one in instances)


def may_replace(*, group_size: int, may_still_follow: int) -> bool:
    """Whether an unreachable primary and the replicas that may still follow it cannot be a majority."""
    return 1 + may_still_follow < majority(group_size)

"""Which description of a cluster a client believes."""

from __future__ import annotations

from redkeep.model.slots import SLOTS, ClusterView

DOUBTS = 20
"""So many descriptions in a row that we held for old: then it is we who are wrong, as when a cluster was made anew."""


def believe(old: ClusterView, new: ClusterView, *, doubts: int) -> ClusterView:
    """The one of both to go by. `doubts`: how many were turned down in a row before this one.

    A node in a cut-off minority goes on describing what was, with an epoch that the others have passed. While slots are
    without an owner, as during an election, the old owners are the better guess, unless the news is newer.
    """
    if new.epoch < old.epoch and doubts < DOUBTS:
        return old
    if new.covered < SLOTS and new.covered < old.covered and new.epoch == old.epoch and doubts < DOUBTS:
        return old
    return new if new.members else old

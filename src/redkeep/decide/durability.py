"""What each promise about acknowledged writes asks of the servers, and of a failover."""

from __future__ import annotations

from redkeep.decide.fencing import majority
from redkeep.decide.parameters import DURABILITY
from redkeep.model.instance import Durability, Group, Instance

MAX_LAG_SECONDS = 10
"""`min-replicas-max-lag`: a replica that has not acknowledged for longer does not count."""


def promised(group: Group, primary: Instance | None) -> Durability:
    """What the group promises now: what its configuration group says, else what was ordered with it.

    While a configuration is being changed its members differ; what counts is what the primary has.
    """
    said = dict(primary.parameters).get(DURABILITY) if primary is not None else None
    return Durability(said) if said is not None else group.durability


def min_replicas(durability: Durability, group_size: int, elsewhere: int = 0) -> int:
    """`min-replicas-to-write` of a primary: how many replicas must acknowledge lately for it to accept writes.

    A group of one has nobody who could; asked for later, the promise begins with its first replica. `elsewhere` as in
    `confirmations`.
    """
    if durability is Durability.ASYNC or group_size + elsewhere < 2:
        return 0
    if durability is Durability.BOUNDED:
        return elsewhere + (group_size > 1)
    return confirmations(durability, group_size, elsewhere)


def confirmations(durability: Durability, group_size: int, elsewhere: int = 0) -> int:
    """How many replicas must have a write before the driver calls it acknowledged: with the primary, a majority.

    Of the primary's own site: nobody else takes its place without an order of the operator. Redis counts
    acknowledgements and does not say whose, so as many more are waited for as there are replicas at other sites:
    whichever they are, enough of them are local ones.
    """
    return majority(group_size) - 1 + elsewhere if durability is Durability.SYNC else 0


def replicas_to_see(durability: Durability, group_size: int) -> int:
    """How many fit replicas a failover must see to be sure that one of them has every acknowledged write.

    Each write is on `confirmations` of the replicas: that many short of all, plus one, cannot all lack it.
    """
    needed = confirmations(durability, group_size)
    return group_size - 1 - needed + 1 if needed else 1

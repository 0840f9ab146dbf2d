"""Whom a client takes for the primary: news that it heard, folded with what it saw itself.

News of a higher epoch is true. What a client sees by itself only fills the time until it comes, and then:
- a server that left the group by news is never used, even when it is the only one that calls itself primary;
- a server that was replaced is used again only when its successor says that it follows it, or as the last resort;
- a server that refused a write is not the primary while there is another candidate.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from redkeep.model.topology import Address, Topology


@dataclass(frozen=True, slots=True)
class Look:
    """What one server says of itself."""

    address: Address
    primary: Address | None = None
    """Whom it follows; None when it takes itself for a primary."""
    replicas: tuple[Address, ...] = ()
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Following:
    """A client's view of its group. An empty `group_id` and epoch 0 mean that no news has come yet."""

    topology: Topology
    known: frozenset[Address] = frozenset()
    """Every server that was ever named."""
    strangers: frozenset[Address] = frozenset()
    """Those of `known` that belong to another group by now."""
    replaced: frozenset[Address] = frozenset()
    """Former primaries, of whom nobody said since that they are primary again."""

    @classmethod
    def begin(cls, seeds: Collection[Address]) -> Following:
        return cls(Topology("", 0, None), frozenset(seeds))

    @property
    def candidates(self) -> frozenset[Address]:
        """Whom to ask who is primary."""
        return self.known - self.strangers


def hear(state: Following, news: Topology, *, primary_alive: bool) -> Following:
    """Fold in a message. `primary_alive`: the connection to whom we take for the primary is open.

    Servers that are detached go on as a group of their own and say so on their own channel. We hear it, and must not
    follow: a message of another group only says who is no longer ours. Before the first news we do not know our group;
    then a message that has no place for a primary that is alive is taken for somebody else's.
    """
    old = state.topology
    if old.group_id and news.group_id != old.group_id:
        return replace(state, strangers=state.strangers | (set(news.nodes) - {old.primary}))
    if old.group_id and news.epoch <= old.epoch:
        return state
    if not old.group_id and primary_alive and old.primary not in news.nodes:
        return state
    nodes = frozenset(news.nodes)
    former = {old.primary} if old.primary else set()
    return Following(
        topology=news,
        known=state.known | nodes,
        strangers=(state.strangers | (set(old.nodes) if old.group_id else former)) - nodes,
        replaced=(state.replaced | former) - {news.primary},
    )


def see(
    state: Following, looks: Collection[Look], *, refusing: Collection[Address] = (), last_resort: bool = False
) -> Following:
    """Fold in what the servers that answered say. Nothing changes while none of them can be the primary."""
    named = {address for look in looks for address in (look.address, look.primary, *look.replicas) if address}
    state = replace(state, known=state.known | named)
    best = _best(state, looks, refusing, last_resort)
    if best is None:
        return state
    old = state.topology
    if old.primary == best.address:
        joined = frozenset(best.replicas) - set(old.nodes) - state.strangers
        if old.group_id or not joined:
            return state  # news say who belongs to the group; without any, the primary does
        return replace(state, topology=replace(old, replicas=(*old.replicas, *sorted(joined))))
    others = (set(old.nodes) | set(best.replicas)) - {best.address} - state.strangers
    return replace(
        state,
        topology=replace(old, primary=best.address, replicas=tuple(sorted(others))),
        replaced=(state.replaced | ({old.primary} if old.primary else set())) - {best.address},
    )


def _best(state: Following, looks: Collection[Look], refusing: Collection[Address], last_resort: bool) -> Look | None:
    followed = [look.primary for look in looks if look.primary and look.address not in state.strangers]
    yielded = {look.primary for look in looks if look.address == state.topology.primary}

    def eligible(look: Look) -> bool:
        if look.primary is not None or look.address in state.strangers:
            return False
        return last_resort or look.address not in state.replaced or look.address in yielded

    def rank(look: Look) -> tuple[bool, bool, bool, int, int, Address]:
        address = look.address
        return (
            address not in state.replaced,
            address not in refusing,
            address == state.topology.primary,
            followed.count(address),
            look.offset,
            address,
        )

    return max(filter(eligible, looks), key=rank, default=None)

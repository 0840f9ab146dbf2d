"""Which shard owns which slots, and what has to move so that it does. Whole slots, as few as can be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from redkeep.model.slots import SLOTS, Ranges, as_ranges, slots_in


@dataclass(frozen=True, slots=True)
class Shift:
    """Slots that go from one shard to another."""

    source: str
    target: str
    ranges: Ranges

    @property
    def count(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)


def even_ranges(count: int) -> tuple[Ranges, ...]:
    """All slots in `count` runs, in order; the first `16384 mod count` get one more. Raises ValueError for none."""
    if not 1 <= count <= SLOTS:
        raise ValueError(f"{SLOTS} slots cannot be divided between {count}")
    share, more = divmod(SLOTS, count)
    starts = [at * share + min(at, more) for at in range(count + 1)]
    return tuple(((first, last - 1),) for first, last in pairwise(starts))


def shares(weights: Mapping[str, float], total: int = SLOTS) -> dict[str, int]:
    """How many slots each gets: in proportion to its weight, to the nearest whole slot, all given out.

    Weight 0 gets none. What rounding leaves goes to the largest remainders, then by name, so that everyone who counts
    gets the same. Raises ValueError when no weight is positive, or one is negative.
    """
    whole = sum(weights.values())
    if whole <= 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError("at least one shard must have a positive weight, and none a negative one")
    exact = {name: total * weight / whole for name, weight in weights.items()}
    given = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted((given[name] - exact[name], name) for name, weight in weights.items() if weight)
    for _, name in by_remainder[: total - sum(given.values())]:
        given[name] += 1
    return given


def plan(owned: Mapping[str, Ranges], weights: Mapping[str, float]) -> tuple[Shift, ...]:
    """What moves so that every shard has its share: no slot twice, and none that need not.

    A shard keeps what it has up to its share; of a surplus the last slots go. `owned` may lack slots that nobody owns:
    those are not given out here. A shard without a weight counts as weight 0: it gives all away.
    """
    weighted = {name: weights.get(name, 0.0) for name in {*owned, *weights}}
    held = {name: slots_in(owned.get(name, ())) for name in weighted}
    total = sum(len(slots) for slots in held.values())
    wanted = _least_moves(shares(weighted, total), {name: len(slots) for name, slots in held.items()}, weighted)
    surplus = [(name, sorted(slots)[wanted[name] :]) for name, slots in sorted(held.items())]
    spare = [(name, slot) for name, slots in surplus for slot in slots]
    return _give_out(spare, {name: max(0, wanted[name] - len(held[name])) for name in sorted(wanted)})


def drain(owned: Mapping[str, Ranges], leaving: Collection[str]) -> tuple[Shift, ...]:
    """What moves so that these shards own nothing: evenly to the others, of which nothing else moves.

    Raises ValueError when nobody else is there.
    """
    staying = sorted(set(owned) - set(leaving))
    if not staying:
        raise ValueError("there is no shard left that could take the slots")
    slots = [(name, slot) for name in sorted(leaving) for slot in slots_in(owned.get(name, ()))]
    counts = {name: len(slots_in(owned[name])) for name in staying}
    given: dict[str, int] = dict.fromkeys(staying, 0)
    for _ in slots:
        fewest = min(staying, key=lambda name: (counts[name] + given[name], name))
        given[fewest] += 1
    return _give_out(slots, given)


def pairs(shifts: Iterable[Shift]) -> tuple[tuple[Shift, ...], ...]:
    """The shifts in rounds, each with every source once: a source moves slots to one target at a time."""
    by_source: dict[str, list[Shift]] = {}
    for shift in shifts:
        by_source.setdefault(shift.source, []).append(shift)
    longest = max((len(found) for found in by_source.values()), default=0)
    return tuple(tuple(found[at] for found in by_source.values() if at < len(found)) for at in range(longest))


def size(shifts: Iterable[Shift]) -> int:
    """How many slots move."""
    return sum(shift.count for shift in shifts)


def describe(shifts: Sequence[Shift], names: Mapping[str, str]) -> str:
    """For people: `shard 1 -> shard 3: 1366 slots; ...`."""
    told = (
        f"{names.get(one.source, one.source)} -> {names.get(one.target, one.target)}: {one.count}" for one in shifts
    )
    return "; ".join(told) or "nothing has to move"


def _least_moves(wanted: dict[str, int], held: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Of shards with one weight, those that have most get the larger shares: then fewest slots move."""
    for weight in set(weights.values()):
        alike = [name for name in wanted if weights[name] == weight]
        sizes = sorted((wanted[name] for name in alike), reverse=True)
        alike.sort(key=lambda name: (-held.get(name, 0), name))
        wanted.update(zip(alike, sizes, strict=True))
    return wanted


def _give_out(slots: Sequence[tuple[str, int]], counts: Mapping[str, int]) -> tuple[Shift, ...]:
    """So many of the slots, each with the shard that has it, to each of these, in order."""
    shifts: list[Shift] = []
    for target, count in counts.items():
        mine, slots = slots[:count], slots[count:]
        by_source: dict[str, list[int]] = {}
        for source, slot in mine:
            by_source.setdefault(source, []).append(slot)
        shifts += [Shift(source, target, as_ranges(found)) for source, found in by_source.items()]
    return tuple(shifts)

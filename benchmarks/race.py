"""Contestants take turns: A B C A B C …, so that the machine's noise hits all alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.figures import Sample
from benchmarks.groups import Contestant, until_quiet
from benchmarks.writing import writing

AFTERWARDS = 0.3
"""Seconds of writing after the group is whole again: late damage belongs to the figure."""

Event = Callable[[Contestant], None]


Measure = Callable[[Contestant], Sample]


def race(contestants: Sequence[Contestant], measure: Measure, *, runs: int) -> dict[str, list[Sample]]:
    """So many samples of each, by name."""
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in contestants}
    for number in range(1, runs + 1):
        for contestant in contestants:
            sample = measure(contestant)
            samples[contestant.name].append(sample)
            print(f"run {number}/{runs} {contestant.name}: {sample}", file=sys.stderr, flush=True)
    return samples


def across(event: Event) -> Measure:
    """What a writer sees of one event, from just before it until the group is whole again."""
    return lambda contestant: _measure(contestant, event)


def _measure(contestant: Contestant, event: Event) -> Sample:
    servers = contestant.servers
    until_quiet(contestant)
    before = servers.full_resyncs()
    with writing(contestant.client) as writer:
        began = time.monotonic()
        event(contestant)
        writer.further(1, 60)
        contestant.bring_back()
        until_quiet(contestant)
        writer.further(1, 60)
        time.sleep(AFTERWARDS)
        record = writer.finish()
    after = servers.full_resyncs()
    return Sample(
        gap_ms=record.longest_gap(began) * 1000,
        writes=len(record.acknowledged),
        failed=record.failed,
        lost=servers.take_away(record.acknowledged),
        full_resyncs=sum(count - before.get(process, 0) for process, count in after.items()),
    )

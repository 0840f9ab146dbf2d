"""Samples, what is said of them, and how it is shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one contestant."""

    gap_ms: float
    """The longest time between two acknowledged writes in a row."""
    writes: int
    """Acknowledged writes in the run."""
    failed: int
    """Writes that ended in an error at the client."""
    lost: int
    """Acknowledged writes that were not there afterwards."""
    full_resyncs: int
    stale: int | None = None
    """Writes that an old primary accepted when it woke up; None where that was not looked at."""

    def __str__(self) -> str:
        return (
            f"{self.gap_ms:.1f} ms, {self.lost} of {self.writes} lost, "
            f"{self.failed} failed, {self.full_resyncs} full resyncs"
        )


FURTHER = ("stale_writes", "false_failovers")
"""What only some benchmarks look at."""


def percentile(values: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile: with few values a high one is their maximum, and nothing is made up in between."""
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """What there is to say of one contestant."""
    gaps = [sample.gap_ms for sample in samples]
    stale = [sample.stale for sample in samples if sample.stale is not None]
    return {
        "median": round(statistics.median(gaps), 2),
        "min": round(min(gaps), 2),
        "max": round(max(gaps), 2),
        "p99": round(percentile(gaps, 0.99), 2),
        "lost": sum(sample.lost for sample in samples),
        "failed_writes": sum(sample.failed for sample in samples),
        "writes": sum(sample.writes for sample in samples),
        "full_resyncs": sum(sample.full_resyncs for sample in samples),
        "samples": [round(gap, 2) for gap in gaps],
        **({"stale_writes": sum(stale)} if stale else {}),
    }


def outcome(
    name: str,
    samples: Mapping[str, Sequence[Sample]],
    *,
    ours: str,
    peer: str | None,
    config: Mapping[str, Any],
    more: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The JSON object of a benchmark: ours at the top, everybody in `peers`. `peer`: whom we are compared with;
    `more`: what else is known of whom."""
    mine = {**summary(samples[ours]), **more.get(ours, {})}
    peers = {other: {**summary(found), **more.get(other, {})} for other, found in samples.items() if other != ours}
    against = peers[peer]["median"] if peer in peers else None
    return {
        "name": name,
        "unit": "ms",
        "ours": mine["median"],
        "peer": against,
        "peer_name": peer,
        "ratio": round(against / mine["median"], 1) if against is not None else None,
        "runs": len(samples[ours]),
        "spread": {"min": mine["min"], "max": mine["max"]},
        **{key: value for key, value in mine.items() if key not in ("median", "min")},
        "peers": peers,
        "config": dict(config),
    }


def table(found: Mapping[str, Any]) -> str:
    """The same for people."""
    columns = [*("median", "min", "max", "lost", "full_resyncs"), *(one for one in FURTHER if one in found)]
    what = "the client's longest gap between two acknowledged writes"
    lines = [
        f"{found['name']}: {what} in {found['unit']}, {found['runs']} runs each, taking turns",
        "",
        f"{'':<24}" + "".join(f"{column:>14}" for column in columns),
    ]
    rows = {"redkeep": {"median": found["ours"], **found["spread"], **found}, **found["peers"]}
    lines += [f"{name:<24}" + "".join(f"{row[column]:>14,}" for column in columns) for name, row in rows.items()]
    if found["ratio"] is not None:
        lines += ["", f"{found['ratio']:g} times better than {found['peer_name']}"]
    return "\n".join(lines)

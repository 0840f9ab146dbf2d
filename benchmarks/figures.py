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

    def __str__(self) -> str:
        return (
            f"{self.gap_ms:.1f} ms, {self.lost} of {self.writes} lost, "
            f"{self.failed} failed, {self.full_resyncs} full resyncs"
        )


def percentile(values: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile: with few values a high one is their maximum, and nothing is made up in between."""
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """What there is to say of one contestant."""
    gaps = [sample.gap_ms for sample in samples]
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
    }


def outcome(
    name: str, samples: Mapping[str, Sequence[Sample]], *, ours: str, peer: str | None, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object of a benchmark: ours at the top, everybody in `peers`. `peer`: whom we are compared with."""
    mine = summary(samples[ours])
    peers = {other: summary(found) for other, found in samples.items() if other != ours}
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
        **{key: mine[key] for key in ("p99", "max", "lost", "failed_writes", "writes", "full_resyncs", "samples")},
        "peers": peers,
        "config": dict(config),
    }


def table(found: Mapping[str, Any]) -> str:
    """The same for people."""
    columns = ("median", "min", "max", "lost", "full_resyncs")
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

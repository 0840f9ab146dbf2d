"""The benchmarks of the driver."""

from __future__ import annotations

from types import ModuleType

from benchmarks import northbound_ha, northbound_scale, northbound_threads, northbound_throughput, resync

NORTHBOUND: tuple[ModuleType, ...] = (
    northbound_throughput,
    northbound_threads,
    northbound_scale,
    northbound_ha,
    resync,
)

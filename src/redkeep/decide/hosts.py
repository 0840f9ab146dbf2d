"""On which host, and on which port, a new server goes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from redkeep.model.instance import DEFAULT_SITE, Flavor, Host, Instance

BUS = 10_000
"""A cluster member's bus is that far above its port (Redis; before 7.0 it cannot be told otherwise)."""
MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server goes."""

    host_id: str
    address: str
    port: int
    site: str = DEFAULT_SITE


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why it goes nowhere, host by host."""

    reason: str


def place(
    hosts: Iterable[Host],
    placed: Collection[Instance],
    *,
    version: str,
    flavor: Flavor,
    volume_gb: int,
    group_id: str,
    site: str = "",
    shard: str | None = None,
    zone: str = "",
    avoid: Collection[tuple[str, int]] = (),
) -> Place | NoPlace:
    """The host with the fewest servers of the same group, then the fewest servers at all, then the lowest id.

    Of a cluster's shard: before all that, one that has no other server of the shard, and then one in whose zone there
    is none. A replica never goes beside its primary while another host can take it.

    `placed`: all instances that are not deleted. `site`, `zone`: only there; anywhere, when it is empty. `avoid`: host
    id and port of what turned out to be taken by strangers.
    """
    candidates: list[tuple[tuple[int, int, int, int, int], str, Place]] = []
    reasons: list[str] = []
    everywhere = sorted(hosts, key=lambda one: one.id)
    peers = [one for one in placed if shard is not None and (one.group_id, one.shard) == (group_id, shard)]
    zones = {one.id: one.zone for one in everywhere}
    for at, host in enumerate(everywhere):
        here = [one for one in placed if one.host_id == host.id]
        taken = {one.address.port for one in placed if one.address and _shares_ports(one, host)}
        taken |= {one.address.port + BUS for one in placed if one.address and one.shard and _shares_ports(one, host)}
        taken |= {port for name, port in avoid if name == host.id}
        port = _free_port(host, taken, needs_bus=shard is not None)
        if reason := _elsewhere(host, site, zone) or _why_not(host, version, flavor, volume_gb, port):
            reasons.append(f"{host.id}: {reason}")
        elif port is not None:
            near = sum(one.host_id == host.id for one in peers)
            close = sum(host.zone != "" and zones.get(one.host_id or "") == host.zone for one in peers)
            siblings = sum(one.group_id == group_id for one in here)
            rank = (near, close, siblings, len(here), _steps(everywhere, peers, at))
            candidates.append((rank, host.id, Place(host.id, host.address, port, host.site)))
    if not candidates:
        return NoPlace("; ".join(reasons) or "no host has an agent that reports")
    return min(candidates, key=lambda one: one[:2])[-1]


def _free_port(host: Host, taken: Collection[int], *, needs_bus: bool) -> int | None:
    """The lowest that nobody has; with a bus, one whose bus port nobody has either, and which exists."""
    high = min(host.port_high, MOST_PORT - BUS) if needs_bus else host.port_high
    free = (port for port in range(host.port_low, high + 1) if port not in taken)
    return next((port for port in free if not needs_bus or port + BUS not in taken), None)


def _steps(hosts: Sequence[Host], peers: Sequence[Instance], at: int) -> int:
    """How far after the host of the shard's last server, in a ring of all hosts: what one host's primaries need goes to
    different hosts, and no host ends up with more than the others."""
    last = next((n for n, host in enumerate(hosts) if peers and host.id == peers[-1].host_id), None)
    return 0 if last is None else (at - last) % len(hosts)


def _shares_ports(one: Instance, host: Host) -> bool:
    """Two agents may serve one address: each names a host of its own, the ports are the address's."""
    return one.host_id == host.id or (one.address is not None and one.address.host == host.address)


def _elsewhere(host: Host, site: str, zone: str) -> str | None:
    if site not in ("", host.site):
        return f"is at site {host.site}, not {site}"
    return f"is in zone {host.zone or '(none)'}, not {zone}" if zone not in ("", host.zone) else None


def _why_not(host: Host, version: str, flavor: Flavor, volume_gb: int, port: int | None) -> str | None:
    if version not in host.versions:
        return f"has no redis-server {version} (it has {', '.join(host.versions) or 'none'})"
    if port is None:
        return f"all ports from {host.port_low} to {host.port_high} are in use"
    if flavor.maxmemory_bytes > host.memory_bytes:
        return f"has {host.memory_bytes >> 20} MB of memory, flavor {flavor.name} needs {flavor.ram_mb} MB"
    if volume_gb << 30 > host.disk_free_bytes:
        return f"has {host.disk_free_bytes >> 30} GB of free disk, the volume needs {volume_gb} GB"
    return None

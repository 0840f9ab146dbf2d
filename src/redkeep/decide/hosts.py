"""On which host, and on which port, a new server goes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from redkeep.model.instance import DEFAULT_SITE, Flavor, Host, Instance


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
    avoid: Collection[tuple[str, int]] = (),
) -> Place | NoPlace:
    """The host with the fewest servers of the same group, then the fewest servers at all, then the lowest id.

    `placed`: all instances that are not deleted. `site`: only there; anywhere, when it is empty. `avoid`: host id and
    port of what turned out to be taken by strangers.
    """
    candidates: list[tuple[int, int, str, Place]] = []
    reasons: list[str] = []
    for host in hosts:
        here = [one for one in placed if one.host_id == host.id]
        taken = {one.address.port for one in placed if one.address and _shares_ports(one, host)}
        taken |= {port for name, port in avoid if name == host.id}
        port = next((port for port in range(host.port_low, host.port_high + 1) if port not in taken), None)
        if reason := _elsewhere(host, site) or _why_not(host, version, flavor, volume_gb, port):
            reasons.append(f"{host.id}: {reason}")
        elif port is not None:
            siblings = sum(one.group_id == group_id for one in here)
            candidates.append((siblings, len(here), host.id, Place(host.id, host.address, port, host.site)))
    if not candidates:
        return NoPlace("; ".join(reasons) or "no host has an agent that reports")
    return min(candidates)[-1]


def _shares_ports(one: Instance, host: Host) -> bool:
    """Two agents may serve one address: each names a host of its own, the ports are the address's."""
    return one.host_id == host.id or (one.address is not None and one.address.host == host.address)


def _elsewhere(host: Host, site: str) -> str | None:
    return f"is at site {host.site}, not {site}" if site not in ("", host.site) else None


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

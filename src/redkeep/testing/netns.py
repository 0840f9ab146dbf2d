"""Hosts with addresses of their own on one machine: network namespaces on a bridge, and the cutting of their cables.

Needs root and iproute2. Everything is named after one number, and gone with the block.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOBODYS_CARD = "02:00:00:00:00:01"
HUB = 254
"""Last part of the address of this machine itself on the bridge."""


class Unsupported(Exception):
    """This machine, or this user, cannot make network namespaces."""


@dataclass(frozen=True, slots=True)
class Net:
    """Hosts 1 to `size`, and the hub, which is where the test itself runs."""

    number: int
    size: int

    def address(self, host: int = HUB) -> str:
        return f"10.79.{self.number}.{host}"

    def command(self, host: int, *command: str | Path) -> list[str]:
        """What to run so that it runs on that host."""
        return ["ip", "netns", "exec", self._namespace(host), *map(str, command)]

    def cut(self, host: int) -> None:
        """Pull the host's cable: packets vanish, nobody is told."""
        _ip("link", "set", self._cable(host), "down")

    def heal(self, host: int) -> None:
        _ip("link", "set", self._cable(host), "up")

    def mute(self, host: int) -> None:
        """It hears everybody and nobody hears it: what it sends goes to an address that no card on the bridge has."""
        for peer in self._peers(host):
            _ip(
                *(
                    "-n",
                    self._namespace(host),
                    "neigh",
                    "replace",
                    peer,
                    "lladdr",
                    NOBODYS_CARD,
                    "dev",
                    self._plug(host),
                    "nud",
                    "permanent",
                )
            )

    def unmute(self, host: int) -> None:
        for peer in self._peers(host):
            _ip("-n", self._namespace(host), "neigh", "del", peer, "dev", self._plug(host))

    def slow(self, host: int, *, rate: str, latency: str) -> None:
        """What it sends, and what is sent to it, passes at this rate; what would wait for longer is dropped."""
        shape = ("root", "tbf", "rate", rate, "burst", "4kb", "latency", latency)
        _tc("qdisc", "add", "dev", self._cable(host), *shape)
        _tc("-n", self._namespace(host), "qdisc", "add", "dev", self._plug(host), *shape)

    def quicken(self, host: int) -> None:
        _tc("qdisc", "del", "dev", self._cable(host), "root")
        _tc("-n", self._namespace(host), "qdisc", "del", "dev", self._plug(host), "root")

    def _peers(self, host: int) -> list[str]:
        return [self.address(other) for other in (HUB, *range(1, self.size + 1)) if other != host]

    @property
    def bridge(self) -> str:
        return f"rkb{self.number}"

    def _namespace(self, host: int) -> str:
        return f"rkn{self.number}-{host}"

    def _cable(self, host: int) -> str:
        return f"rkv{self.number}-{host}"

    def _plug(self, host: int) -> str:
        return f"rkp{self.number}-{host}"

    def lay(self) -> None:
        """Raises Unsupported."""
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address()}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for host in range(1, self.size + 1):
            space, cable, plug = self._namespace(host), self._cable(host), self._plug(host)
            _ip("netns", "add", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", plug)
            _ip("link", "set", plug, "netns", space)
            _ip("link", "set", cable, "master", self.bridge, "up")
            for words in (
                ("addr", "add", f"{self.address(host)}/24", "dev", plug),
                ("link", "set", plug, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", space, *words)

    def clear(self) -> None:
        """End what runs there, and take it all down."""
        for host in range(1, self.size + 1):
            with contextlib.suppress(Unsupported):
                for pid in _ip("netns", "pids", self._namespace(host)).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), 9)
                _ip("netns", "del", self._namespace(host))
            with contextlib.suppress(Unsupported):
                _ip("link", "del", self._cable(host))
        with contextlib.suppress(Unsupported):
            _ip("link", "del", self.bridge)


@contextlib.contextmanager
def net(size: int) -> Iterator[Net]:
    """Some hosts for the length of the block. Raises Unsupported."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise Unsupported("network namespaces need root and the program `ip` (iproute2)")
    found = Net(random.randrange(1, 250), size)  # noqa: S311 (keeps tests that run at once apart)
    try:
        found.lay()
        yield found
    finally:
        found.clear()


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _tc(*words: str) -> str:
    return _run("tc", *words)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise Unsupported(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout

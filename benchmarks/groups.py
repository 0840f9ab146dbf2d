"""Replication groups under test: what all contestants have in common, whoever manages them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.record import KEY
from benchmarks.writing import until
from redkeep.model.topology import Address

PAGE = 500
VALUE_BYTES = 1000
WHOLE_LIMIT = 90.0


class Contestant(Protocol):
    """A primary with two replicas, managed by somebody."""

    name: str
    servers: Servers

    @property
    def client(self) -> Mapping[str, Any]:
        """How `benchmarks.writer` reaches it."""
        ...

    def crash(self) -> None:
        """kill -9 the primary. Returns at once."""
        ...

    def hang(self) -> None:
        """SIGSTOP the primary. Returns at once."""
        ...

    def resume(self) -> None:
        """SIGCONT the one that was stopped, if the product has left it as it was."""
        ...

    def bring_back(self) -> None:
        """What an init system does about the crashed server once it is safe; nothing where the product does it."""
        ...

    def promote(self) -> None:
        """Have a replica take over while the primary lives. May return before it is done."""
        ...

    def settled(self) -> bool:
        """Whether the managing side, too, is done with the last change."""
        ...

    def close(self) -> None:
        """End all processes."""
        ...


class Servers:
    """The members of a group as a client reaches them."""

    def __init__(self, addresses: Sequence[Address], password: str | None = None) -> None:
        self.addresses = tuple(addresses)
        self.password = password
        self._clients = {
            address: Redis(address.host, address.port, password=password, socket_timeout=5) for address in addresses
        }

    def client(self, address: Address) -> Redis:
        return self._clients[address]

    def ask(self, section: str) -> dict[Address, dict[str, Any]]:
        """INFO by address; who does not answer is left out."""
        found = {}
        for address, client in self._clients.items():
            try:
                found[address] = dict(client.info(section))
            except RedisError:
                continue
        return found

    def primary(self) -> Address:
        """The only one that calls itself so; raises Failed after a while."""
        found: list[Address] = []

        def only_one() -> bool:
            found[:] = [one for one, said in self.ask("replication").items() if said["role"] == "master"]
            return len(found) == 1

        until(only_one, WHOLE_LIMIT, "exactly one primary")
        return found[0]

    def replicas(self) -> list[Address]:
        primary = self.primary()
        return [address for address in self.addresses if address != primary]

    def whole(self) -> bool:
        """One primary, and everybody else follows it and has what it has."""
        said = self.ask("replication")
        primaries = [(address, one) for address, one in said.items() if one["role"] == "master"]
        if len(said) < len(self.addresses) or len(primaries) != 1:
            return False
        address, primary = primaries[0]
        return primary["connected_slaves"] == len(self.addresses) - 1 and all(
            one["master_port"] == address.port and one["master_link_status"] == "up"
            for one in said.values()
            if one["role"] == "slave"
        )

    def full_resyncs(self) -> dict[str, int]:
        """Full synchronisations given so far, by process of a server."""
        runs = self.ask("server")
        return {runs[one]["run_id"]: int(said["sync_full"]) for one, said in self.ask("stats").items() if one in runs}

    def fill(self, megabytes: int) -> None:
        """That much data, incompressible, and applied by all."""
        value = os.urandom(VALUE_BYTES)
        client = self.client(self.primary())
        for page in _pages(range(megabytes * 1_000_000 // VALUE_BYTES)):
            with client.pipeline(transaction=False) as pipe:
                for number in page:
                    pipe.set(f"data:{number}", value)
                pipe.execute()
        client.wait(len(self.addresses) - 1, 30_000)
        until(self.whole, WHOLE_LIMIT, "a whole group")

    def take_away(self, numbers: Sequence[int]) -> int:
        """Remove these writes; return how many of them were not there."""
        client, missing = self.client(self.primary()), 0
        for page in _pages(numbers):
            missing += len(page) - int(client.unlink(*(KEY % number for number in page)))
        client.wait(len(self.addresses) - 1, 30_000)
        return missing

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


def until_quiet(contestant: Contestant) -> None:
    """Wait until the group is whole, its manager done, and both have stayed so for a moment."""

    def quiet() -> bool:
        return contestant.servers.whole() and contestant.settled()

    until(quiet, WHOLE_LIMIT, f"{contestant.name}: a whole group")
    time.sleep(0.3)
    until(quiet, WHOLE_LIMIT, f"{contestant.name}: a whole group that stays so")


def _pages(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), PAGE):
        yield numbers[start : start + PAGE]

"""Who is where in a replication group, as clients need to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Role(StrEnum):
    """What a server is meant to be. Redis' wire says `master` and `slave`; nothing else here does."""

    PRIMARY = "primary"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port`, the host optionally in brackets (IPv6). Raises ValueError."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit():
            raise ValueError(f"{text!r} is not host:port")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Topology:
    """A replication group as its clients see it. Of two, the one with the higher epoch is true."""

    group_id: str
    epoch: int
    primary: Address | None
    replicas: tuple[Address, ...] = ()
    confirmations: int = 0
    """How many replicas must have a write before the driver calls it acknowledged (durability `sync`)."""

    @property
    def nodes(self) -> tuple[Address, ...]:
        """Every server of the group, the primary first."""
        return (*((self.primary,) if self.primary else ()), *self.replicas)

    def to_news(self) -> dict[str, Any]:
        """The body of an HA message (JSON types only)."""
        return {
            "group": self.group_id,
            "epoch": self.epoch,
            "primary": str(self.primary) if self.primary else None,
            "replicas": [str(replica) for replica in self.replicas],
            "confirmations": self.confirmations,
        }

    @classmethod
    def from_news(cls, news: Mapping[str, Any]) -> Self:
        """The inverse of `to_news`. Raises ValueError on anything that is not such a message."""
        try:
            primary, replicas = news["primary"], news["replicas"]
            return cls(
                group_id=str(news["group"]),
                epoch=int(news["epoch"]),
                primary=Address.parse(primary) if primary else None,
                replicas=tuple(Address.parse(replica) for replica in replicas),
                confirmations=int(news.get("confirmations", 0)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a topology: {news!r}") from error

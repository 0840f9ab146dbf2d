"""What an agent needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redkeep.agent.guest import GuestAgentStrategy
from redkeep.decide.liveness import Patience
from redkeep.model.instance import DEFAULT_SITE
from redkeep.redis.conf import Tuning


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Read once at the start."""

    host_id: str
    """Name of this machine among all hosts of the installation."""
    address: str
    """Where the servers of this host listen, and where everyone reaches them."""
    directory: Path
    """Where the servers' files are: one directory each."""
    programs: Mapping[str, Path]
    """redis-server by `major.minor`."""
    site: str = DEFAULT_SITE
    """The site that this machine stands at."""
    zone: str = ""
    """The availability zone that this machine stands in: those of one zone may fail together."""
    port_low: int = 7000
    port_high: int = 7999
    word_seconds: float = 1.5
    """How long a promotion is good for before a manager must confirm it. Not more than the managers' own figure."""
    heartbeat_interval: float = 0.5
    """Seconds between two reports to the managers."""
    watch_interval: float = 0.1
    """Seconds between two looks at the servers' pulse and at the word of the primaries."""
    patience: Patience = field(default_factory=Patience)
    tuning: Tuning = field(default_factory=Tuning)
    guestagent_strategy: type[GuestAgentStrategy] = GuestAgentStrategy
    """What a member of a cluster is told, and how."""
    log_bytes: int = 8 * 1024 * 1024
    """A server's log is rotated when it is larger."""

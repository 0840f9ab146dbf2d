"""What a manager needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from redkeep.decide.recovery import Limits
from redkeep.model.instance import Flavor
from redkeep.model.site import Backend


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """Read once at the start."""

    name: str
    """Names this manager among all; two that run at once must not share it."""
    flavors: Mapping[str, Flavor]
    taskmanager_strategy: str = "redkeep.operations.cluster_strategy.RedisTaskManagerStrategy"
    """The class that knows the runbooks of clusters, by its dotted name."""
    lease_seconds: float = 5.0
    """How long the operations of a manager that died wait for another one."""
    word_seconds: float = 1.5
    """How long an agent's primaries may write after a confirmation."""
    look_interval: float = 1.0
    """Seconds between two looks at everything; reports and hints only make a look come sooner."""
    keep_seconds: float = 30 * 24 * 3600.0
    """How long events, and operations that have ended, are kept."""
    repair_pause: float = 5.0
    """Seconds before a group whose repair has just been tried is repaired again."""
    roll_patience: float = 120.0
    """Seconds that a server which was started anew may take to come back, those not counted in which it gets on."""
    host_lost: float = 120.0
    """Seconds after which operations that can do nothing else give up waiting for a host that says nothing."""
    failover_deadline: float = 120.0
    """Seconds after which a failover that cannot be done is given up, and the group judged anew."""
    stop_limit: float = 8.0
    """Seconds that running operations get to finish when the manager is told to stop."""
    limits: Limits = field(default_factory=Limits)
    service: str = ""
    """What its service is called, before the `@`; its name when this is empty."""
    cluster: str = "managers"
    """The service cluster that it belongs to, before the `@`. Empty: it is alone."""
    backend: Backend = field(default_factory=Backend)
    canary_interval: float = 5.0
    """Seconds between two measurements of how far behind other sites are."""
    report_interval: float = 5.0
    """Seconds between two signs of life."""
    follow_limit: float = 60.0
    """Seconds that its driver gets to follow to another site, or to freeze."""
    follow_pause: float = 1.0
    """Seconds before a driver that could not follow is asked again; doubled each time, up to thirty."""

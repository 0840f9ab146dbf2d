"""Finds a backend's driver by its name, and says what its class can do. Knows no driver itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from redkeep.backends.base import BaseDriver
from redkeep.decide.site import Abilities
from redkeep.errors import Refused
from redkeep.ports import BackendContext, BackendDriver

GROUP = "redkeep.backends"

DriverClass = Callable[[BackendContext], BackendDriver]
"""A class, as a rule; whatever makes a driver of a context."""


def load_driver(name: str) -> DriverClass:
    """The entry point of that name. Raises Refused, naming those that there are."""
    found = {one.name: one for one in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none: is Redkeep installed?"
        raise Refused(f"[backend] driver = {name}: there is no such driver; there are {known}")
    try:
        made: DriverClass = found[name].load()
    except (ImportError, AttributeError) as error:
        raise Refused(f"[backend] driver = {name}: {found[name].value} cannot be loaded: {error}") from error
    return made


def abilities(made: DriverClass) -> Abilities:
    """What it can do, told from the class: a manager finds out before it has made one."""
    return Abilities(
        name=getattr(made, "__name__", type(made).__name__),
        active_active=bool(getattr(made, "SUPPORTS_ACTIVE_ACTIVE", False)),
        halves=all(_brings(made, half) for half in ("failover", "failover_completed")),
        whole=_brings(made, "failover_host"),
    )


def _brings(made: DriverClass, method: str) -> bool:
    """It has the method, and not just the one that every driver inherits."""
    found = getattr(made, method, None)
    return callable(found) and found is not getattr(BaseDriver, method)

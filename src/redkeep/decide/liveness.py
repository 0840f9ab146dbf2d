"""What silence of a local server means, and what its agent does after it has exited."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from redkeep.model.topology import Role


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for which a server may be silent."""

    stopped: float = 0.2
    """The kernel says that the process is stopped (SIGSTOP, a debugger): it cannot be merely busy."""
    silent: float = 5.0
    """Any other silence. One that loads, forks or runs a long script is busy, and that may take a while."""


class Pulse(StrEnum):
    """What an agent makes of a server that does not answer."""

    FINE = "fine"
    HUNG = "hung"
    KILL = "kill"
    """Hung, and replicas stand by: end it, so that it cannot wake up and accept writes after it was replaced."""


def pulse(*, silent_for: float, stopped: bool, group_size: int, patience: Patience) -> Pulse:
    """What to make of a server that has not answered a ping for `silent_for` seconds."""
    if silent_for <= (patience.stopped if stopped else patience.silent):
        return Pulse.FINE
    return Pulse.KILL if group_size > 1 else Pulse.HUNG


class Comeback(StrEnum):
    """What an agent does about a server of its own that is not running."""

    START = "start"
    AWAIT_WORD = "await word"
    """Somebody may have taken its place: only a manager knows."""


def comeback(role: Role, group_size: int) -> Comeback:
    """A replica, or an only server, may start on its own; a primary with replicas cannot know that it still is one."""
    return Comeback.AWAIT_WORD if role is Role.PRIMARY and group_size > 1 else Comeback.START


def restart_pause(exits_in_a_row: int) -> float:
    """Seconds to wait before starting again a server that keeps exiting: at once, then 0.5 s doubling up to 30 s."""
    return 0.0 if exits_in_a_row <= 1 else min(30.0, 0.5 * 2.0 ** min(exits_in_a_row - 2, 16))

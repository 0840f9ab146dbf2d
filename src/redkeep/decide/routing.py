"""What the driver does after a command failed: one table, and how long to wait.

A command is repeated by itself only when repeating cannot run it twice, or when its caller said that twice is fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from redkeep.errors import OutcomeUnknown, Unavailable

Retry = Literal["never", "if_not_run", "always"]

NOT_RUN = frozenset(
    {"READONLY", "NOREPLICAS", "LOADING", "MASTERDOWN", "UNBLOCKED", "BUSY"}
    | {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"}
)
"""Error replies that say "not here" or "not now": Redis checks for them before it runs the command.

UNBLOCKED ends a command that waited for data when its server was demoted: it had taken nothing.
"""

REFUSES_WRITES = frozenset({"READONLY", "NOREPLICAS", "MASTERDOWN"})
"""Those that say something about who the primary is."""

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.25
SHORTEST_REMAINDER = 0.001
"""Seconds before the deadline at which trying again stops making sense."""
AT_ONCE = 3
"""Attempts that may follow each other without a pause because the primary moved: more look like a quarrel."""


class What(StrEnum):
    """How an attempt failed."""

    NOT_WRITTEN = "not written"
    LOST = "lost"
    """Written, and no reply came."""
    ANSWERED = "answered"
    """The server replied with an error."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of an attempt that failed."""

    what: What
    code: str = ""
    """First word of the error reply."""
    moved: bool = False
    """Another server is believed to be the primary by now."""
    may_have_run: bool = False
    """An earlier attempt at the same command was lost."""

    @property
    def ran(self) -> bool | None:
        """Whether this attempt ran, None when nobody can know. An error of the command itself counts as having run."""
        match self.what:
            case What.NOT_WRITTEN:
                return False
            case What.LOST:
                return None
            case What.ANSWERED:
                return self.code not in NOT_RUN


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at that moment, or as soon as the primary moved or came back; look who is primary meanwhile."""

    moment: float
    look_first: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Raise this."""

    error: type[Unavailable] | type[OutcomeUnknown]


@dataclass(frozen=True, slots=True)
class PassOn:
    """The server's error is the answer to the command."""


_REPEAT: dict[tuple[Retry, bool | None], bool] = {
    ("never", False): False,
    ("never", None): False,
    ("if_not_run", False): True,
    ("if_not_run", None): False,
    ("always", False): True,
    ("always", None): True,
}


def after_failure(
    failure: Failure, *, retry: Retry, attempt: int, now: float, deadline: float, chance: float = 0.5
) -> RetryAt | GiveUp | PassOn:
    """What follows the failure of the `attempt`-th attempt (from 1). `now` and `deadline` are of one clock, in seconds;
    `chance` in [0, 1) spreads the retries of many."""
    ran = failure.ran
    if ran:
        return PassOn()
    left = deadline - now
    if not _REPEAT[retry, ran] or left < SHORTEST_REMAINDER:
        return GiveUp(OutcomeUnknown if ran is None or failure.may_have_run else Unavailable)
    if failure.moved and attempt <= AT_ONCE:
        return RetryAt(now, look_first=False)
    # never later than half of what is left, so that the last attempts come before the deadline and not after it
    return RetryAt(now + min(pause(attempt, chance), left / 2), look_first=True)


def pause(attempt: int, chance: float) -> float:
    """Seconds to wait after the `attempt`-th attempt: doubling, with jitter over the upper half."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 16))
    return longest * (0.5 + 0.5 * chance)

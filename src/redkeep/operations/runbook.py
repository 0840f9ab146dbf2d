"""What a runbook is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redkeep.operations.context import Run


@dataclass(frozen=True, slots=True)
class Runbook:
    """How an operation is done, and how the rows look when it is given up."""

    run: Callable[[Run], Awaitable[None]]
    give_up: Callable[[Run, str], Awaitable[None]]

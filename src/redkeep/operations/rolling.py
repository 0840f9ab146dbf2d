"""What a roll remembers between two servers, for that of a group and that of a cluster."""

from __future__ import annotations

from dataclasses import replace

from redkeep.model.instance import Status
from redkeep.operations.context import Run


def renewed(run: Run) -> list[str]:
    """Whom it has started anew, oldest first."""
    return list(run.operation.choice.get("renewed", ()))


def choose(run: Run, **choice: object) -> None:
    """Written down with the next change."""
    run.operation = replace(run.operation, choice={**run.operation.choice, **choice})


def concerned(run: Run) -> list[str]:
    """Whom it was asked for."""
    return [one.id for one in run.instances if one.status in (Status.REBOOT, Status.UPGRADE)]


def with_version(run: Run) -> str:
    """For the record: the version that they get, where that was asked for."""
    version = run.operation.args.get("version")
    return f" with Redis {version}" if version else ""

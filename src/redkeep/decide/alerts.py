"""What a server complains of while it serves, on the row of its instance: shown to its owner as a fault, and no error.

Such a server keeps its place: nobody who took it over would have more disk or memory. So people must be told.
"""

from __future__ import annotations

from redkeep.model.instance import Fault, Instance

ALERT = "Alert: "
"""How the fault of an instance begins that only serves less than it should."""


def is_alert(fault: Fault | None) -> bool:
    """Whether it says what a server complains of, and nothing of an operation."""
    return fault is not None and fault.message.startswith(ALERT)


def alerted(instance: Instance, trouble: str, now: float) -> Fault | None:
    """The fault that the row is to have when its server complains of `trouble` ("": of nothing).

    What an operation left there stays until its trouble is greater: an instance in ERROR keeps its own.
    """
    if not trouble:
        return None if is_alert(instance.fault) else instance.fault
    if instance.fault is not None and (not is_alert(instance.fault) or instance.fault.message == ALERT + trouble):
        return instance.fault
    return Fault(ALERT + trouble, now)

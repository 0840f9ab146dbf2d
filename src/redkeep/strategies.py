"""Classes that the operator names: found by their dotted name, and looked at before anybody relies on them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from redkeep.errors import Refused


def load_class(name: str, *, needs: Iterable[str]) -> Any:
    """The class `package.module.Class`, which has all these methods. Raises Refused, in words for the operator."""
    module_name, dot, class_name = name.rpartition(".")
    if not dot:
        raise Refused(f"{name!r} is no dotted name of a class, such as package.module.Class")
    try:
        found = getattr(import_module(module_name), class_name, None)
    except ImportError as error:
        raise Refused(f"the strategy {name} cannot be loaded: {error}") from error
    if not isinstance(found, type):
        raise Refused(f"the strategy {name} is not there: {module_name} has no class {class_name}")
    if missing := [method for method in needs if not callable(getattr(found, method, None))]:
        raise Refused(f"the strategy {name} lacks {', '.join(missing)}")
    return found

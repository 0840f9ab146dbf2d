"""What one line of a table of routes says."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fastapi.routing import APIRoute

READ = (400, 401, 403, 404, 500, 503)
CHANGE = (*READ, 409, 413, 415, 422, 501)
ANYBODY = (500, 503)


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table."""

    method: str
    """One of them, or several with spaces between."""
    path: str
    handler: Callable[..., Coroutine[Any, Any, Any]]
    faults: tuple[int, ...] = READ
    status: int = 200
    has_body: bool = True
    """Its answer has one."""
    guarded: bool = True
    """It needs credentials."""
    documented: bool = True
    route_class: type[APIRoute] | None = None
    """In place of the usual one for what is guarded, or not."""
    name: str | None = None
    tag: str = ""
    """Under what it is documented; the module of its handler when this is empty."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What the document says of it besides."""

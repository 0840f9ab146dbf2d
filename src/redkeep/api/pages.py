"""Lists in pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Protocol, TypeVar

from fastapi import Query

from redkeep.api.call import Call
from redkeep.api.schemas import Link

Limit = Annotated[int | None, Query(ge=1, description="Items per page, at most the server's page size")]
Marker = Annotated[str | None, Query(max_length=255, description="Items whose id is greater than this one")]


class Listed(Protocol):
    """What stands in a list."""

    @property
    def id(self) -> str: ...
    @property
    def created(self) -> float: ...


Item = TypeVar("Item", bound=Listed)


def page_of(items: Iterable[Item], marker: str, size: int) -> tuple[list[Item], str | None]:
    """The page after the marker, newest first, and the marker of the next one.

    Pages go by id, so that what is created or deleted meanwhile moves nobody from one page to another.
    """
    rest = sorted((one for one in items if one.id > marker), key=lambda one: one.id)
    page = rest[:size]
    more = page[-1].id if len(rest) > size else None
    return sorted(page, key=lambda one: one.created, reverse=True), more


def next_page(call: Call, marker: str) -> Link:
    query = call.url.include_query_params(marker=marker).query
    return Link(href=f"{call.base_url}{call.url.path}?{query}", rel="next")

"""Whether a log still holds all that a subscriber has missed."""

from __future__ import annotations

BEGINNING = "0-0"


def is_whole(after: str, *, first: str | None, last: str, length: int, kept: int) -> bool:
    """Whether nothing between `after`, the last id that was seen, and the log's end `last` is missing.

    `first` is the id of the first entry from `after` on, itself included: what was seen and is still there proves
    that nothing behind it was trimmed, and that this is the same log. A subscriber that has seen nothing needs a log of
    which nothing was ever trimmed: a trimmed one has at least `kept` entries.
    """
    if after == BEGINNING:
        return length < kept
    return first == after or (first is None and last == after)


def order(entry_id: str) -> tuple[int, int]:
    """What the ids of a log are compared by."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)

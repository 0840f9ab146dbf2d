"""What tables and messages may say no with, beside `redkeep.errors`: one tree with it."""

from __future__ import annotations

from redkeep.errors import Refused


class KeyNotFound(Refused):
    """A read that succeeded found nothing. An outage is never called that."""

    def __init__(self, *, key: str | bytes, table: str = "") -> None:
        super().__init__(f"there is no {key!r} in {table!r}" if table else f"there is no {key!r}", kind="missing")
        self.key = key
        self.table = table


class TableNotFound(KeyNotFound):
    """The key is not there because the whole table is not."""

    def __init__(self, *, table: str, key: str | bytes = "") -> None:
        super().__init__(key=key, table=table)
        self.args = (f"there is no table {table!r}",)


class KeyExists(Refused):
    """`create_key` met a value that it would have overwritten."""

    def __init__(self, *, key: str | bytes, table: str) -> None:
        super().__init__(f"{key!r} is in {table!r} already", kind="conflict")
        self.key = key
        self.table = table

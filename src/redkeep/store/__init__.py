"""The only truth: groups, instances, operations, hosts and the audit, in SQLite or PostgreSQL.

`open_store(url)` is the way in. Nothing here decides anything: it keeps what it is given, hands it back unchanged, and
says honestly whether it did.
"""

from redkeep.store.sql import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]

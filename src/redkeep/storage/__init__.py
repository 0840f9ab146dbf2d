"""Where backups are kept: a directory, or a bucket of an S3-compatible service.

`open_storage(settings)` is the way in. Agents alone go through it: they have the data. Nothing here knows what a backup
is; it keeps files by their name, whole or not at all.
"""

from redkeep.storage.opening import StorageSettings, open_storage

__all__ = ["StorageSettings", "open_storage"]

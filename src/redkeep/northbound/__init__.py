"""The driver: publish, listen, request and serve over Redis, and a client that follows a replication group.

It is installed in applications: it needs redis-py with hiredis alone, and knows of the control plane only its news.
"""

from redkeep.northbound.bus import RedisBus
from redkeep.northbound.client import Client
from redkeep.northbound.connecting import connect
from redkeep.northbound.wire import Connection, Login, ServerError

__all__ = ["Client", "Connection", "Login", "RedisBus", "ServerError", "connect"]

"""The driver: tables, publish and subscribe, and a client that follows its servers through every failover.

It is installed in applications: it needs redis-py with hiredis alone, and knows of the control plane only its news.
`redkeep.northbound.sync` is the same for threads.
"""

from redkeep.northbound.availability import Availability
from redkeep.northbound.bus import RedisBus
from redkeep.northbound.client import Client
from redkeep.northbound.connecting import connect
from redkeep.northbound.detector import Detector
from redkeep.northbound.failures import KeyExists, KeyNotFound, TableNotFound
from redkeep.northbound.keeping import Keeper
from redkeep.northbound.messages import Message
from redkeep.northbound.mirror import Mirror, Report
from redkeep.northbound.publishing import Publisher
from redkeep.northbound.subscribing import Notice, Subscriber
from redkeep.northbound.tables import RawTables, Tables
from redkeep.northbound.wire import Connection, Login, ServerError, tls_context

__all__ = [
    "Availability",
    "Client",
    "Connection",
    "Detector",
    "Keeper",
    "KeyExists",
    "KeyNotFound",
    "Login",
    "Message",
    "Mirror",
    "Notice",
    "Publisher",
    "RawTables",
    "RedisBus",
    "Report",
    "ServerError",
    "Subscriber",
    "TableNotFound",
    "Tables",
    "connect",
    "tls_context",
]

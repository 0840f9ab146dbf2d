"""What managers, and the API, tell each other about sites: versioned, so that neighbouring releases work together.

A message is `{"object": name, "version": "1.1", "data": {...}}`. Within a major version fields are only ever added. A
sender uses the newest form that every member of the cluster reads (`common_version`); a reader that meets a newer minor
form takes what it knows of it, and one that meets another major form takes it for a mere hint to look.

Nothing is lost when one is: all of it is in the database, and managers look there anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from redkeep.ports import Body

SITES = "sites"
"""The topic on which a cluster's members hear that there is something to do."""

NEWEST = "1.1"
"""The form that this release writes at best."""

OBJECT = "SiteNews"
_FIELDS: Mapping[str, frozenset[str]] = {
    "1.0": frozenset({"cluster", "epoch", "active_backend_id"}),
    "1.1": frozenset({"cluster", "epoch", "active_backend_id", "failover", "replication_status"}),
}
"""What each form has. A released one is never changed."""


@dataclass(frozen=True, slots=True)
class SiteNews:
    """`failover_completed`, or that one was asked for: look at the cluster's row, it is at this epoch now."""

    cluster: str
    epoch: int
    active_backend_id: str
    failover: str = ""
    """Its id. Since 1.1."""
    replication_status: str = ""
    """Since 1.1."""


def _order(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def common_version(spoken: Iterable[str]) -> str:
    """The newest form that all of them read, and we can write."""
    lowest = min((*spoken, NEWEST), key=_order)
    return max((one for one in _FIELDS if _order(one) <= _order(lowest)), key=_order, default=min(_FIELDS, key=_order))


def encode_news(news: SiteNews, version: str = NEWEST) -> dict[str, Any]:
    """In the form of that version: what it does not have is left out."""
    data = {name: value for name, value in asdict(news).items() if name in _FIELDS[version]}
    return {"object": OBJECT, "version": version, "data": data}


def decode_news(body: Body, reads: str = NEWEST) -> SiteNews | None:
    """What a message says to a release that reads forms up to `reads`; None when it cannot be told."""
    version, data = body.get("version"), body.get("data")
    try:
        if body.get("object") != OBJECT or _order(str(version))[0] != _order(reads)[0] or not isinstance(data, dict):
            return None
        return SiteNews(**{name: value for name, value in data.items() if name in _FIELDS[reads]})
    except (ValueError, TypeError):
        return None


# --- Asking a member ---------------------------------------------------------------------------------------------


def members_name(cluster_id: str) -> str:
    """What the members of a service cluster serve together: any of them answers."""
    return f"backend:{cluster_id}"


def encode_freeze(cluster_id: str, *, frozen: bool) -> dict[str, Any]:
    """Have one driver told that the backend is frozen, or have it thawed."""
    return {"object": "Freeze", "version": "1.0", "data": {"cluster": cluster_id, "frozen": frozen}}


def decode_freeze(body: Body) -> bool:
    """Whether it is to be frozen. Raises KeyError or TypeError for anything else."""
    return bool(body["data"]["frozen"])

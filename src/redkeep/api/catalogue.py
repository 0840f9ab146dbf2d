"""What can be ordered: one datastore, and those of its versions that some host has. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import NAMESPACE_DNS, uuid5

from redkeep.api.schemas import DatastoreOrder
from redkeep.api.settings import ApiSettings
from redkeep.errors import Refused
from redkeep.model.instance import DatastoreVersion, Flavor, Host

DATASTORE_NAME = "redis"

_NAMESPACE = uuid5(NAMESPACE_DNS, "redkeep")
DATASTORE_ID = str(uuid5(_NAMESPACE, "datastore/redis"))
"""Ids are made of names, so that every installation and every restart has the same."""


def version_of(name: str) -> DatastoreVersion:
    """A version by its name (`major.minor`)."""
    return DatastoreVersion(str(uuid5(_NAMESPACE, f"datastore/redis/{name}")), name)


def offered(settings: ApiSettings, hosts: Iterable[Host]) -> tuple[DatastoreVersion, ...]:
    """Versions that can be ordered now."""
    found = tuple(hosts)
    present = {version for host in found for version in host.versions}
    return tuple(version_of(name) for name in known(settings, found) if name in present)


def known(settings: ApiSettings, hosts: Iterable[Host]) -> tuple[str, ...]:
    """Names of versions: those of the settings, then what else the hosts have, newest first."""
    others = {version for host in hosts for version in host.versions} - set(settings.versions)
    return (*settings.versions, *sorted(others, key=lambda name: [int(part) for part in name.split(".")], reverse=True))


def default_of(settings: ApiSettings, versions: Iterable[DatastoreVersion]) -> DatastoreVersion | None:
    """What an order gets that names none."""
    candidates = tuple(versions)
    preferred = (one for one in candidates if one.name == settings.default_version)
    return next(preferred, candidates[0] if candidates else None)


def check_datastore(datastore: str) -> None:
    """There is one datastore, known by name and id. Raises Refused (kind `missing`) for any other."""
    if datastore not in (DATASTORE_NAME, DATASTORE_ID):
        raise Refused(f"Datastore '{datastore[:64]}' cannot be found.", kind="missing")


def find_version(settings: ApiSettings, hosts: Iterable[Host], wanted: str) -> DatastoreVersion:
    """A version that this installation knows, by name or id, whether or not a host has it. Raises Refused."""
    names = known(settings, hosts)
    for version in map(version_of, names):
        if wanted in (version.name, version.id):
            return version
    raise Refused(f"Datastore version '{wanted[:64]}' cannot be found: there are {', '.join(names)}.", kind="invalid")


def ordered_version(settings: ApiSettings, hosts: Iterable[Host], order: DatastoreOrder | None) -> str:
    """The name of the version that an order asks for, or gets by default. Raises Refused."""
    if order and order.type:
        check_datastore(order.type)
    wanted = (order.version or order.version_number) if order else None
    if wanted:
        return find_version(settings, hosts, wanted).name
    default = default_of(settings, offered(settings, hosts))
    return default.name if default else settings.default_version


def ordered_flavor(settings: ApiSettings, flavor_id: str | None) -> Flavor:
    """The flavor that an order names. Raises Refused."""
    if flavor_id is None:
        raise Refused("A flavorRef is required.")
    flavor = settings.flavor(flavor_id)
    if flavor is None:
        raise Refused(f"Flavor {flavor_id[:64]} cannot be found.")
    return flavor

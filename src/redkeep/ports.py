"""Doors: the few Protocols through which the rooms above reach the outside.

Each has a real implementation and, where that pays, a fake; both pass the same suite in `tests/contract`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from redkeep.model.backup import Backup
from redkeep.model.cluster import Cluster
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Configuration, Event, Group, Host, Instance
from redkeep.model.operation import Operation
from redkeep.model.orders import Order
from redkeep.model.site import Backend, FailoverResult, Service, ServiceCluster, Volume
from redkeep.model.topology import Address

# --- Bus ---------------------------------------------------------------------------------------------------------

Body = Mapping[str, Any]
"""What travels: JSON types only."""

Handler = Callable[[Body], Awaitable[Body]]
"""Serves one request. What it raises from `redkeep.errors` reaches the caller as the same class."""


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a topic. `id` orders the entries of that topic and is the place to go on from."""

    id: str
    topic: str
    body: Body


class Bus(Protocol):
    """The nervous system between managers, agents and the API: the northbound, or its in-memory twin.

    Topics are bounded logs: who listens gets each entry at least once, in order, and can go on after the last id it
    saw. Requests are durable: one survives a restart of either side until its deadline, is executed at least once (so
    handlers are idempotent), and its reply goes to the caller that asked, if that still lives.
    """

    async def publish(self, topic: str, body: Body) -> str:
        """Append to a topic; return the entry's id. Raises Unavailable or OutcomeUnknown."""
        ...

    def listen(self, topic: str, *, after: str | None = None) -> AsyncIterator[Message]:
        """Entries of the topic after the given id, or from now on. Reconnects by itself, for ever.

        "From now on" is fixed when the first entry is awaited. Cancel the task to stop.
        """
        ...

    async def request(self, to: str, body: Body, *, timeout: float) -> Body:
        """Have `to` execute the body; return its reply.

        Raises Unavailable when it was not handed over, OutcomeUnknown when it was but no reply came in `timeout`
        seconds, and whatever member of `redkeep.errors` its handler raised.
        """
        ...

    async def serve(self, name: str, handler: Handler) -> None:
        """Execute the requests that are sent to `name`, several at a time, until cancelled."""
        ...

    async def close(self) -> None: ...


REACH_LIMIT = 0.5
"""Seconds that a server gets to answer a host that was asked whether it can reach it."""

# --- Agents ------------------------------------------------------------------------------------------------------


class Agents(Protocol):
    """The agents of all hosts.

    Both raise Unavailable or OutcomeUnknown when the host cannot be reached in time, and what the agent raised.
    """

    async def look(self, host_id: str, instance_ids: Sequence[str], *, timeout: float = 2.0) -> tuple[ServerFacts, ...]:
        """Fresh facts of the given servers, in that order."""
        ...

    async def reaches(self, host_id: str, address: Address, *, timeout: float = 1.0) -> bool:
        """Whether the server at that address says anything to that host within `REACH_LIMIT`."""
        ...

    async def tell(self, host_id: str, order: Order, *, timeout: float = 10.0) -> ServerFacts:
        """Have an order executed; return what the server looks like after it.

        Raises StaleEpoch when the agent has accepted a higher epoch for the group.
        """
        ...


# --- Store -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WholeGroup:
    """What the store has of one group, all of one moment."""

    group: Group
    instances: tuple[Instance, ...]
    """Those that are not deleted, oldest first."""
    operations: tuple[Operation, ...]
    """Those that are open, oldest first."""
    now: float
    """The store's clock."""
    cluster: Cluster | None = None
    """The cluster that the instances are members of, if they are."""


class Transaction(Protocol):
    """One unit of work. What it wrote is there for all, or, if the block raised, for nobody.

    Two that write the same group take turns if both read it with `lock` first: what they then read of the group, its
    instances and its operations stays true until the block ends. (On SQLite all that write take turns.) An error of
    any method ends the unit: whoever catches it inside the block meets it again at the next call and at the end.
    """

    async def now(self) -> float:
        """The store's clock, in seconds since 1970: the only clock for what is persisted."""
        ...

    async def group(self, group_id: str, *, lock: bool = False) -> Group | None:
        """One group; with `lock` nobody else may change it until the block ends."""
        ...

    async def whole_group(self, group_id: str, *, lock: bool = False) -> WholeGroup | None:
        """A group with all that belongs to it, in one trip: for paths on which milliseconds count. `lock` as above."""
        ...

    async def groups(self) -> list[Group]:
        """All groups that have an instance which is not deleted."""
        ...

    async def instance(self, instance_id: str) -> Instance | None:
        """One instance, deleted ones included."""
        ...

    async def instances(
        self,
        *,
        project_id: str | None = None,
        group_id: str | None = None,
        host_id: str | None = None,
        configuration_id: str | None = None,
    ) -> list[Instance]:
        """Instances that are not deleted, oldest first."""
        ...

    async def operation(self, operation_id: str) -> Operation | None: ...

    async def open_operations(self, *, group_id: str | None = None) -> list[Operation]:
        """Operations that are neither done nor failed, oldest first."""
        ...

    async def configuration(self, configuration_id: str, *, lock: bool = False) -> Configuration | None:
        """One configuration group, deleted ones included; with `lock` nobody else may change it, or attach it, until
        the block ends. Whoever locks groups as well locks it first."""
        ...

    async def configurations(self, project_id: str) -> list[Configuration]:
        """A project's configuration groups that are not deleted, by id."""
        ...

    async def cluster(self, cluster_id: str) -> Cluster | None:
        """One cluster, deleted ones included. Whoever changes it locks its group, which has the same id."""
        ...

    async def clusters(self, project_id: str) -> list[Cluster]:
        """A project's clusters that are not deleted, oldest first."""
        ...

    async def backup(self, backup_id: str, *, lock: bool = False) -> Backup | None:
        """One backup, deleted ones included; with `lock` nobody else may change it, or begin to use it, until the block
        ends. Whoever locks groups as well locks it last."""
        ...

    async def backups(self, *, project_id: str | None = None, instance_id: str | None = None) -> list[Backup]:
        """Backups that are not deleted, oldest first."""
        ...

    async def hosts(self) -> list[Host]: ...

    async def events(
        self, *, instance_id: str | None = None, group_id: str | None = None, limit: int = 100
    ) -> list[Event]:
        """The newest events, newest first."""
        ...

    async def service_clusters(self) -> list[ServiceCluster]:
        """All of them, by id; those of managers that are alone included."""
        ...

    async def service_cluster(self, cluster_id: str, *, lock: bool = False) -> ServiceCluster | None:
        """One of them. Whoever saves it or a service of it has it locked."""
        ...

    async def services(self, *, cluster_id: str | None = None) -> list[Service]:
        """The managers' services, by id."""
        ...

    async def frozen(self, backend: str) -> bool:
        """No instance of the backend may be changed. A transaction that writes and was told no holds off a freeze until
        it ends."""
        ...

    async def add(self, row: ServiceCluster | Service) -> bool:
        """Insert the row, unless there is one of its id; whether it was inserted. Of several at once, one does."""
        ...

    async def beat(self, service_id: str, incarnation: str) -> bool:
        """A sign of life. False when the row is gone, or another run of the service has it."""
        ...

    async def remove_service(self, service_id: str, incarnation: str) -> None:
        """Delete the row, if it is this run's."""
        ...

    async def save(
        self, *rows: Group | Instance | Operation | Host | Configuration | Backup | Cluster | ServiceCluster | Service
    ) -> None:
        """Insert or replace each row by its id, in whatever order makes sense.

        The lease of a group that is there (`epoch`, `holder`, `lease_until`) is left as it is: claim, renew and release
        alone write it, so that saving a group which was read before somebody claimed it gives nothing back. So is that
        of a service cluster, and the heartbeat of a service. Raises Refused, kind `conflict` when two instances that
        are not deleted would have the same address, and `missing`
        when the group of an instance, a cluster, an operation or a backup is not there.
        """
        ...

    async def record(self, *events: Event) -> None: ...

    async def prune(self, before: float) -> int:
        """Delete events, operations that have ended, and services that were last alive, before this store time; how
        many rows that were."""
        ...

    async def switch(self, name: str) -> bool:
        """One of the operator's switches for the whole installation; off until it was set."""
        ...

    async def set_switch(self, name: str, is_on: bool) -> None: ...


class Store(Protocol):
    """The only truth. SQLite or PostgreSQL."""

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that reads and writes. Keep it short: on SQLite nobody else writes meanwhile.

        Raises Unavailable when the database cannot be reached, OutcomeUnknown when the connection broke while it
        committed.
        """
        ...

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that only reads one consistent state; never waits for a writer."""
        ...

    async def claim(self, group_id: str, holder: str, seconds: float) -> Group | None:
        """Take the group's lease if it is free, over, or already the holder's. Returns the group with its raised
        epoch, or None when somebody else holds it or there is no such group.

        Like renew and release it is a transaction of its own: inside a block of `begin` it would wait for that."""
        ...

    async def renew(self, group_id: str, holder: str, epoch: int, seconds: float) -> bool:
        """Hold the lease for `seconds` from now. False when it is lost: taken, given back, or over, even if nobody has
        taken it since."""
        ...

    async def release(self, group_id: str, holder: str, epoch: int) -> None:
        """Give the lease back. Harmless when it is lost already."""
        ...

    async def claim_cluster(self, cluster_id: str, holder: str, seconds: float) -> ServiceCluster | None:
        """As `claim`, for a service cluster: what is raised is `lease_epoch`."""
        ...

    async def renew_cluster(self, cluster_id: str, holder: str, lease_epoch: int, seconds: float) -> bool:
        """As `renew`."""
        ...

    async def release_cluster(self, cluster_id: str, holder: str, lease_epoch: int) -> None:
        """As `release`."""
        ...

    async def close(self) -> None: ...


# --- Backup storage ----------------------------------------------------------------------------------------------

Report = Callable[[int], None]
"""Told, from any thread, how many bytes have been moved so far."""


class BackupStorage(Protocol):
    """Where backups are kept, under names of the form `folder/file`. Only agents go through it.

    All raise Unavailable for what may pass, and Refused for what will not: kind `missing` when there is no such file,
    `forbidden` when the storage does not let us. Cancelled, they stop what they do and leave nothing half made.
    """

    def locate(self, name: str) -> str:
        """The name as a URL, for the record; see `model.backup.holder_of`."""
        ...

    async def put(self, name: str, source: Path, report: Report = ...) -> None:
        """Keep a copy of the file: when this returns, it is there for good, in place of what was there before."""
        ...

    async def get(self, name: str, target: Path, report: Report = ...) -> None:
        """Write what is kept to `target`, which is whole or not there."""
        ...

    async def size(self, name: str) -> int:
        """Bytes of what is kept under the name."""
        ...

    async def remove(self, folder: str) -> None:
        """Nothing is kept in the folder, whatever was: files, and halves of files."""
        ...


# --- Backends ----------------------------------------------------------------------------------------------------


def _silent(_progress: float) -> None:
    """When nobody watches."""


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a driver is made with."""

    backend: Backend
    manager: str
    """Names the manager that it works for."""
    active_backend_id: str
    """The target that is active, `default` included: what the service cluster says, never what this manager remembers.
    """
    frozen: bool
    store: Store
    agents: Agents
    bus: Bus
    progress: Callable[[float], None] = _silent
    """To be told from 0 to 1, as often as one likes, while `failover` goes on."""


class BackendDriver(Protocol):
    """How a backend is moved between sites. Made by calling its class, an entry point of the group `redkeep.backends`,
    with a `BackendContext`; `backends.base.BaseDriver` has all but the two halves.

    A target is a `backend_id` of the settings or `default`; a driver is never asked for another one. Each method may be
    called again, by another manager as well, after whoever called it first has died in the middle: it then finds what
    is done already. It may raise Refused as long as it has changed nothing at all: everything stays as it was. What
    else it raises makes the failover fail.
    """

    SUPPORTS_ACTIVE_ACTIVE: bool
    """Any number of managers may use it on one backend at once."""

    async def failover(self, volumes: Sequence[Volume], secondary_id: str, *, forced: bool) -> FailoverResult:
        """Move the storage: runs once per failover. `forced`: writes may be lost where the old site cannot be asked;
        else it is refused rather than lose one."""
        ...

    async def failover_completed(self, active_backend_id: str) -> None:
        """Use that site from now on: runs in every manager, at least once per failover, after the storage was moved."""
        ...

    async def failover_host(self, volumes: Sequence[Volume], secondary_id: str, *, forced: bool) -> FailoverResult:
        """Both halves, for a manager that is in no service cluster."""
        ...

    async def freeze_backend(self) -> None:
        """Nothing is to be changed any more. Told to one manager, and to each that starts while it is so."""
        ...

    async def thaw_backend(self) -> None:
        """It may again."""
        ...

    async def close(self) -> None: ...


__all__ = [
    "Agents",
    "BackendContext",
    "BackendDriver",
    "BackupStorage",
    "Body",
    "Bus",
    "Handler",
    "Message",
    "Report",
    "Store",
    "Transaction",
    "WholeGroup",
]

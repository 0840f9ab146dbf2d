"""The agent: serves orders, adopts what runs, reports what it sees, and keeps its primaries to their word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import psutil
from pydantic import ValidationError

from redkeep.agent import diverged, neighbours, sampling
from redkeep.agent import record as records
from redkeep.agent.copies import Copies
from redkeep.agent.directories import clear, directory_bytes
from redkeep.agent.process import end_servers_in
from redkeep.agent.record import Record
from redkeep.agent.server import Server
from redkeep.agent.settings import AgentSettings
from redkeep.errors import NotNow, RedkeepError, Refused, StaleEpoch, Unavailable
from redkeep.model.cluster_orders import ClusterOrder
from redkeep.model.facts import HostReport, Process, ServerFacts
from redkeep.model.orders import (
    AskForSite,
    AwaitReplicas,
    Brief,
    Configure,
    CopyOrder,
    DropCopy,
    EnsureRemoved,
    EnsureRunning,
    ExpectAbsence,
    FenceNeighbour,
    Follow,
    HoldWrites,
    Isolate,
    Order,
    Promote,
    ReleaseWrites,
    RestoreCopy,
    SampleKeys,
    TakeCopy,
    WriteCanary,
    target,
)
from redkeep.model.topology import Address
from redkeep.orders import (
    MANAGERS,
    REPORTS,
    Exit,
    agent_name,
    decode_confirmation,
    decode_order,
    encode_exit,
    encode_facts,
    encode_report,
    encode_wish,
)
from redkeep.ports import BackupStorage, Body, Bus
from redkeep.vault import Vault, new_password

log = logging.getLogger(__name__)

REMINDER_INTERVAL = 5.0
"""Seconds between two publications of an unchanged topology on a primary."""
LOOK_LIMIT = 0.3
"""Seconds that a server gets to answer when somebody asks how it is: less than those who ask have patience."""
SITE_ASK_LIMIT = 1.5
"""Seconds that a manager gets to say whether a site may write, before somebody is opened there."""
FIRST_WORD_LIMIT = 0.4
"""Seconds that an agent which has just started waits for a word before it looks at its primaries' right to write: less
than the margin of whoever waits for that right to run out."""
DISK_INTERVAL = 10.0
"""Seconds between two countings of what each server's files take."""


class Agent:
    """One per host. `run` goes on until it is cancelled; the servers outlive it."""

    def __init__(self, settings: AgentSettings, bus: Bus, vault: Vault, storage: BackupStorage | None = None) -> None:
        self._settings = settings
        self._bus = bus
        self._vault = vault
        self._servers: dict[str, Server] = {}
        self._report_now = asyncio.Event()
        self._sequence = 0
        self._incarnation = new_password()[:8]
        self._disk_used: dict[str, int] = {}
        self._watched: set[str] = set()
        self._copies = Copies(settings, storage)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Adopt, then serve until cancelled."""
        self._settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._copies.clean()
            await self._adopt_all()
            if any(server.record.assignment.elsewhere for server in self._servers.values()):
                await self._once(partial(self._renew_word, FIRST_WORD_LIMIT), "the first word")
            group.create_task(self._bus.serve(agent_name(self._settings.host_id), self._serve))
            group.create_task(self._every(self._settings.heartbeat_interval, self._report))
            group.create_task(self._every(self._settings.heartbeat_interval, self._renew_word))
            group.create_task(self._every(self._settings.watch_interval, self._watch_all))
            group.create_task(self._every(DISK_INTERVAL, self._count_disk))
            group.create_task(self._every(REMINDER_INTERVAL, self._remind_clients))

    async def close(self) -> None:
        """Let go of all servers; they go on."""
        await self._copies.close()
        for server in self._servers.values():
            await server.close()

    # --- orders ---------------------------------------------------------------------------------------------------

    async def _serve(self, body: Body) -> Body:
        try:
            asked = decode_order(body)
        except (ValidationError, KeyError, ValueError) as error:
            raise Refused(f"not an order: {error}") from error
        if isinstance(asked, Address):
            return {"reached": await neighbours.reaches(asked)}
        if isinstance(asked, list):
            return encode_facts(*await asyncio.gather(*(self._look(name) for name in asked)))
        return encode_facts(await self._execute(asked))

    async def _look(self, instance_id: str) -> ServerFacts:
        server = self._servers.get(instance_id)
        if server is None:
            return ServerFacts(instance_id, Process.ABSENT, transfer=self._copies.seen(instance_id))
        return replace(
            await self._glance(server, LOOK_LIMIT),
            disk_used=self._disk_used.get(instance_id, 0),
            transfer=self._copies.seen(instance_id),
        )

    async def _execute(self, order: Order) -> ServerFacts:
        if isinstance(order, EnsureRemoved):
            return await self._remove(order)
        if isinstance(order, CopyOrder):
            return await self._copy(order)
        is_new = target(order).instance_id not in self._servers
        if is_new and isinstance(order, EnsureRunning) and order.with_data:
            await self._copies.require_restored(target(order).instance_id)
        server = self._server_for(order)
        async with server.lock:
            try:
                self._accept(server, order)
                if answer := await self._answer(server, order):
                    return answer
                password = self._vault.unseal(server.record.spec.secrets.admin)
                kept = await diverged.keep(server, order, self._settings.directory, password)
                await self._apply(server, order)
            except (Refused, StaleEpoch):
                if is_new:
                    await self._forget(server)
                raise
            if isinstance(order, FenceNeighbour):
                return await neighbours.fence(order, self._vault.unseal(server.record.spec.secrets.admin))
            if isinstance(order, HoldWrites | Promote | Follow):
                return server.facts  # seen in the trip that executed it
            facts = await server.look()
            return replace(facts, kept=kept) if kept else facts

    async def _answer(self, server: Server, order: Order) -> ServerFacts | None:
        """Of orders that leave its place in a replication group as it is; None for all others."""
        match order:
            case AskForSite():
                await self._ask_for_site(server)
                return server.facts
            case WriteCanary():
                return await server.replication.write_canary()
            case SampleKeys():
                return replace(await server.look(), sample=await sampling.sample(server, order))
        if isinstance(order, ClusterOrder):
            return await server.member.execute(order) or await server.look()
        return None

    async def _copy(self, order: CopyOrder) -> ServerFacts:
        """The lock is held for as long as it takes to begin: no other order waits for a copy."""
        server = self._servers.get(order.instance_id)
        if server is not None and (server.record.spec.group_id == order.group_id or not isinstance(order, DropCopy)):
            async with server.lock:
                self._accept(server, order)
        match order:
            case TakeCopy() if server is None:
                raise Unavailable(f"host {self._settings.host_id} has no server {order.instance_id}")
            case TakeCopy() if server is not None:
                self._copies.take(server, order)
            case RestoreCopy() if server is not None:
                self._copies.restored(order)
            case RestoreCopy():
                self._copies.restore(order)
            case DropCopy():
                await self._copies.drop(order)
        return await self._look(order.instance_id)

    async def _apply(self, server: Server, order: Order) -> None:
        match order:
            case EnsureRunning():
                await server.ensure_running(order.spec, order.assignment, order.restart_token)
            case Configure():
                await server.configure(order.spec)
            case Promote():
                await self._require_site(server, order)
                await server.replication.promote(order.assignment, order.replication_id, order.at_least, order.patience)
            case Follow():
                await server.replication.follow(order.assignment)
            case Isolate():
                await server.replication.isolate()
            case Brief():
                await server.replication.brief(order.assignment)
            case _:
                await self._apply_to_writes(server, order)

    async def _apply_to_writes(self, server: Server, order: Order) -> None:
        """Orders that change no role, and how a primary treats its writers and its replicas."""
        match order:
            case ExpectAbsence():
                await server.replication.expect_absence(order.patience)
            case HoldWrites():
                await server.replication.hold_writes(order.patience)
            case ReleaseWrites():
                await server.replication.release_writes()
            case AwaitReplicas():
                await server.replication.await_replicas(order.replicas, order.patience)

    async def _remove(self, order: EnsureRemoved) -> ServerFacts:
        server = self._servers.get(order.instance_id)
        if server is not None:
            async with server.lock:
                self._accept(server, order)
                await self._forget(server)
        else:
            await self._copies.stop(order.instance_id)
            await clear(self._settings.directory / order.instance_id)
        return ServerFacts(order.instance_id, Process.ABSENT)

    async def _forget(self, server: Server) -> None:
        await self._copies.stop(server.id)
        await server.remove()
        self._servers.pop(server.id, None)

    def _server_for(self, order: Order) -> Server:
        name = target(order).instance_id
        if name not in self._servers:
            if not isinstance(order, EnsureRunning):
                raise Unavailable(f"host {self._settings.host_id} has no server {name}")
            record = Record(spec=order.spec, assignment=order.assignment, epoch=order.assignment.epoch)
            self._servers[name] = self._server(record)
        return self._servers[name]

    def _server(self, record: Record) -> Server:
        return Server(self._settings, self._vault, record, self._on_exit)

    def _accept(self, server: Server, order: Order) -> None:
        """One epoch for all servers of a group on this host: refuse what is older than any of them has seen."""
        said = target(order)
        server.refuse_strangers(said.group_id, may_move=isinstance(order, EnsureRunning))
        ours = (one.record.epoch for one in self._servers.values() if one.record.spec.group_id == said.group_id)
        seen = max(ours, default=0)
        if said.epoch < seen:
            message = f"epoch {said.epoch} is over for group {said.group_id}: {seen} has been accepted"
            raise StaleEpoch(message, seen=seen)
        if server.record.spec.group_id == said.group_id:
            server.accept_epoch(said.epoch)

    # --- what goes on by itself -----------------------------------------------------------------------------------

    async def _adopt_all(self) -> None:
        for directory in sorted(self._settings.directory.iterdir()):
            record = records.load(directory)
            server = self._server(record) if record else None
            if record and server:
                self._servers[record.spec.instance_id] = server
            if server and server.adopt():
                await self._verify(server)
            elif count := await end_servers_in(directory):
                log.warning("ended %d of redis-server in %s: not the one that is on record there", count, directory)
        log.info("adopted %d of %d servers", sum(one.running for one in self._servers.values()), len(self._servers))

    async def _verify(self, server: Server) -> None:
        """No word is granted: while we were away another may have taken its place. Its replicas may carry it."""
        try:
            await server.verify_identity()
        except RedkeepError as error:
            log.warning("%s: %s", server.id, error)

    async def _report(self) -> None:
        servers = tuple(self._servers.values())
        facts = await asyncio.gather(*(self._glance(server, self._settings.heartbeat_interval) for server in servers))
        self._sequence += 1
        await self._bus.publish(REPORTS, encode_report(self._describe(facts)))

    async def _glance(self, server: Server, limit: float) -> ServerFacts:
        """A fresh look, or that it did not answer in time: whoever asks about the others is not kept waiting."""
        try:
            async with asyncio.timeout(limit):
                return await server.look()
        except TimeoutError:
            known = server.facts
            process = known.process if known.process is Process.LOADING else Process.HUNG
            return replace(known, process=process, detail=f"no answer within {limit:g} s")

    async def _renew_word(self, limit: float | None = None) -> None:
        """Ask any manager to confirm our primaries."""
        primaries = tuple(one.id for one in self._servers.values() if one.is_primary_by_order and one.running)
        await self._ask_for_word(primaries, limit or self._settings.word_seconds / 2)

    async def _ask_for_word(self, names: tuple[str, ...], limit: float) -> None:
        """What a manager answers counts from before we asked."""
        asked_at = time.monotonic()
        wish = encode_wish(replace(self._describe(()), wants_confirmed=names))
        said = decode_confirmation(await self._bus.request(MANAGERS, wish, timeout=limit))
        for name in said.confirmed:
            if server := self._servers.get(name):
                server.replication.confirm(asked_at + said.lease_seconds, asked_at + said.site_seconds)
        for name in said.denied:
            if server := self._servers.get(name):
                server.replication.deny()

    async def _require_site(self, server: Server, order: Promote) -> None:
        """Before one that has replicas elsewhere is opened, a manager must say that its site may write: an order may be
        old, and whoever gave it cut off by now. Raises NotNow."""
        if order.assignment.elsewhere and time.monotonic() + SITE_ASK_LIMIT >= server.replication.site_until:
            await self._ask_for_site(server)

    async def _ask_for_site(self, server: Server) -> None:
        try:
            await self._ask_for_word((server.id,), SITE_ASK_LIMIT)
        except RedkeepError as error:
            raise NotNow(f"{server.id} is not opened: no manager says that its site may write ({error})") from error
        if time.monotonic() >= server.replication.site_until:
            raise NotNow(f"{server.id} is not opened: site {self._settings.site} may not write")

    async def _watch_all(self) -> None:
        """Each on its own: one that hangs keeps no other waiting, least of all for its fence."""
        for server in tuple(self._servers.values()):
            if server.id not in self._watched and self._group is not None:
                self._watched.add(server.id)
                self._group.create_task(self._once(partial(self._watch, server), f"the watch of {server.id}"))

    async def _watch(self, server: Server) -> None:
        try:
            await server.watch_pulse()
            await server.replication.keep_word()
            await server.replication.keep_guard()
            await server.replication.stop_waiting()
            await server.replication.answer_held()
            if not server.running and not server.lock.locked() and time.monotonic() >= server.next_start:
                async with server.lock:
                    await server.come_back()
        except RedkeepError as error:
            log.warning("%s: %s", server.id, error)
        finally:
            self._watched.discard(server.id)

    async def _remind_clients(self) -> None:
        for server in tuple(self._servers.values()):
            with contextlib.suppress(RedkeepError):
                await server.replication.remind_clients()

    async def _count_disk(self) -> None:
        for server in tuple(self._servers.values()):
            self._disk_used[server.id] = await asyncio.to_thread(directory_bytes, server.directory)
            await server.rotate_log()

    def _on_exit(self, server: Server) -> None:
        if self._group is None or server.facts.process is not Process.EXITED:
            return
        log.warning("%s has ended: %s", server.id, server.facts.detail)
        telling = self._tell_exit(server.facts)
        try:
            self._group.create_task(telling)
        except RuntimeError:  # this agent is being stopped: the first heartbeat of the next one says it
            telling.close()

    async def _tell_exit(self, facts: ServerFacts) -> None:
        """A hint that saves time; the next heartbeat says the same."""
        with contextlib.suppress(RedkeepError):
            await self._bus.publish(REPORTS, encode_exit(Exit(self._settings.host_id, facts)))

    def _describe(self, facts: tuple[ServerFacts, ...] | list[ServerFacts]) -> HostReport:
        disk = psutil.disk_usage(str(self._settings.directory))
        return HostReport(
            host_id=self._settings.host_id,
            address=self._settings.address,
            port_low=self._settings.port_low,
            port_high=self._settings.port_high,
            versions=tuple(self._settings.programs),
            memory_bytes=psutil.virtual_memory().total,
            disk_bytes=disk.total,
            disk_free_bytes=disk.free,
            servers=tuple(replace(one, disk_used=self._disk_used.get(one.instance_id, 0)) for one in facts),
            sequence=self._sequence,
            incarnation=self._incarnation,
            zone=self._settings.zone,
            site=self._settings.site,
        )

    async def _every(self, interval: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            started = time.monotonic()
            await self._once(act, act.__name__)
            await asyncio.sleep(max(0.0, started + interval - time.monotonic()))

    async def _once(self, act: Callable[[], Awaitable[None]], name: str) -> None:
        """The service's supervisor: one failure of a periodic act does not end it."""
        try:
            await act()
        except RedkeepError as error:
            log.debug("%s: %s", name, error)
        except Exception:
            log.exception("%s failed; it is tried again", name)

"""One redis-server and all that is done to it. Orders to one server run one after the other; looks do not wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from redkeep.agent import keepsake
from redkeep.agent import record as records
from redkeep.agent.clustering import ClusterMember
from redkeep.agent.directories import clear, require_free_port
from redkeep.agent.process import (
    Birth,
    Gone,
    Watch,
    birth_of,
    is_stopped,
    limit_address_space,
    spawn,
    works_in,
)
from redkeep.agent.record import Record
from redkeep.agent.replication import Replication
from redkeep.agent.settings import AgentSettings
from redkeep.decide.liveness import Comeback, Pulse, comeback, pulse, restart_pause
from redkeep.errors import NotNow, RedkeepError, Refused, StaleEpoch, Unavailable
from redkeep.model.facts import Assignment, Process, ServerFacts, ServerSpec
from redkeep.model.topology import Role
from redkeep.redis import conf, info
from redkeep.redis.admin import Admin
from redkeep.vault import Vault, digest

log = logging.getLogger(__name__)

START_LIMIT = 15.0
"""Seconds within which a new process must answer, be it that it is loading."""
STOP_LIMIT = 60.0
"""Seconds that an orderly stop may take before the process is killed: it saves its data set."""

OnExit = Callable[["Server"], None]


class Server:
    """A server of this host: its record, its process, its connection, its fence."""

    def __init__(self, settings: AgentSettings, vault: Vault, record: Record, on_exit: OnExit) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.facts = ServerFacts(record.spec.instance_id, Process.ABSENT)
        self.directory = settings.directory / record.spec.instance_id
        self.exits_in_a_row = 0
        self.settings = settings
        self.replication = Replication(self)
        self.member = ClusterMember(self)
        self._vault = vault
        self._on_exit = on_exit
        self._watch: Watch | None = None
        self._admin: Admin | None = None
        self._remembered = False
        self._expected_to_exit = False
        self._answered = time.monotonic()
        self._started = 0.0
        self._detail = ""

    # --- identity -------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self.record.spec.instance_id

    @property
    def running(self) -> bool:
        return self._watch is not None

    @property
    def is_primary_by_order(self) -> bool:
        """Never so in a cluster: there the members agree on it, and fence a minority by themselves."""
        return self.record.assignment.role is Role.PRIMARY and not self.record.spec.cluster

    def unseal(self, secret: str) -> str:
        return self._vault.unseal(secret)

    @property
    def admin(self) -> Admin:
        """The way to the server for what is no order. Raises Unavailable when it does not run."""
        self.require_process()
        return self.connection

    # --- looking --------------------------------------------------------------------------------------------------

    async def look(self, *, briefly: bool = False) -> ServerFacts:
        """Ask the server; never raises. `briefly` asks only about replication: half the time, for hot paths."""
        if not self.running:
            gone = Process.LOADING if self._expected_to_exit else Process.EXITED
            self.facts = replace(self.facts, process=gone, pid=None, detail=self._detail, epoch=self.record.epoch)
            return self.facts
        try:
            said = await self.connection.info(*(("replication",) if briefly else ()))
            if self.record.spec.cluster and not briefly and not info.loading(said):
                await self.member.look()
        except NotNow:
            self.facts = self._facts_without_answer(Process.LOADING, "loading its data")
        except RedkeepError as error:
            process = Process.HUNG if self.silent_for > self.settings.patience.stopped else self.facts.process
            self.facts = self._facts_without_answer(process, str(error))
        else:
            self.see(said)
        return self.facts

    def see(self, said: Mapping[str, Any]) -> None:
        self._answered = time.monotonic()
        self.facts = self._facts_from(said)

    @property
    def silent_for(self) -> float:
        """Seconds since it last answered anything."""
        return time.monotonic() - self._answered

    def _facts_without_answer(self, process: Process, detail: str) -> ServerFacts:
        return replace(self.facts, process=process, epoch=self.record.epoch, detail=detail, pid=self._pid)

    def _facts_from(self, said: Mapping[str, Any]) -> ServerFacts:
        upstream = info.upstream(said)
        self._remember_sync(bool(upstream and upstream.link_up))
        brief = "run_id" not in said
        if not brief and upstream is None and (self.is_primary_by_order or self.record.spec.cluster):
            self.remember(replace(self.record, had_keys=info.keys(said) > 0))
        was_loading = self.facts.process is Process.LOADING and upstream is not None
        loading = was_loading if brief else info.loading(said)
        if not loading and self.record.came_up_with != self.record.started_with:
            self.remember(replace(self.record, came_up_with=self.record.started_with, on_trial=False))
        return replace(
            self.facts,
            process=Process.LOADING if loading else Process.RUNNING,
            pid=self._pid,
            role=info.role(said),
            fenced=self.replication.fenced or self.record.held,
            guarded=self.replication.guarded and not self.replication.fenced,
            epoch=self.record.epoch,
            replication_id=str(said["master_replid"]),
            offset=info.offset(said),
            former_id=str(said["master_replid2"]),
            former_until=int(said["second_repl_offset"]) - 1,
            synced_once=self.record.synced_once,
            upstream=upstream,
            followers=info.followers(said),
            detail="loading its data" if loading else "",
            **({} if brief else _figures(said)),
        )

    def _remember_sync(self, link_up: bool) -> None:
        if link_up and not self.record.synced_once:
            keepsake.forget(self.directory)
            self.remember(replace(self.record, synced_once=True))

    @property
    def _pid(self) -> int | None:
        return self._watch.pid if self._watch else None

    @property
    def connection(self) -> Admin:
        if self._admin is None:
            self._admin = Admin(self.record.spec.address, self._vault.unseal(self.record.spec.secrets.admin))
        return self._admin

    # --- orders ---------------------------------------------------------------------------------------------------

    async def ensure_running(self, spec: ServerSpec, assignment: Assignment, restart_token: str) -> None:
        """See `EnsureRunning`."""
        self._require_program(spec)
        asked = bool(restart_token) and restart_token != self.record.restart_token
        anew = asked or (spec.version, spec.address) != (self.record.spec.version, self.record.spec.address)
        if anew and self.running:
            await self._stop()
        if spec.version != self.record.spec.version:
            await asyncio.to_thread(keepsake.change_version, self.directory, self.record.spec.version, spec.version)
        if spec.secrets != self.record.spec.secrets:
            await self._rekey(spec)
        moved = replace(self._moved_to(spec, assignment), assignment=assignment)
        token = restart_token or self.record.restart_token
        self.remember(replace(moved, restart_token=token, on_trial=anew or self.record.on_trial))
        if not self.running:
            try:
                await self._start_again()
            finally:
                self._expected_to_exit = False
        else:
            if assignment.role is Role.REPLICA and not spec.cluster:
                await self.replication.apply_role()
            await self._apply_spec()

    async def configure(self, spec: ServerSpec) -> None:
        """See `Configure`. What the server refuses is taken back, here and there."""
        before = self.record.spec
        self.remember(replace(self.record, spec=spec))
        if not self.running:
            return
        try:
            await self._apply_spec()
        except Refused:
            self.remember(replace(self.record, spec=before))
            await self._apply_spec()
            raise

    async def remove(self) -> None:
        """End the process without saving; delete the files."""
        self._expected_to_exit = True
        if self._watch:
            self._watch.signal(signal.SIGKILL)
            await self._ended(STOP_LIMIT)
        await self.close()
        await clear(self.directory)

    def accept_epoch(self, epoch: int) -> None:
        """Remember it before acting on it."""
        self.remember(replace(self.record, epoch=max(epoch, self.record.epoch)))

    def refuse_strangers(self, group_id: str, *, may_move: bool) -> None:
        """Only its group gives it orders. Raises StaleEpoch for one that it has left, Refused for any other."""
        if group_id in self.record.former_groups:
            raise StaleEpoch(f"{self.id} has left group {group_id}")
        if group_id != self.record.spec.group_id and not may_move:
            raise Refused(f"{self.id} belongs to group {self.record.spec.group_id}, not {group_id}", kind="conflict")

    def _moved_to(self, spec: ServerSpec, assignment: Assignment) -> Record:
        """The record with another specification; if that is of another group, the old one is left for good."""
        if spec.group_id == self.record.spec.group_id:
            return replace(self.record, spec=spec)
        former = (*self.record.former_groups, self.record.spec.group_id)
        return replace(self.record, spec=spec, former_groups=former, epoch=assignment.epoch, held=False)

    async def _rekey(self, spec: ServerSpec) -> None:
        """Let the new administrator's password in beside the old one; `_apply_spec` ends the old one.

        Dying in between leaves a server that both passwords open, and the record knows one of them.
        """
        if self.running:
            admin, replication = (
                self._vault.unseal(secret) for secret in (spec.secrets.admin, spec.secrets.replication)
            )
            await self.connection.run(
                ("ACL", "SETUSER", conf.ADMIN, f"#{digest(admin)}"), ("CONFIG", "SET", "masterauth", replication)
            )
        await self._disconnect()

    # --- process --------------------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Take over the process of the record if it still is the same one; False when it is gone."""
        birth = self.record.birth
        if birth is None:
            return False
        try:
            if birth_of(birth.pid) != birth or not works_in(birth.pid, self.directory):
                return False
            self._watch = Watch(birth.pid, self._exited)
        except Gone:
            return False
        self._answered = time.monotonic()
        self.replication.adopted()
        return True

    async def verify_identity(self) -> None:
        """After adoption: the server on our port must be the one we started. Raises Refused when it is another.

        Whether it was fenced is read from it: the agent that did it may have died right after.
        """
        said = await self.connection.info("server")
        await self.replication.verify_fence()
        if self.record.run_id and str(said["run_id"]) != self.record.run_id:
            raise Refused(f"another server answers on {self.record.spec.address}", kind="conflict")

    async def come_back(self) -> None:
        """Start again after an exit, if that is the agent's to decide."""
        assignment = self.record.assignment
        if self.running or self._expected_to_exit:
            return None
        if self.record.spec.cluster:
            return await self._start_again()
        if comeback(assignment.role, assignment.group_size) is Comeback.AWAIT_WORD:
            return None
        try:
            await self._start_again()
        except Refused:  # it did not even start: paced as if it had exited
            self._started = time.monotonic()
            self.exits_in_a_row += 1
            raise
        if assignment.role is Role.PRIMARY:
            await self.until_loaded()
            await self.replication.promote(replace(assignment, epoch=self.record.epoch), "", -1, 0)
        return None

    async def until_loaded(self) -> None:
        """Wait for as long as it loads. Raises Unavailable when it ends while doing so."""
        while (await self.look()).process is Process.LOADING and self.running:
            await asyncio.sleep(0.05)
        if not self.running:
            raise Unavailable(f"{self.id} ended while it loaded its data: {self._detail}")

    @property
    def next_start(self) -> float:
        """Monotonic time before which it should not be started again by the agent alone."""
        soonest = self._started + restart_pause(self.exits_in_a_row)
        return max(soonest, self.member.next_start) if self.record.spec.cluster else soonest

    async def watch_pulse(self) -> None:
        """Ping; kill a hung server that has replicas, so that it cannot wake up and accept writes unnoticed."""
        if self._watch is None:
            return
        stopped = is_stopped(self._watch.pid)
        if not stopped:
            with contextlib.suppress(RedkeepError):
                await self._ping()
        verdict = pulse(
            silent_for=self.silent_for,
            stopped=stopped,
            group_size=self.member.shard_size if self.record.spec.cluster else self.record.assignment.group_size,
            patience=self.settings.patience,
        )
        if verdict is not Pulse.FINE:
            self.facts = self._facts_without_answer(Process.HUNG, f"no answer for {self.silent_for:.1f} s")
        if verdict is Pulse.KILL and self._watch is not None:
            log.warning("killing %s: %s", self.id, self.facts.detail)
            self._watch.signal(signal.SIGKILL)

    async def _ping(self) -> None:
        with contextlib.suppress(NotNow):
            await self.connection.ping()
        self._answered = time.monotonic()

    async def rotate_log(self) -> None:
        """Keep one old log. redis-server opens its log anew for every line, so renaming is enough."""
        path = self.directory / "redis.log"
        if path.exists() and path.stat().st_size > self.settings.log_bytes:
            path.replace(path.with_suffix(".log.1"))

    async def close(self) -> None:
        """Let go of the process and the connection; the server goes on."""
        if self._watch:
            self._watch.close()
            self._watch = None
        await self._disconnect()

    # --- how ------------------------------------------------------------------------------------------------------

    def remember(self, record: Record) -> None:
        if record != self.record or not self._remembered:
            self.record = record
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            records.save(self.directory, record)
            self._remembered = True

    def _require_program(self, spec: ServerSpec) -> Path:
        program = self.settings.programs.get(spec.version)
        if program is None:
            raise Refused(f"host {self.settings.host_id} has no redis-server {spec.version}", kind="missing")
        return program

    def require_process(self) -> None:
        if not self.running:
            raise Unavailable(f"{self.id} is not running: {self._detail or 'it was never started'}")

    def _fresh_start(self) -> bool:
        """It has been nothing but a follower of nobody since it was started."""
        upstream = self.facts.upstream
        return upstream is not None and upstream.primary == conf.NOBODY

    async def _apply_spec(self) -> None:
        spec = self.record.spec
        if self._watch:
            limit_address_space(self._watch.pid, spec.process_limit_bytes)
        wanted = conf.users(spec.users, self._masters(), cluster=spec.cluster)
        present = {str(name) for name in (await self.connection.run(("ACL", "USERS")))[0]}
        await self.connection.run(
            ("CONFIG", "SET", "maxmemory", spec.maxmemory_bytes),
            *(("ACL", "SETUSER", name, *rules.split()) for name, rules in wanted.items()),
            *(("ACL", "DELUSER", name) for name in sorted(present - set(wanted))),
            *(("CONFIG", "SET", *pair) for pair in conf.live_parameters(spec, self.settings.tuning).items()),
        )
        self.write_conf()

    async def _start_again(self) -> None:
        """With its parameters or, when it ends at its start and last came up with others, with those.

        Unless it is on trial: then somebody waits to hear that the parameters do not work. They stand in redis.conf
        again with the next change, and wait for a restart that is asked for.
        """
        good, spec = self.record.came_up_with, self.record.spec
        try:
            await self.start()
        except Unavailable as error:
            if self.record.on_trial or good is None or good == spec.parameters:
                raise
            log.warning("%s; it is started with the parameters that it last came up with", error)
            await self.start(replace(spec, parameters=good))

    async def start(self, spec: ServerSpec | None = None) -> None:
        spec = spec or self.record.spec
        program = self._require_program(spec)
        require_free_port(spec)
        self.write_conf(spec)
        if spec.cluster:
            self.member.drop_claims_without_data()
        await self._disconnect()  # from the process before: the next order must not be the one to find out
        self._expected_to_exit = False
        password = self._vault.unseal(spec.secrets.replication)
        pid = spawn(program, self.directory / "redis.conf", conf.secret_directives(password), spec.process_limit_bytes)
        self._started = self._answered = time.monotonic()
        self._detail = ""
        self.replication.started()
        try:
            self._watch = Watch(pid, self._exited)
            birth: Birth | None = birth_of(pid)
        except Gone:
            birth = None
        fresh = replace(self.record, birth=birth, run_id="", synced_once=False, held=False)
        self.remember(replace(fresh, started_with=spec.parameters))
        self.facts = ServerFacts(self.id, Process.LOADING)
        await self._until_answering()

    async def _until_answering(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while self.running:
            facts = await self.look()
            if facts.run_id:
                self.remember(replace(self.record, run_id=facts.run_id))
                return
            if time.monotonic() > deadline:
                raise NotNow(
                    f"{self.id} does not answer {START_LIMIT:g} s after its start; see {self.directory}/redis.log"
                )
            await asyncio.sleep(0.01)
        raise Unavailable(f"{self.id} ended at its start ({self._detail}): {self._last_words()}")

    async def _stop(self) -> None:
        """In order. Redis refuses that while it writes its first append-only file, so it is asked until it does."""
        self._expected_to_exit = True
        deadline = time.monotonic() + STOP_LIMIT
        while await self._refuses_to_stop() and not await self._ended(0.1):
            if time.monotonic() > deadline:
                break
        if not await self._ended(max(0.0, deadline - time.monotonic())) and self._watch:
            self._watch.signal(signal.SIGKILL)
            await self._ended(STOP_LIMIT)
        await self._disconnect()

    async def _refuses_to_stop(self) -> bool:
        try:
            await self.connection.run(("SHUTDOWN",))
        except (Refused, NotNow):
            return True
        except RedkeepError:
            return False  # it closes the connection, or is busy saving
        return False

    async def _ended(self, limit: float) -> bool:
        if self._watch is None:
            return True
        try:
            async with asyncio.timeout(limit):
                await self._watch.exited.wait()
        except TimeoutError:
            return False
        return True

    def _exited(self, how: str) -> None:
        self._watch = None
        lasted = time.monotonic() - self._started
        self.exits_in_a_row = self.exits_in_a_row + 1 if lasted < 30 else 1
        self._detail = how
        self.member.ended_at = time.monotonic()
        gone = Process.LOADING if self._expected_to_exit else Process.EXITED
        self.facts = replace(self.facts, process=gone, pid=None, detail=how)
        self._on_exit(self)

    async def _disconnect(self) -> None:
        if self._admin is not None:
            admin, self._admin = self._admin, None
            with contextlib.suppress(OSError):
                await admin.close()

    def _masters(self) -> conf.Masters:
        secrets = self.record.spec.secrets
        return conf.Masters(digest(self._vault.unseal(secrets.admin)), digest(self._vault.unseal(secrets.replication)))

    def write_conf(self, spec: ServerSpec | None = None) -> None:
        follow = self.record.assignment.primary or conf.NOBODY
        text = conf.render(
            spec or self.record.spec, self.directory, follow, tuning=self.settings.tuning, masters=self._masters()
        )
        records.write(self.directory / "redis.conf", text.encode())

    def _last_words(self) -> str:
        try:
            return self.directory.joinpath("redis.log").read_text(errors="replace")[-300:].strip() or "it left no log"
        except OSError:
            return "it left no log"


def _figures(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run_id": str(said["run_id"]),
        "keys": info.keys(said),
        "memory_used": int(said["used_memory"]),
        "memory_max": int(said["maxmemory"]),
        "redis_version": str(said["redis_version"]),
        "trouble": info.trouble(said),
    }

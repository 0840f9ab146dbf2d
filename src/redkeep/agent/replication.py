"""The place of one server in its replication group: its role by order, and the fence that keeps a primary to its word.

Orders to one server run one after the other (`Server.lock`); what goes on by itself takes its turn where it changes
anything. A member of a Redis Cluster is nobody's primary by order: of all this only holding its writes concerns it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from redkeep.agent import keepsake
from redkeep.decide.durability import min_replicas
from redkeep.decide.fencing import (
    FENCE_AHEAD,
    GUARD_LAG,
    GUARD_PAUSE,
    guard,
    guard_level,
    majority,
    may_write,
)
from redkeep.decide.sites import has_its_site
from redkeep.errors import NotNow, RedkeepError, Refused
from redkeep.model.facts import Assignment, ServerFacts
from redkeep.model.topology import Role
from redkeep.redis import admin as words
from redkeep.redis import conf, info

if TYPE_CHECKING:
    from redkeep.agent.server import Server

log = logging.getLogger(__name__)

ACKNOWLEDGE_LIMIT = 0.2
"""Seconds that replicas get to acknowledge, when they alone carry a primary's right to write."""


CANARY_CHANNEL = "__redkeep:canary"
"""Nobody listens there: what counts is that the message is in the stream."""


class Replication:
    """Of one server: made with it, and never without."""

    def __init__(self, server: Server) -> None:
        self.word_until = 0.0
        """Loop time at which the last confirmation of its right to write ends."""
        self.site_until = 0.0
        """The same of its site's right, which it needs while it has replicas elsewhere. An order does not give it."""
        self.fenced = False
        """Refuses writes because its agent lost touch with the managers."""
        self.guarded = False
        """The server refuses writes by itself when its replicas do not follow."""
        self._guard_from = 0.0
        """Monotonic time before which it is not guarded again."""
        self._unsure = False
        """Its word has run out since it was last seen whether it is fenced."""
        self._server = server
        self._awaits_until: float | None = None
        """Loop time until which it awaits replicas in a hurry; None when it is configured as ever."""
        self._hold_until = 0.0
        """Monotonic time at which writers have waited long enough for a hold; passed, when we find one at our start."""

    # --- what the process goes through ----------------------------------------------------------------------------

    def started(self) -> None:
        """A new process: it refuses writes by itself, and waits for nobody."""
        self._awaits_until = None
        self.fenced = self.guarded = False

    def adopted(self) -> None:
        """A process that an agent before us started: that one may have made it wait."""
        self._awaits_until = time.monotonic()

    async def verify_fence(self) -> None:
        """Whether it is fenced is read from it: the agent that did it may have died right after."""
        wanted, lag = await self._server.connection.run(words.MIN_REPLICAS, words.MAX_LAG)
        self.fenced = words.is_fenced(wanted) and not self._server.record.held
        self.guarded = words.is_guarded(lag)

    # --- orders ---------------------------------------------------------------------------------------------------

    async def promote(self, assignment: Assignment, replication_id: str, at_least: int, patience: float) -> None:
        """See `Promote`."""
        self._server.require_process()
        if at_least >= 0:
            await self.until_applied(replication_id, at_least, patience)
        self._refuse_if_emptied(assignment)
        keepsake.forget(self._server.directory)
        self._server.remember(replace(self._server.record, assignment=assignment, held=False, synced_once=False))
        self.word_until = time.monotonic() + self._server.settings.word_seconds
        self._lower_guard(GUARD_PAUSE)
        role = () if self._server.facts.role is Role.PRIMARY else (words.become_primary(),)
        news = words.tell_clients(_news(assignment))
        said = await self._server.connection.run(*role, *self.open_writes(), news, words.REPLICATION)
        self.fenced = False
        self._server.see(said[-1])

    async def follow(self, assignment: Assignment) -> None:
        """See `Follow`."""
        self._server.remember(replace(self._server.record, assignment=assignment, held=False))
        if self._server.running:
            await self.apply_role()
        else:
            await self._server.start()

    async def isolate(self) -> None:
        """See `Isolate`."""
        self._server.require_process()
        if self._server.is_primary_by_order:
            raise Refused(f"{self._server.id} is a primary: it follows nobody as it is", kind="conflict")
        await self._server.connection.run(words.become_replica(conf.NOBODY))

    async def brief(self, assignment: Assignment) -> None:
        """See `Brief`."""
        if assignment.role is not self._server.record.assignment.role:
            raise Refused(
                f"{self._server.id} is not {assignment.role}: a briefing does not change roles", kind="conflict"
            )
        self._server.remember(replace(self._server.record, assignment=assignment))
        if self._server.running and not self.fenced and not self._server.record.held:
            opening = self.open_writes() if self._server.is_primary_by_order else ()
            await self._server.connection.run(*opening, words.tell_clients(_news(assignment)))

    async def hold_writes(self, patience: float) -> None:
        """See `HoldWrites`. The final offset is read in the same trip, since writers wait from here on."""
        self._server.require_process()
        self._server.remember(replace(self._server.record, held=True))
        self._hold_until = time.monotonic() + patience
        said = await self._server.connection.run(*words.hold_writes(), words.REPLICATION)
        self._server.see(said[-1])

    async def release_writes(self) -> None:
        """See `ReleaseWrites`."""
        self._server.require_process()
        self._server.remember(replace(self._server.record, held=False))
        may = self._has_its_site(time.monotonic())  # the order may be old: it does not open what is fenced
        version = self._server.record.spec.version
        await self._server.connection.run(*(self.open_writes() if may else words.refuse_held(version)))
        self.fenced = not may

    async def await_replicas(self, count: int, patience: float) -> None:
        """See `AwaitReplicas`."""
        self._server.require_process()
        if not count:
            return await self._await_nobody()
        self._awaits_until = time.monotonic() + patience
        await self._server.connection.run(*words.await_replicas(count, self._server.record.spec.version))
        return None

    async def write_canary(self) -> ServerFacts:
        """See `WriteCanary`."""
        self._server.require_process()
        self.require_open()
        said = await self._server.connection.run(("PUBLISH", CANARY_CHANNEL, "."), words.REPLICATION)
        self._server.see(said[-1])
        return self._server.facts

    async def expect_absence(self, patience: float) -> None:
        """See `ExpectAbsence`."""
        self._server.require_process()
        self._lower_guard(patience)
        if not self.fenced and not self._server.record.held:
            await self._server.connection.run(*self.open_writes())

    def require_open(self) -> None:
        """Raises NotNow while writes are held: what Redis takes for a possible write would wait, and whoever is to end
        that would wait behind it."""
        if self.fenced or self._server.record.held:
            raise NotNow(f"{self._server.id} accepts no writes at the moment")

    # --- what goes on by itself -----------------------------------------------------------------------------------

    async def answer_held(self) -> None:
        """End the patience of a hold that has lasted too long: whoever waits is refused. Nothing opens by it."""
        if (
            not self._server.record.held
            or not self._server.running
            or self._server.lock.locked()
            or time.monotonic() < self._hold_until
        ):
            return
        async with self._server.lock:
            await self._server.connection.run(*words.refuse_held(self._server.record.spec.version))
            self._hold_until = float("inf")

    async def stop_waiting(self) -> None:
        """Synchronise as configured again, once nobody has said for a while that more replicas are on their way."""
        if self._server.running and self._awaits_until is not None and time.monotonic() > self._awaits_until:
            await self._await_nobody()

    async def keep_word(self) -> None:
        """Fence a primary whose word has run out and whose replicas do not carry it; open one that is confirmed."""
        if not self._server.running or not self._server.is_primary_by_order or self._server.record.held:
            return
        now = time.monotonic() + FENCE_AHEAD  # what is done about the end of a word must be done by then
        if now < self.word_until and self._has_its_site(now):
            await self._open_if_fenced()
            return
        if not self.fenced and not (self._has_its_site(now) and await self._carried()):
            await self._server.connection.run(*words.fence(self._server.record.spec.version))
            self.fenced = True
            why = "it and its replicas do not follow" if self._has_its_site(now) else "that its site may write"
            log.warning("%s refuses writes: no manager confirms %s", self._server.id, why)

    async def keep_guard(self) -> None:
        """While it is confirmed: guarded as long as enough replicas follow for that to cost nothing.

        An acknowledgement comes each second and counts for `GUARD_LAG`: of one that is late the guard is lowered before
        the server would refuse. A replica whose connection ends is missed by Redis at once, and here at the next turn.
        """
        server = self._server
        if not server.is_primary_by_order or server.record.held or self.fenced or server.lock.locked():
            return
        now, assignment = time.monotonic(), server.record.assignment
        level = guard_level(assignment.local_size, len(assignment.elsewhere))
        if not server.running or now + FENCE_AHEAD >= self.word_until or not (level or self.guarded):
            return
        facts = await server.look(briefly=True)
        if not facts.alive or facts.role is not Role.PRIMARY:
            return
        members = [one for one in facts.followers if one.address in assignment.topology.replicas]
        timely = sum(one.online and one.lag_seconds < GUARD_LAG for one in members)
        wanted = guard(level=level, acknowledging=timely, strangers=len(facts.followers) - len(members))
        if wanted == self.guarded or (wanted and now < self._guard_from):
            return
        async with server.lock:
            if server.record.assignment == assignment and not server.record.held:
                await self._set_guard(wanted)

    async def _set_guard(self, wanted: bool) -> None:
        self.guarded, before = wanted, self.guarded
        try:
            await self._server.connection.run(*self.open_writes())
        except RedkeepError:
            self.guarded = before  # it is tried again at the next turn
            raise
        if not wanted:
            self._guard_from = time.monotonic() + GUARD_PAUSE

    def _lower_guard(self, patience: float) -> None:
        self.guarded = False
        self._guard_from = time.monotonic() + patience

    async def _open_if_fenced(self) -> None:
        """While its word was over somebody else may have fenced it, or its agent before this one."""
        if self._unsure:
            await self.verify_fence()
            self._unsure = False
        if self.fenced and not self._server.lock.locked():
            async with self._server.lock:
                await self._server.connection.run(*self.open_writes())
                self.fenced = False
            log.warning("%s accepts writes again: its right is confirmed", self._server.id)

    def confirm(self, until: float, site_until: float) -> None:
        """A manager has confirmed that it is primary, and that its site may write; both on the monotonic clock."""
        self._unsure = self._unsure or time.monotonic() >= self.word_until
        self.word_until = max(self.word_until, until)
        self.site_until = max(self.site_until, site_until)

    def deny(self) -> None:
        """A manager says that somebody else is primary, or that its site may not write."""
        self.word_until = self.site_until = 0.0

    def _has_its_site(self, now: float) -> bool:
        elsewhere = len(self._server.record.assignment.elsewhere)
        return has_its_site(now=now, site_until=self.site_until, elsewhere=elsewhere)

    async def remind_clients(self) -> None:
        """Publish the topology anew: clients that have just come know nothing but what they are told.

        Only the primary does: what is published there reaches the subscribers of its replicas as well.
        """
        if self._server.lock.locked() or not self._server.running or not self._server.is_primary_by_order:
            return
        async with self._server.lock:
            if not self.fenced and not self._server.record.held and self._server.record.assignment.group_size > 1:
                await self._server.connection.run(words.tell_clients(_news(self._server.record.assignment)))

    # --- how ------------------------------------------------------------------------------------------------------

    async def apply_role(self) -> None:
        """Make a running server the replica that its record says."""
        assignment = self._server.record.assignment
        self._server.remember(replace(self._server.record, held=False))
        if assignment.primary is None:
            raise Refused(f"{self._server.id} was told to follow nobody")
        self._lower_guard(0.0)
        said = await self._server.connection.run(
            words.become_replica(assignment.primary),  # Redis leaves it alone when it follows that one already
            *self.open_writes(),
            words.tell_clients(_news(assignment)),
            words.REPLICATION,
        )
        self.fenced = False
        self._server.see(said[-1])
        self._server.write_conf()  # not before: writers may be waiting, and a start writes it anew

    def open_writes(self) -> Sequence[words.Command]:
        """As many replicas must acknowledge as the group's promise and its guard ask; a replica refuses in any case."""
        if not self._server.is_primary_by_order:
            return words.open_writes(0)
        durability, assignment = self._server.record.spec.durability, self._server.record.assignment
        local, elsewhere = assignment.local_size, len(assignment.elsewhere)
        promised = min_replicas(durability, local, elsewhere)
        if not self.guarded:
            return words.open_writes(promised)
        return words.open_writes(max(promised, guard_level(local, elsewhere)), GUARD_LAG)

    async def _await_nobody(self) -> None:
        spec, tuning = self._server.record.spec, self._server.settings.tuning
        compression = conf.live_parameters(spec, tuning)["rdbcompression"]
        await self._server.connection.run(*words.await_nobody(tuning.diskless_sync_delay, compression, spec.version))
        self._awaits_until = None

    async def _carried(self) -> bool:
        """Whether a majority of the group at its site follows at this moment: they must acknowledge what is new.

        What INFO says of the last acknowledgement is whole seconds old. So something is put into the stream, WAIT makes
        the replicas answer at once, and those that have it by then count. One that was detached may still follow, but
        is no member; those elsewhere are none of those who carry it, but WAIT counts them.
        """
        assignment = self._server.record.assignment
        wanted, patience = majority(assignment.local_size) - 1, int(ACKNOWLEDGE_LIMIT * 1000)
        if not wanted or self._server.facts.role is Role.REPLICA:
            return True  # as one that has just been started, it refuses by itself
        said = await self._server.connection.run(
            words.tell_clients(_news(assignment)),
            ("INFO", "replication"),
            ("WAIT", wanted + len(assignment.elsewhere), patience),
            ("INFO", "replication"),
        )
        mark, followers = info.offset(said[1]), info.followers(said[3])
        members = set(assignment.topology.replicas) - set(assignment.elsewhere)
        acknowledging = sum(one.online and one.offset >= mark and one.address in members for one in followers)
        return may_write(
            now=time.monotonic(),
            word_until=self.word_until - FENCE_AHEAD,
            group_size=assignment.local_size,
            acknowledging=acknowledging,
        )

    def _refuse_if_emptied(self, assignment: Assignment) -> None:
        """A primary with replicas that has lost its data would wipe theirs as soon as they follow it."""
        if (
            self._server.facts.keys == 0
            and self._server.record.had_keys
            and assignment.group_size > 1
            and self._fresh_start
        ):
            raise Refused(
                f"{self._server.id} came back empty: promote a replica, or delete the replicas", kind="conflict"
            )

    @property
    def _fresh_start(self) -> bool:
        """It has been nothing but a follower of nobody since it was started."""
        upstream = self._server.facts.upstream
        return upstream is not None and upstream.primary == conf.NOBODY

    async def until_applied(self, replication_id: str, at_least: int, patience: float) -> None:
        """Wait until it has applied that offset of the history. Raises NotNow."""
        deadline = time.monotonic() + patience
        while True:
            facts = await self._server.look(briefly=True)
            if facts.role is Role.PRIMARY and self._server.is_primary_by_order:
                return
            if facts.replication_id == replication_id and facts.offset >= at_least:
                return
            if time.monotonic() >= deadline:
                lacking = at_least - facts.offset
                raise NotNow(f"{self._server.id} lacks {lacking} bytes of the primary's history after {patience:g} s")
            await asyncio.sleep(0.0005)


def _news(assignment: Assignment) -> str:
    return json.dumps(assignment.topology.to_news())

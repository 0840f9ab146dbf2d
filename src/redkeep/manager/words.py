"""Words: which of its primaries a host may go on with, as the store has it at the moment; and the row of the host."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

from redkeep.decide.fencing import CONFIRMED_UNSEEN
from redkeep.decide.sites import may_be_primary, may_write_at
from redkeep.model.facts import Confirmation, HostReport
from redkeep.model.instance import Group, Host, Instance
from redkeep.model.operation import Kind, Operation
from redkeep.model.site import Backend
from redkeep.orders import Exit, decode_report, encode_confirmation
from redkeep.ports import Body, Store, Transaction

ONE_BY_ONE = 8
"""Groups that are read each by itself; more are read with all others."""
REPAIR_LIMIT = 60.0
"""Seconds after which a repair is given up, and the group judged anew."""


class Words:
    """Of one manager. `word_seconds`: for how long a word is good, from the moment at which it was asked for."""

    def __init__(self, store: Store, backend: Backend, word_seconds: float) -> None:
        self._store = store
        self._backend = backend
        self._word_seconds = word_seconds
        self._hosts_written: dict[str, tuple[float, Host]] = {}

    async def confirm(self, body: Body) -> Body:
        """An agent wants its primaries confirmed: those, and only those, whom the store knows as rightful."""
        report = decode_report(body)
        if isinstance(report, Exit):
            return encode_confirmation(Confirmation((), (), 0))
        async with self._store.read() as tx:
            wanted = await _wanted(tx, report)
            groups = await _groups_of(tx, wanted)
            misplaced = await self._misplaced(tx, wanted)
        await self._keep_host(report)
        rightful = {group.rightful_primary_id for group in groups} - misplaced
        known = {one.id for one in wanted}
        return encode_confirmation(
            Confirmation(
                confirmed=tuple(sorted(known & rightful)),
                denied=tuple(sorted(known - rightful)),
                lease_seconds=self._word_seconds,
                site_seconds=self._backend.site_seconds,
            )
        )

    async def _misplaced(self, tx: Transaction, instances: list[Instance]) -> set[str]:
        """Those of groups with several sites that are not where the backend may write now."""
        sites = may_write_at(self._backend, await tx.service_clusters()) if self._backend.targets else None
        found = set()
        for one in instances:
            if sites is None or one.site in sites:
                continue
            if not may_be_primary(one, await tx.instances(group_id=one.group_id), sites):
                found.add(one.id)
        return found

    async def _keep_host(self, report: HostReport) -> None:
        """The host's row: written when it says something new, and every few seconds as a sign of life."""
        host = _host_of(report)
        written_at, written = self._hosts_written.get(host.id, (float("-inf"), host))
        news = replace(written, disk_free_bytes=host.disk_free_bytes) != host
        if not news and time.monotonic() - written_at < CONFIRMED_UNSEEN:
            return
        async with self._store.begin() as tx:
            await tx.save(replace(host, seen_at=await tx.now()))
            if news or written_at == float("-inf"):
                await _follow_to_site(tx, host)
        self._hosts_written[host.id] = (time.monotonic(), host)


async def _wanted(tx: Transaction, report: HostReport) -> list[Instance]:
    """What a host wants confirmed, as far as it is the host's. One is asked for while its writers wait."""
    if len(report.wants_confirmed) == 1:
        one = await tx.instance(report.wants_confirmed[0])
        return [one] if one is not None and not one.deleted and one.host_id == report.host_id else []
    names = set(report.wants_confirmed)
    return [one for one in await tx.instances(host_id=report.host_id) if one.id in names] if names else []


async def _groups_of(tx: Transaction, instances: list[Instance]) -> list[Group]:
    """Their groups: one by one, or all that there are in one trip, where that is less."""
    ids = {one.group_id for one in instances}
    if len(ids) > ONE_BY_ONE:
        return [group for group in await tx.groups() if group.id in ids]
    found = [await tx.group(one) for one in ids]
    return [group for group in found if group is not None]


def _host_of(report: HostReport) -> Host:
    return Host(
        id=report.host_id,
        address=report.address,
        port_low=report.port_low,
        port_high=report.port_high,
        versions=report.versions,
        memory_bytes=report.memory_bytes,
        disk_bytes=report.disk_bytes,
        disk_free_bytes=report.disk_free_bytes,
        seen_at=0.0,
        zone=report.zone,
        site=report.site,
    )


async def _follow_to_site(tx: Transaction, host: Host) -> None:
    """What runs on a host is where the host is, also when its operator has given it another site."""
    for group_id in {one.group_id for one in await tx.instances(host_id=host.id) if one.site != host.site}:
        found = await tx.whole_group(group_id, lock=True)
        if found is None:
            continue
        moved = [replace(one, site=host.site) for one in found.instances if one.host_id == host.id]
        again = Operation(  # the primary's agent must know who is elsewhere
            id=str(uuid.uuid4()),
            group_id=group_id,
            kind=Kind.REPAIR,
            created=found.now,
            args={"instances": [one.id for one in found.instances], "reason": f"{host.id} is at site {host.site} now"},
            deadline=found.now + REPAIR_LIMIT,
        )
        await tx.save(*moved, again)

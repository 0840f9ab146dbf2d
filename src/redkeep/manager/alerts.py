"""Writes down what servers complain of, and that they do so no more: on their instance, and in the events.

Several managers hear the same report: the row says what is written already.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from redkeep.decide.alerts import alerted
from redkeep.model.facts import HostReport
from redkeep.model.instance import Event
from redkeep.ports import Store

log = logging.getLogger(__name__)

KIND = "alert"


class Alerts:
    """Of one manager."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._written: dict[str, str] = {}
        """What stands on the row of each instance, as far as this manager knows."""

    def news(self, report: HostReport) -> dict[str, str]:
        """Troubles by instance that are not written down yet."""
        said = {facts.instance_id: facts.trouble for facts in report.servers if facts.alive}
        return {name: trouble for name, trouble in said.items() if self._written.get(name) != trouble}

    async def write(self, news: dict[str, str]) -> None:
        """Raises Unavailable when the store is out of reach; then the next report brings the same."""
        for name, trouble in news.items():
            await self._write(name, trouble)
            self._written[name] = trouble

    async def _write(self, instance_id: str, trouble: str) -> None:
        async with self._store.read() as tx:
            row = await tx.instance(instance_id)
        if row is None or row.deleted or alerted(row, trouble, 0.0) == row.fault:
            return
        async with self._store.begin() as tx:
            found = await tx.whole_group(row.group_id, lock=True)
            instance = next((one for one in found.instances if one.id == instance_id), None) if found else None
            if found is None or instance is None:
                return
            fault = alerted(instance, trouble, found.now)
            if fault != instance.fault:
                text = f"{instance.name}: {trouble}" if trouble else f"{instance.name} is well again"
                await tx.save(replace(instance, fault=fault, updated=found.now))
                await tx.record(
                    Event(found.now, KIND, text, instance.project_id, row.group_id, instance_id, actor=self._name)
                )
                log.warning("%s", text)

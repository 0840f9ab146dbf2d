"""What would become of each group if its backend failed over to a site now: the rehearsal, in which nobody moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redkeep.decide.promotion import lag_bytes, unfitness
from redkeep.decide.topology import members
from redkeep.model.facts import ServerFacts
from redkeep.model.instance import Group, Instance


@dataclass(frozen=True, slots=True)
class Prospect:
    """Of one group, named by its primary."""

    instance: Instance
    survives: bool
    """Somebody at the site could take its place, as far as it was seen."""
    in_order: bool
    """And losing nothing: both are there, and nothing keeps them apart."""
    lacking_bytes: int | None
    """What would be lost at this moment if it were forced; None when that cannot be known."""
    reason: str


def prospect(
    group: Group, instances: Sequence[Instance], site: str, facts: Mapping[str, ServerFacts]
) -> Prospect | None:
    """`facts`: the last look at each server that answered. None for a group without a primary."""
    primary = next((one for one in instances if one.id == group.primary_id), None)
    if primary is None:
        return None
    if primary.site == site:
        return Prospect(primary, survives=True, in_order=True, lacking_bytes=0, reason="it is there already")
    there = [one for one in members(instances) if one.site == site]
    if not there:
        return Prospect(primary, survives=False, in_order=False, lacking_bytes=None, reason="it has no replica there")
    found = [_of_one(primary, one, facts) for one in there]
    return min(found, key=lambda one: (not one.survives, not one.in_order, one.lacking_bytes or 0))


def _of_one(primary: Instance, replica: Instance, facts: Mapping[str, ServerFacts]) -> Prospect:
    mine, source = facts.get(replica.id), facts.get(primary.id)
    if mine is None:
        reason = f"the agent of {replica.name} does not answer"
        return Prospect(primary, survives=False, in_order=False, lacking_bytes=None, reason=reason)
    alive = source is not None and source.alive
    if unfit := unfitness(mine, source.replication_id if source and alive else ""):
        reason = unfit.replace(replica.id, replica.name)
        return Prospect(primary, survives=False, in_order=False, lacking_bytes=None, reason=reason)
    if source is None or not alive:
        reason = f"{replica.name} can be promoted; {primary.name} does not answer, so what it lacks cannot be known"
        return Prospect(primary, survives=True, in_order=False, lacking_bytes=None, reason=reason)
    lag = lag_bytes(mine, source)
    linked = mine.upstream is not None and mine.upstream.link_up
    state = f"{replica.name} follows, {lag} bytes behind" if linked else f"{replica.name} has lost its primary"
    return Prospect(primary, survives=True, in_order=linked, lacking_bytes=lag, reason=state)

"""How orders and reports travel over the bus: one codec for both ends.

Names on the bus: agents serve `agent:HOST`, managers together serve `managers`. Topics: `reports` (agents to all who
watch), `hints` (look at this group now), `ha` (the topology of a group has changed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from redkeep.model.facts import Confirmation, HostReport, ServerFacts
from redkeep.model.orders import Order
from redkeep.model.topology import Address, Topology
from redkeep.ports import Body, Bus

REPORTS = "reports"
HINTS = "hints"
HA = "ha"
MANAGERS = "managers"
CANARIES = "canaries"
"""What managers serve beside that: how far behind other sites are."""

_ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])
_FACTS: TypeAdapter[tuple[ServerFacts, ...]] = TypeAdapter(tuple[ServerFacts, ...])
_REPORT: TypeAdapter[HostReport] = TypeAdapter(HostReport)
_CONFIRMATION: TypeAdapter[Confirmation] = TypeAdapter(Confirmation)


@dataclass(frozen=True, slots=True)
class Exit:
    """The process of a server has just ended, and nobody ordered it."""

    host_id: str
    facts: ServerFacts


_EXIT: TypeAdapter[Exit] = TypeAdapter(Exit)


def agent_name(host_id: str) -> str:
    return f"agent:{host_id}"


class BusAgents:
    """`ports.Agents` over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def look(self, host_id: str, instance_ids: Sequence[str], *, timeout: float = 2.0) -> tuple[ServerFacts, ...]:
        body = {"look": list(instance_ids)}
        return decode_facts(await self._bus.request(agent_name(host_id), body, timeout=timeout))

    async def reaches(self, host_id: str, address: Address, *, timeout: float = 1.0) -> bool:
        body = {"reach": [address.host, address.port]}
        return bool((await self._bus.request(agent_name(host_id), body, timeout=timeout))["reached"])

    async def tell(self, host_id: str, order: Order, *, timeout: float = 10.0) -> ServerFacts:
        body = {"order": _ORDER.dump_python(order, mode="json")}
        return decode_facts(await self._bus.request(agent_name(host_id), body, timeout=timeout))[0]


def decode_order(body: Body) -> Order | Address | list[str]:
    """What an agent was asked: an order, whether it reaches an address, or a look at these instances.

    Raises pydantic.ValidationError, KeyError or ValueError.
    """
    if "reach" in body:
        host, port = body["reach"]
        return Address(str(host), int(port))
    if "look" in body:
        return [str(name) for name in body["look"]]
    return _ORDER.validate_python(body["order"], strict=False)


def encode_facts(*facts: ServerFacts) -> dict[str, Any]:
    return {"facts": _FACTS.dump_python(facts, mode="json")}


def decode_facts(body: Body) -> tuple[ServerFacts, ...]:
    return _FACTS.validate_python(body["facts"])


def encode_report(report: HostReport) -> dict[str, Any]:
    return {"report": _REPORT.dump_python(report, mode="json")}


def encode_exit(event: Exit) -> dict[str, Any]:
    return {"exit": _EXIT.dump_python(event, mode="json")}


def decode_report(body: Body) -> HostReport | Exit:
    """An entry of `reports`. Raises pydantic.ValidationError or KeyError."""
    return _EXIT.validate_python(body["exit"]) if "exit" in body else _REPORT.validate_python(body["report"])


def encode_confirmation(confirmation: Confirmation) -> dict[str, Any]:
    return _CONFIRMATION.dump_python(confirmation, mode="json")  # type: ignore[no-any-return]


def decode_confirmation(body: Body) -> Confirmation:
    return _CONFIRMATION.validate_python(body)


def encode_wish(report: HostReport) -> dict[str, Any]:
    """An agent asks any manager to confirm its primaries; with it goes the description of its host."""
    return encode_report(report)


def encode_news(topology: Topology) -> dict[str, Any]:
    return topology.to_news()


def hint(group_id: str) -> dict[str, Any]:
    return {"group": group_id}

"""What travels between managers and agents arrives as it was sent; and what an agent remembers, as it was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from redkeep import orders
from redkeep.agent import record as records
from redkeep.agent.process import Birth
from redkeep.agent.record import Record
from redkeep.model.facts import Assignment, Confirmation, HostReport, ServerFacts, ServerSpec
from redkeep.model.orders import Order, target
from redkeep.ports import Body

from .strategies import addresses, facts_of, topologies

specs = st.builds(ServerSpec, address=addresses, maxmemory_bytes=st.integers(0), process_limit_bytes=st.integers(0))
assignments = st.builds(Assignment, primary=st.none() | addresses, topology=topologies)
seconds = st.floats(0, 1e9)
asked: st.SearchStrategy[Any] = st.one_of(
    *(
        st.builds(
            kind,
            **{
                name: strategy
                for name, strategy in {
                    "spec": specs,
                    "assignment": assignments,
                    "patience": seconds,
                    "budget": seconds,
                    "peers": st.lists(addresses, max_size=3).map(tuple),
                }.items()
                if name in kind.__dataclass_fields__
            },
        )
        for kind in get_args(Order)
    )
)


class Wire:
    """A bus that carries JSON, as any bus does, and remembers what it carried."""

    def __init__(self, answer: Body) -> None:
        self.answer = answer
        self.carried: list[tuple[str, Body]] = []

    async def request(self, to: str, body: Body, *, timeout: float) -> Body:
        self.carried.append((to, json.loads(json.dumps(body))))
        return json.loads(json.dumps(self.answer))  # type: ignore[no-any-return]


@given(asked, facts_of("i"))
async def test_every_order_arrives_as_it_was_given_and_its_answer_too(order: Order, answer: ServerFacts) -> None:
    wire = Wire(orders.encode_facts(answer))

    seen = await orders.BusAgents(wire).tell("host", order)  # type: ignore[arg-type]

    assert seen == answer
    assert wire.carried[0][0] == "agent:host"
    assert orders.decode_order(wire.carried[0][1]) == order


@given(asked)
def test_every_order_names_a_server_its_group_and_a_lease(order: Order) -> None:
    found = target(order)

    assert isinstance(found.instance_id, str)
    assert isinstance(found.group_id, str)
    assert isinstance(found.epoch, int)


@pytest.mark.parametrize("body", [{}, {"order": {}}, {"order": {"kind": "dance"}}, {"order": {"kind": "promote"}}])
def test_what_is_no_order_is_refused(body: Body) -> None:
    with pytest.raises((ValidationError, KeyError)):
        orders.decode_order(body)


reports = st.builds(HostReport, servers=st.lists(facts_of("i"), max_size=2).map(tuple))


@given(reports)
def test_a_report_arrives_as_it_was_sent(report: HostReport) -> None:
    assert orders.decode_report(json.loads(json.dumps(orders.encode_report(report)))) == report


@given(st.text(), facts_of("i"))
def test_an_exit_arrives_as_an_exit(host_id: str, facts: ServerFacts) -> None:
    gone = orders.Exit(host_id, facts)

    assert orders.decode_report(json.loads(json.dumps(orders.encode_exit(gone)))) == gone


@given(st.builds(Confirmation, lease_seconds=seconds))
def test_a_confirmation_arrives_as_it_was_sent(given_word: Confirmation) -> None:
    assert orders.decode_confirmation(json.loads(json.dumps(orders.encode_confirmation(given_word)))) == given_word


# --- What an agent remembers

remembered = st.builds(
    Record, spec=specs, assignment=assignments, birth=st.none() | st.builds(Birth, st.integers(1), st.integers(0))
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record")


@settings(deadline=None)  # it writes files, on machines that may be busy
@given(record=remembered)
def test_an_agent_remembers_what_it_saved(directory: Path, record: Record) -> None:
    records.save(directory, record)

    assert records.load(directory) == record
    assert (directory / records.FILE).stat().st_mode & 0o777 == 0o600
    assert [one.name for one in directory.iterdir()] == [records.FILE]


@settings(deadline=None)  # it writes files, on machines that may be busy
@given(record=remembered, data=st.data())
def test_a_damaged_memory_is_no_memory(directory: Path, record: Record, data: st.DataObject) -> None:
    records.save(directory, record)
    whole = (directory / records.FILE).read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))

    (directory / records.FILE).write_bytes(whole[:cut] + data.draw(st.binary(max_size=3)).replace(b"}", b""))

    assert records.load(directory) is None


def test_without_a_file_there_is_no_memory(tmp_path: Path) -> None:
    assert records.load(tmp_path) is None
    assert records.load(tmp_path / "nowhere") is None


def test_what_cannot_be_written_whole_leaves_the_old_file(tmp_path: Path) -> None:
    """The draft fails, nothing is replaced and nothing is left behind."""
    target_file = tmp_path / "file"
    records.write(target_file, b"old")

    with pytest.raises(TypeError):
        records.write(target_file, "text")  # type: ignore[arg-type]

    assert target_file.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]

"""What clients are told, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.topology import assignment, members, topology
from redkeep.model.instance import Instance, Status
from redkeep.model.topology import Address, Role, Topology

from .strategies import addresses, instance, topologies

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
instances = st.lists(
    st.builds(
        lambda name, status, placed: instance(name, status=status, **({} if placed else {"address": None})),
        st.sampled_from("abcdef"),
        st.sampled_from(Status),
        st.booleans(),
    ),
    unique_by=lambda one: one.id,
)


@given(topologies)
def test_news_say_all_there_is_to_say(told: Topology) -> None:
    assert Topology.from_news(json.loads(json.dumps(told.to_news()))) == told


@given(
    st.dictionaries(st.sampled_from(["group", "epoch", "primary", "replicas"]), junk, max_size=4)
    | topologies.map(Topology.to_news).flatmap(
        lambda news: st.tuples(st.sampled_from(sorted(news)), junk).map(lambda change: news | {change[0]: change[1]})
    )
)
def test_what_is_no_news_is_a_value_error_and_nothing_else(news: dict[str, Any]) -> None:
    try:
        read = Topology.from_news(news)
    except ValueError:
        return
    assert Topology.from_news(read.to_news()) == read


@pytest.mark.parametrize("text", ["", ":", "host", "host:", ":7000", "host:x", "host:-1", "host:70 00"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        Address.parse(text)


@given(addresses)
def test_an_address_reads_as_it_is_written(address: Address) -> None:
    assert Address.parse(str(address)) == address


@given(instances, st.sampled_from([*"abcdef", None]))
def test_a_topology_names_every_member_once_and_the_primary_first(
    instances: list[Instance], primary_id: str | None
) -> None:
    told = topology("g", 1, members(instances), primary_id)

    assert sorted(told.nodes) == sorted(one.address for one in members(instances) if one.address)
    assert told.primary not in told.replicas


@given(instances)
def test_those_being_made_or_unmade_are_no_members(instances: list[Instance]) -> None:
    found = members(instances)

    assert all(one.address is not None for one in found)
    assert not {one.status for one in found} & {Status.BUILD, Status.SHUTDOWN}


def test_one_member_is_primary_and_all_others_follow_it() -> None:
    rows = [instance(name) for name in "pqr"]
    told = topology("g", 7, rows, "q")

    roles = {one.id: assignment(one, told) for one in rows}

    assert [name for name, given in roles.items() if given.role is Role.PRIMARY] == ["q"]
    assert roles["q"].primary is None
    assert {roles["p"].primary, roles["r"].primary} == {rows[1].address}
    assert {given.epoch for given in roles.values()} == {7}
    assert {given.group_size for given in roles.values()} == {3}

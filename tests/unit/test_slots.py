"""Slots, and what the members of a cluster say of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from redkeep.decide.sharding import DOUBTS, believe
from redkeep.model.slots import (
    SLOTS,
    ClusterView,
    Member,
    Redirect,
    as_ranges,
    key_of,
    parse_nodes,
    parse_redirect,
    slot_of,
    slots_in,
)
from redkeep.model.topology import Address

A, B = Address("10.0.0.1", 1), Address("10.0.0.1", 2)
NODES = """\
aa 10.0.0.1:1@10001,host-a myself,master - 0 0 3 connected 0-99 101 [100->-bb]
bb 10.0.0.1:2@10002 master,fail? - 0 0 7 connected 102-16383
cc ::1:3@10003 slave aa 0 0 3 connected
dd :0@0 slave,fail,noaddr bb 0 0 7 disconnected
ee 10.0.0.1:5@10005 handshake - 0 0 0 connected
"""


@given(st.binary())
def test_slots_are_redis_own(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


@pytest.mark.parametrize("key", [b"{user}.a", b"a{user}b", b"x{user}{y}"])
def test_only_the_first_braces_count(key: bytes) -> None:
    assert slot_of(key) == slot_of(b"user")


def test_members_are_read_as_redis_6_and_7_write_them() -> None:
    view = parse_nodes(NODES, A)

    assert [str(one.address) for one in view.members] == ["10.0.0.1:1", "10.0.0.1:2", "[::1]:3"]
    assert view.members[0].ranges == ((0, 99), (101, 101))
    assert view.members[2].primary_id == "aa"
    assert (view.epoch, view.covered, view.members[1].failed) == (7, SLOTS - 1, False)
    assert ClusterView.from_news(view.to_news()) == view


@given(st.sets(st.integers(0, SLOTS - 1), max_size=60))
def test_ranges_hold_exactly_the_slots_and_are_as_few_as_can_be(slots: set[int]) -> None:
    ranges = as_ranges(slots)

    assert slots_in(ranges) == sorted(slots)
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(ranges))


@pytest.mark.parametrize("news", [None, 7, [7], [["a", 7, None, 1, False, []]], [["a", "b", None, 1, False, []]]])
def test_what_is_no_cluster_is_refused(news: object) -> None:
    with pytest.raises(ValueError, match=r"cluster|host:port|unpack"):
        ClusterView.from_news(news)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), b"k"),
        (("EVALSHA", "sha", 1, "k", "a"), b"k"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", "COUNT", 1, "STREAMS", b"s", "0"), b"s"),
        (("XINFO", "STREAM", "s"), b"s"),
        (("PING",), None),
        (("CLUSTER", "INFO"), None),
    ],
)
def test_the_key_of_a_command(command: tuple[str | bytes | int, ...], key: bytes | None) -> None:
    assert key_of(command) == key


def test_redirections_name_their_target_or_mean_the_server_that_was_asked() -> None:
    assert parse_redirect("MOVED", "7 10.0.0.1:2", A) == Redirect(7, B, True)
    assert parse_redirect("ASK", "7 :2", A) == Redirect(7, B, False)
    assert parse_redirect("ASK", "7 ::1:2", A) == Redirect(7, Address("::1", 2), False)
    assert parse_redirect("ERR", "7 :2", A) is None


def view(epoch: int, last: int = SLOTS - 1) -> ClusterView:
    return ClusterView((Member("a", A, epoch=epoch, ranges=((0, last),)),))


def test_a_newer_view_wins_and_a_hole_does_not() -> None:
    assert believe(view(2), view(3, 5), doubts=0).epoch == 3
    assert believe(view(2), view(1), doubts=0).epoch == 2
    assert believe(view(2), view(2, 5), doubts=0).covered == SLOTS
    assert believe(view(2), ClusterView(), doubts=DOUBTS).epoch == 2


def test_a_cluster_that_was_made_anew_is_believed_in_the_end() -> None:
    assert believe(view(9), view(1), doubts=DOUBTS).epoch == 1

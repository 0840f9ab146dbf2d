"""The invariants catch what they are there to catch."""

from __future__ import annotations

from redkeep.model.topology import Address
from redkeep.testing.invariants import Acceptance, emptied, rivals

HERE, THERE = Address("10.0.0.1", 7000), Address("10.0.0.2", 7000)


def reign(address: Address, history: str, *moments: float) -> list[Acceptance]:
    return [Acceptance(address, history, at, at + 0.1) for at in moments]


def test_one_after_the_other_are_no_rivals_even_when_the_first_comes_back() -> None:
    accepted = [*reign(HERE, "x", 1, 2, 3), *reign(THERE, "y", 4, 5), *reign(HERE, "z", 6, 7)]

    assert not rivals(accepted)


def test_two_that_accept_in_turns_are_rivals() -> None:
    accepted = [*reign(HERE, "x", 1, 2, 5), *reign(THERE, "y", 4, 6)]

    assert [(one.address, other.address) for one, other in rivals(accepted)] == [(HERE, THERE)]


def test_a_single_late_write_of_the_old_one_is_enough() -> None:
    assert rivals([*reign(HERE, "x", 1, 9), *reign(THERE, "y", 4)])
    assert rivals([*reign(THERE, "y", 4), *reign(HERE, "x", 1, 9)])


def test_a_write_under_way_while_the_other_took_over_proves_nothing() -> None:
    accepted = [Acceptance(HERE, "x", 1, 5), *reign(THERE, "y", 4)]

    assert not rivals(accepted)


def test_a_server_that_lost_all_its_keys_is_named() -> None:
    assert emptied({"a": 3, "b": 2, "c": 0}, {"a": 0, "b": 1, "c": 0}) == ["a"]

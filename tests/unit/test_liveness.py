"""What silence means, and what an agent does by itself after an exit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.liveness import Comeback, Patience, Pulse, comeback, pulse, restart_pause
from redkeep.model.topology import Role

sizes = st.integers(1, 9)
seconds = st.floats(0, 100)


@given(seconds, st.booleans(), sizes)
def test_an_only_server_is_never_killed(silent_for: float, stopped: bool, size: int) -> None:
    verdict = pulse(silent_for=silent_for, stopped=stopped, group_size=size, patience=Patience())

    assert verdict is not Pulse.KILL or size > 1
    assert verdict is not Pulse.HUNG or size == 1


@given(seconds, sizes)
def test_a_busy_server_gets_more_patience_than_a_stopped_one(silent_for: float, size: int) -> None:
    busy = pulse(silent_for=silent_for, stopped=False, group_size=size, patience=Patience())
    stopped = pulse(silent_for=silent_for, stopped=True, group_size=size, patience=Patience())

    assert busy is Pulse.FINE or stopped is busy


def test_within_its_patience_a_server_is_fine() -> None:
    patience = Patience(stopped=0.4, silent=5.0)

    assert pulse(silent_for=0.4, stopped=True, group_size=3, patience=patience) is Pulse.FINE
    assert pulse(silent_for=0.41, stopped=True, group_size=3, patience=patience) is Pulse.KILL
    assert pulse(silent_for=5.0, stopped=False, group_size=3, patience=patience) is Pulse.FINE
    assert pulse(silent_for=5.1, stopped=False, group_size=1, patience=patience) is Pulse.HUNG


@given(st.sampled_from(Role), sizes)
def test_only_a_primary_that_may_have_been_replaced_waits_for_word(role: Role, size: int) -> None:
    waits = comeback(role, size) is Comeback.AWAIT_WORD

    assert waits == (role is Role.PRIMARY and size > 1)


@given(st.integers(0, 10_000))
def test_a_crash_loop_is_paced_ever_more_slowly_up_to_half_a_minute(exits: int) -> None:
    assert 0 <= restart_pause(exits) <= restart_pause(exits + 1) <= 30


def test_the_first_crash_costs_no_wait() -> None:
    assert [restart_pause(count) for count in (0, 1, 2, 3, 4, 9)] == [0, 0, 0.5, 1, 2, 30]

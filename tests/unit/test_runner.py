"""Which operation is next, and how long one that failed waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.operation import BACKGROUND, URGENT, Kind, Operation
from redkeep.operations.runner import RUNBOOKS, next_up, retry_pause

operations = st.lists(
    st.builds(
        lambda number, kind, not_before: Operation(str(number), "g", kind, float(number), not_before=not_before),
        st.integers(0, 99),
        st.sampled_from(Kind),
        st.floats(0, 10),
    ),
    max_size=5,
)


@given(st.integers(0, 10**6))
def test_an_operation_is_tried_again_ever_more_slowly_up_to_five_seconds(attempts: int) -> None:
    assert 0.05 <= retry_pause(attempts) <= retry_pause(attempts + 1) <= 5


@given(operations, st.floats(0, 10))
def test_nothing_runs_before_its_time(waiting: list[Operation], now: float) -> None:
    chosen = next_up(waiting, now)

    assert chosen is None or chosen.not_before <= now


@given(operations, st.floats(0, 10))
def test_what_is_urgent_overtakes_and_everything_else_keeps_its_order(waiting: list[Operation], now: float) -> None:
    chosen = next_up(waiting, now)
    urgent = [one for one in waiting if one.kind in URGENT]
    foreground = [one for one in waiting if one.kind not in BACKGROUND]

    if chosen is not None:
        assert chosen is (urgent or foreground or waiting)[0]


@given(operations)
def test_in_time_every_group_has_something_to_do(waiting: list[Operation]) -> None:
    assert (next_up(waiting, 10.0) is None) == (not waiting)


def test_every_kind_of_operation_has_its_runbook() -> None:
    assert set(RUNBOOKS) == set(Kind)

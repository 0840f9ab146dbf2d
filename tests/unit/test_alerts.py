"""What servers complain of, beside what operations leave on a row."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.alerts import alerted, is_alert
from redkeep.model.instance import Fault
from redkeep.redis import info

from .strategies import instance

troubles = st.sampled_from(["", "its disk is full", "it is full"])
faults = st.none() | st.builds(Fault, st.sampled_from(["it was not promoted", "Alert: its disk is full"]), st.just(1.0))


@given(faults, st.lists(troubles, min_size=1, max_size=5))
def test_a_row_says_the_last_trouble_and_never_loses_what_an_operation_left(
    fault: Fault | None, said: list[str]
) -> None:
    row = replace(instance("p"), fault=fault)

    for trouble in said:
        row = replace(row, fault=alerted(row, trouble, 2.0))
        assert alerted(row, trouble, 3.0) == row.fault, "the same trouble again changes nothing"

    if fault is not None and not is_alert(fault):
        assert row.fault == fault
    else:
        assert is_alert(row.fault) == bool(said[-1])
        assert row.fault is None or row.fault.message.endswith(said[-1])


def test_a_server_complains_of_what_makes_it_refuse_writes() -> None:
    well = {"used_memory": 10, "maxmemory": 20, "maxmemory_policy": "noeviction", "role": "master"}

    assert info.trouble(well) == ""
    assert "append-only" in info.trouble({**well, "aof_last_write_status": "err"})
    assert "MISCONF" in info.trouble({**well, "rdb_last_bgsave_status": "err"})
    assert "OOM" in info.trouble({**well, "used_memory": 20})
    assert info.trouble({**well, "used_memory": 20, "maxmemory_policy": "allkeys-lru"}) == ""
    assert info.trouble({**well, "used_memory": 20, "mem_not_counted_for_evict": 5}) == ""
    assert info.trouble({**well, "used_memory": 20, "maxmemory": 0}) == ""
    assert info.trouble({**well, "used_memory": 20, "role": "slave"}) == ""
    assert info.trouble({**well, "used_memory": 97, "maxmemory": 100}) == ""
    assert "OOM" in info.trouble({**well, "used_memory": 97, "maxmemory": 100, "errorstat_OOM": {"count": 1}})

"""From whom a backup is taken, and what may be done with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.backups import Nobody, copy_from, may_delete, may_restore
from redkeep.decide.lifecycle import Allowed, Refusal, UnderWay
from redkeep.model.backup import Backup, BackupStatus, holder_of, name_of
from redkeep.model.facts import Process, ServerFacts, Upstream
from redkeep.model.instance import Flavor, Host
from redkeep.model.topology import Address, Role

LIMIT = 1000
PRIMARY = ServerFacts("p", Process.RUNNING, role=Role.PRIMARY, replication_id="r", offset=5000)
LINK = Upstream(Address("h", 1), link_up=True, syncing=False, last_io_seconds=0)


def a_replica(name: str, **changes: Any) -> ServerFacts:
    plain = ServerFacts(
        name, Process.RUNNING, role=Role.REPLICA, replication_id="r", offset=5000, synced_once=True, upstream=LINK
    )
    return replace(plain, **changes)


def chosen(*facts: ServerFacts, named: str = "p", failed: tuple[str, ...] = ()) -> str | Nobody:
    seen = {one.instance_id: one for one in facts}
    return copy_from(seen, "p", named=named, failed=failed, lag_limit=LIMIT)


replicas = st.builds(
    a_replica,
    st.sampled_from("abc"),
    process=st.sampled_from(Process),
    replication_id=st.sampled_from(["r", "s"]),
    offset=st.integers(3000, 5000),
    synced_once=st.booleans(),
    upstream=st.sampled_from([LINK, replace(LINK, link_up=False), replace(LINK, syncing=True), None]),
)


@given(st.lists(replicas, max_size=3), st.sets(st.sampled_from("abcp")), st.sampled_from("abcp"))
def test_whoever_is_copied_has_all_of_the_data(found: list[ServerFacts], failed: set[str], named: str) -> None:
    name = chosen(PRIMARY, *found, named=named, failed=tuple(failed))

    one = {facts.instance_id: facts for facts in (PRIMARY, *found)}[str(name)]
    assert one.alive
    assert one.replication_id == "r"
    assert one.role is Role.PRIMARY or (one.synced_once and one.upstream == LINK and 5000 - one.offset <= LIMIT)


def test_a_replica_in_step_spares_the_primary() -> None:
    assert chosen(PRIMARY, a_replica("a", offset=4500)) == "a"
    assert chosen(PRIMARY, a_replica("a", offset=4500), a_replica("b", offset=4600)) == "b"
    assert chosen(PRIMARY, a_replica("a", offset=4500), a_replica("b"), named="a") == "a"
    assert chosen(PRIMARY, a_replica("a", offset=3999)) == "p"
    assert chosen(PRIMARY) == "p"


def test_where_it_failed_comes_last() -> None:
    assert chosen(PRIMARY, a_replica("a"), a_replica("b"), failed=("a",)) == "b"
    assert chosen(PRIMARY, a_replica("a"), failed=("a",)) == "p"
    assert chosen(PRIMARY, a_replica("a"), failed=("a", "p")) == "a"


@pytest.mark.parametrize("primary", [replace(PRIMARY, process=Process.EXITED), replace(PRIMARY, role=Role.REPLICA)])
def test_without_its_primary_nobody_knows_who_is_in_step(primary: ServerFacts) -> None:
    assert isinstance(chosen(primary, a_replica("a")), Nobody)
    assert isinstance(chosen(a_replica("a")), Nobody)


# --- Rules --------------------------------------------------------------------------------------------------------

GIB = 2**30
WHOLE = Backup(
    "b", "p", "nightly", "i", "g", "7.0", 1.0, 1.0, status=BackupStatus.COMPLETED, size_bytes=GIB, memory_bytes=GIB
)
LARGE = Flavor("3", "1g", 1024)


def verdict(backup: Backup | None = WHOLE, **changes: Any) -> Allowed | Refusal:
    asked: dict[str, Any] = {"version": "7.0", "flavor": LARGE, "volume_gb": 1} | changes
    return may_restore(backup, asked.pop("hosts", ()), **asked)


def test_a_whole_backup_is_restored_where_it_fits() -> None:
    assert verdict() == verdict(None) == Allowed()
    assert verdict(version="7.2") == verdict(version="10.0") == Allowed()


@pytest.mark.parametrize("status", [one for one in BackupStatus if one is not BackupStatus.COMPLETED])
def test_one_that_is_not_whole_is_not_restored(status: BackupStatus) -> None:
    refused = verdict(replace(WHOLE, status=status))

    assert isinstance(refused, Refusal)
    assert status in refused.message


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    memory = verdict(flavor=Flavor("1", "small", 1023))
    volume = verdict(replace(WHOLE, size_bytes=GIB + 1))
    version = verdict(version="6.2")

    assert isinstance(memory, Refusal)
    assert isinstance(volume, Refusal)
    assert isinstance(version, Refusal)
    assert (memory.kind, volume.kind, version.kind) == ("forbidden", "forbidden", "invalid")
    assert "1024 MB" in memory.message
    assert "1023 MB" in memory.message
    assert "2 GB" in volume.message
    assert "1 GB" in volume.message
    assert "7.0" in version.message


def test_what_one_host_has_needs_that_host() -> None:
    host = Host("h1", "10.0.0.1", 1, 2, ("7.0",), 1, 1, 1, 0.0)
    backup = replace(WHOLE, location="file://h1/srv/b/1.rdb")

    assert verdict(backup, hosts=[host]) == Allowed()
    assert isinstance(verdict(backup, hosts=[replace(host, id="h2")]), Refusal)
    assert verdict(replace(backup, location="file:///srv/b/1.rdb")) == Allowed()


def test_only_what_rests_is_deleted() -> None:
    verdicts = {status: may_delete(replace(WHOLE, status=status), ()) for status in BackupStatus}

    assert {status for status, verdict in verdicts.items() if isinstance(verdict, Refusal)} == {
        BackupStatus.NEW,
        BackupStatus.BUILDING,
    }
    assert verdicts[BackupStatus.DELETING] == UnderWay()
    assert isinstance(may_delete(WHOLE, {"b"}), Refusal)


@pytest.mark.parametrize(
    ("location", "holder"),
    [("file://h1/srv/b/1.rdb", "h1"), ("file:///srv/b/1.rdb", None), ("s3://keep/deep/b/1.rdb", None)],
)
def test_a_location_names_its_holder_and_its_name(location: str, holder: str | None) -> None:
    assert (holder_of(location), name_of(location)) == (holder, "b/1.rdb")

"""What Redis is told in its file, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.facts import Follower, ServerSpec
from redkeep.model.instance import RedisUser, Secrets
from redkeep.model.topology import Address, Role
from redkeep.redis import cluster, conf, info
from redkeep.vault import digest

passwords = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=20, max_size=43).map(
    "sEcret-{}".format
)
"""Such as no directive is made of: words of the program itself are among the first that are tried."""
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
tunings = st.builds(
    conf.Tuning,
    diskless_sync=st.booleans(),
    diskless_sync_delay=st.integers(0, 60),
    append_fsync=st.sampled_from(["always", "everysec", "no"]),
)
specs = st.builds(
    lambda port, memory, users, token: ServerSpec(
        instance_id="i",
        group_id="g",
        version="7.0",
        address=Address("10.0.0.1", port),
        maxmemory_bytes=memory,
        process_limit_bytes=2 * memory,
        secrets=Secrets(admin=token, replication=token),
        users=tuple(RedisUser(name, digest(name), enabled) for name, enabled in users.items()),
    ),
    st.integers(1, 65535),
    st.integers(2**20, 2**40),
    st.dictionaries(names, st.booleans(), max_size=3),
    passwords,
)


def directives(text: str) -> dict[str, list[str]]:
    """A configuration file, read as Redis reads it."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition(" ")
            found.setdefault(name, []).append(value)
    return found


def rendered(spec: ServerSpec, tuning: conf.Tuning, admin: str, replica: str) -> str:
    masters = conf.Masters(digest(admin), digest(replica))
    return conf.render(spec, Path("/state/i"), conf.NOBODY, tuning=tuning, masters=masters)


@given(specs, tunings, passwords, passwords)
def test_no_secret_stands_in_the_file(spec: ServerSpec, tuning: conf.Tuning, admin: str, replica: str) -> None:
    text = rendered(spec, tuning, admin, replica)

    assert admin not in text
    assert replica not in text
    assert spec.secrets.admin not in text
    assert "masterauth" not in directives(text)
    assert "requirepass" not in directives(text)


@given(specs, tunings, passwords, passwords)
def test_the_file_says_each_thing_once_and_all_that_was_asked(
    spec: ServerSpec, tuning: conf.Tuning, admin: str, replica: str
) -> None:
    found = directives(rendered(spec, tuning, admin, replica))

    assert all(len(values) == 1 for name, values in found.items() if name != "user")
    assert found["port"] == [str(spec.address.port)]
    assert found["bind"] == [spec.address.host]
    assert found["maxmemory"] == [str(spec.maxmemory_bytes)]
    assert found["appendfsync"] == [tuning.append_fsync]
    users = {value.split()[0] for value in found["user"]}
    assert users == {"default", conf.ADMIN, conf.REPLICA, *(user.name for user in spec.users)}


@given(specs, tunings, passwords)
def test_a_server_always_starts_as_a_replica_so_that_it_refuses_writes(
    spec: ServerSpec, tuning: conf.Tuning, password: str
) -> None:
    found = directives(rendered(spec, tuning, password, password))

    assert found["replicaof"] == ["127.0.0.1 1"]
    assert found["replica-read-only"] == ["yes"]


@given(st.lists(st.builds(RedisUser, names, passwords.map(digest), st.booleans()), max_size=3))
def test_no_tenant_gets_the_rights_of_an_administrator(tenants: list[RedisUser]) -> None:
    rules = conf.users(tuple(tenants), conf.Masters("a" * 64, "b" * 64))

    for user in tenants:
        words = rules[user.name].split()
        assert words[0] == "reset"
        assert words.index("+@all") < words.index("-@admin")
        assert "-migrate" in words
        assert ("on" in words) == {one.name: one.enabled for one in tenants}[user.name]
        assert not {"+@admin", "+config", "+acl", "+debug", "+shutdown", "nopass", "+client"} & set(words)
    assert all(rule.startswith("reset ") for rule in rules.values())


def test_without_a_tenant_nobody_gets_in_without_a_name() -> None:
    assert conf.users((), conf.Masters("a" * 64, "b" * 64))["default"] == "reset off"


@pytest.mark.parametrize("name", [conf.ADMIN, conf.REPLICA])
def test_a_tenant_cannot_take_the_name_of_one_of_our_own_users(name: str) -> None:
    taken = RedisUser(name, "c" * 64)

    rules = conf.users((taken,), conf.Masters("a" * 64, "b" * 64))

    assert "c" * 64 not in rules[name]


# --- What Redis says


PRIMARY: dict[str, Any] = {
    "role": "master",
    "connected_slaves": 2,
    "slave0": {"ip": "10.0.0.2", "port": 7001, "state": "online", "offset": 90, "lag": 0},
    "slave1": {"ip": "10.0.0.3", "port": 7002, "state": "wait_bgsave", "offset": 0, "lag": 1},
    "master_repl_offset": 100,
}
REPLICA: dict[str, Any] = {
    "role": "slave",
    "master_host": "10.0.0.1",
    "master_port": 7000,
    "master_link_status": "up",
    "master_last_io_seconds_ago": 3,
    "master_sync_in_progress": 0,
    "slave_repl_offset": 90,
    "master_repl_offset": 80,
}


def test_a_primary_knows_its_followers_and_how_far_they_are() -> None:
    assert info.role(PRIMARY) is Role.PRIMARY
    assert info.offset(PRIMARY) == 100
    assert info.upstream(PRIMARY) is None
    assert info.followers(PRIMARY) == (
        Follower(Address("10.0.0.2", 7001), online=True, offset=90, lag_seconds=0),
        Follower(Address("10.0.0.3", 7002), online=False, offset=0, lag_seconds=1),
    )


def test_a_replica_is_as_far_as_it_has_applied() -> None:
    link = info.upstream(REPLICA)

    assert info.role(REPLICA) is Role.REPLICA
    assert info.offset(REPLICA) == 90
    assert link is not None
    assert (link.primary, link.link_up, link.syncing, link.last_io_seconds) == (
        Address("10.0.0.1", 7000),
        True,
        False,
        3,
    )


@given(st.integers(0, 10), st.sets(st.integers(0, 9)))
def test_a_follower_that_left_between_two_lines_is_not_made_up(claimed: int, present: set[int]) -> None:
    said = {"role": "master", "connected_slaves": claimed} | {f"slave{at}": PRIMARY["slave0"] for at in present}

    assert len(info.followers(said)) == len([at for at in present if at < claimed])


@given(st.dictionaries(st.integers(0, 15), st.integers(0, 10**9)))
def test_keys_are_counted_over_all_databases(databases: dict[int, int]) -> None:
    said: dict[str, Any] = {f"db{at}": {"keys": count, "expires": 0} for at, count in databases.items()}

    assert info.keys(said | {"db_size_hint": 7}) == sum(databases.values())


# --- Members of a cluster

MEMBER_INFO = "cluster_state:ok\r\ncluster_current_epoch:9\r\ncluster_my_epoch:3\r\n"
MEMBER_NODES = """\
aa 10.0.0.1:1@10001,host-a myself,master - 0 0 3 connected 0-99 [5->-bb] [7-<-cc]
bb 10.0.0.1:2@10002 master,fail? - 0 0 7 connected 102-16383
dd :0@0 slave,fail,noaddr bb 0 0 7 disconnected
ee 10.0.0.1:5@10005 handshake - 0 0 0 connected
"""


def test_a_member_tells_who_it_is_what_is_open_and_whom_it_does_not_know_yet() -> None:
    found = cluster.facts(MEMBER_INFO, MEMBER_NODES, Address("10.0.0.1", 1))

    assert (found.node_id, found.state_ok, found.epoch, found.my_epoch) == ("aa", True, 9, 3)
    assert (found.ranges, found.primary_id) == (((0, 99),), None)
    assert (found.migrating, found.importing) == (((5, "bb"),), ((7, "cc"),))
    assert (found.nameless, found.shaking) == (("dd",), 1)


@pytest.mark.parametrize(("said", "nodes"), [("", MEMBER_NODES), (MEMBER_INFO, "")])
def test_what_no_member_says_is_refused(said: str, nodes: str) -> None:
    with pytest.raises(ValueError, match="not the words of a member"):
        cluster.facts(said, nodes, Address("10.0.0.1", 1))


@given(specs, passwords)
def test_a_member_of_a_cluster_takes_its_role_from_the_cluster(spec: ServerSpec, password: str) -> None:
    said = directives(rendered(replace(spec, cluster=True), conf.Tuning(), password, password))
    alone = directives(rendered(spec, conf.Tuning(), password, password))

    assert said["cluster-enabled"] == ["yes"]
    assert "replicaof" not in said
    assert all("+cluster|slots" in rules for rules in said["user"] if "-@admin" in rules)
    assert any("+restore-asking" in rules for rules in said["user"])
    assert not any(name.startswith("cluster") for name in alone)
    assert not any("cluster" in rules or "restore" in rules for rules in alone["user"])


def test_synchronisation_goes_through_a_file_for_the_versions_that_the_operator_names() -> None:
    tuning = conf.Tuning(file_sync_versions=frozenset({"6.2"}))

    assert not tuning.is_diskless("6.2")
    assert tuning.is_diskless("7.0")
    assert not conf.Tuning(diskless_sync=False).is_diskless("7.0")


@given(specs, st.sampled_from(["async", "bounded", "sync"]))
def test_what_is_redkeeps_own_is_no_line_of_redis_conf(spec: ServerSpec, durability: str) -> None:
    spec = replace(spec, parameters=(("redkeep-durability", durability), ("hz", "20")))

    said = directives(rendered(spec, conf.Tuning(), "a", "b"))

    assert not [name for name in said if name.startswith("redkeep")]
    assert said["hz"] == ["20"]
    assert "redkeep-durability" not in conf.live_parameters(spec, conf.Tuning())

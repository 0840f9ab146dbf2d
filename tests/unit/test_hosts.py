"""Where a new server goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide.hosts import NoPlace, Place, place
from redkeep.model.instance import Flavor, Host, Instance
from redkeep.model.topology import Address

from .strategies import instance

SMALL = Flavor("1", "small", 1024)


def host(name: str, *, low: int = 7000, high: int = 7003, versions: tuple[str, ...] = ("7.0",), gb: int = 10) -> Host:
    return Host(name, f"{name}.example", low, high, versions, gb << 30, gb << 30, gb << 30, 0.0)


def order(hosts: list[Host], placed: list[Instance], avoid: list[tuple[str, int]] | None = None) -> Place | NoPlace:
    return place(hosts, placed, version="7.0", flavor=SMALL, volume_gb=2, group_id="g", avoid=avoid or [])


hosts = st.lists(
    st.builds(
        host,
        st.sampled_from(["h1", "h2", "h3"]),
        low=st.integers(7000, 7002),
        high=st.integers(7000, 7004),
        versions=st.sampled_from([("7.0", "6.2"), ("6.2",), ()]),
        gb=st.integers(0, 4),
    ),
    unique_by=lambda one: one.id,
    max_size=3,
)
servers = st.lists(
    st.builds(
        lambda number, on, port, group: instance(
            f"i{number}", host_id=on, group_id=group, address=Address(f"{on}.example", port)
        ),
        st.integers(0, 9),
        st.sampled_from(["h1", "h2", "h3"]),
        st.integers(7000, 7004),
        st.sampled_from(["g", "another"]),
    ),
    max_size=8,
)
avoided = st.lists(st.tuples(st.sampled_from(["h1", "h2", "h3"]), st.integers(7000, 7004)), max_size=3)


@given(hosts, servers, avoided)
def test_a_place_is_free_and_on_a_host_that_can_serve(
    hosts: list[Host], placed: list[Instance], avoid: list[tuple[str, int]]
) -> None:
    found = order(hosts, placed, avoid)

    if isinstance(found, Place):
        chosen = next(one for one in hosts if one.id == found.host_id)
        taken = {(one.host_id, one.address.port) for one in placed if one.address}
        assert (chosen.id, found.port) not in taken | set(avoid)
        assert chosen.port_low <= found.port <= chosen.port_high
        assert "7.0" in chosen.versions
        assert chosen.disk_free_bytes >= 2 << 30
        assert chosen.memory_bytes >= SMALL.maxmemory_bytes
        assert found.address == chosen.address


@given(hosts, servers)
def test_no_other_host_that_could_serve_has_fewer_of_the_same_group(hosts: list[Host], placed: list[Instance]) -> None:
    found = order(hosts, placed)

    if isinstance(found, Place):
        siblings = Counter(one.host_id for one in placed if one.group_id == "g")
        able = [one for one in hosts if isinstance(order([one], placed), Place)]
        assert siblings[found.host_id] == min(siblings[one.id] for one in able)


@given(st.data(), hosts, servers)
def test_a_place_does_not_depend_on_the_order_in_which_hosts_are_told(
    data: st.DataObject, hosts: list[Host], placed: list[Instance]
) -> None:
    assert isinstance(order(hosts, placed), Place) == isinstance(
        found := order(data.draw(st.permutations(hosts)), placed), Place
    )
    assert isinstance(found, NoPlace) or found == order(hosts, placed)


@given(hosts, servers)
def test_each_host_that_cannot_serve_is_named_with_its_reason(hosts: list[Host], placed: list[Instance]) -> None:
    found = order(hosts, placed)

    if isinstance(found, NoPlace):
        assert all(one.id in found.reason for one in hosts)
        assert found.reason


def test_a_group_spreads_before_it_gathers() -> None:
    three = [host("h1"), host("h2"), host("h3")]
    placed: list[Instance] = []
    for number in range(6):
        found = order(three, placed)
        assert isinstance(found, Place)
        placed.append(instance(f"i{number}", host_id=found.host_id, address=Address(found.address, found.port)))

    assert Counter(one.host_id for one in placed) == {"h1": 2, "h2": 2, "h3": 2}
    assert len({(one.host_id, one.address) for one in placed}) == 6


def test_two_agents_on_one_address_never_get_the_same_port() -> None:
    """Hosts are told apart by their agents' names, but a port belongs to an address."""
    pair = [host("h1", high=7000), replace(host("h2", high=7000), address="h1.example")]
    first = order(pair, [])
    assert isinstance(first, Place)

    second = order(pair, [instance("i0", host_id=first.host_id, address=Address(first.address, first.port))])

    assert isinstance(second, NoPlace)


# --- Shards -------------------------------------------------------------------------------------------------------


def place_all(hosts: list[Host], primaries: int, replicas: int) -> list[Instance] | None:
    """A cluster's members on these hosts, placed as the runbook does; None when there is no room."""
    placed: list[Instance] = []
    shards = [str(n) for n in range(primaries)]
    for number, shard in enumerate([*shards, *(shard for shard in shards for _ in range(replicas))]):
        found = place(hosts, placed, version="7.0", flavor=SMALL, volume_gb=2, group_id="g", shard=shard)
        if isinstance(found, NoPlace):
            return None
        address = Address(found.address, found.port)
        placed.append(instance(f"i{number}", host_id=found.host_id, address=address, shard=shard))
    return placed


zoned = st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 6)), min_size=1, max_size=5).map(
    lambda given: [replace(host(f"h{n}", high=6999 + room), zone=zone) for n, (zone, room) in enumerate(given)]
)


@given(zoned, st.integers(1, 5), st.integers(0, 2))
def test_a_replica_is_never_beside_another_of_its_shard_while_a_host_has_room_and_none(
    hosts: list[Host], primaries: int, replicas: int
) -> None:
    placed: list[Instance] = []
    shards = [str(n) for n in range(primaries)]
    for number, shard in enumerate([*shards, *(shard for shard in shards for _ in range(replicas))]):
        found = place(hosts, placed, version="7.0", flavor=SMALL, volume_gb=2, group_id="g", shard=shard)
        if isinstance(found, NoPlace):
            return
        peers = [one for one in placed if one.shard == shard]
        full = {one.id for one in hosts if sum(i.host_id == one.id for i in placed) > one.port_high - one.port_low}
        better = [one for one in hosts if one.id not in full and all(i.host_id != one.id for i in peers)]
        beside = [one for one in peers if one.host_id == found.host_id]
        assert not beside or not better

        zones = {one.id: one.zone for one in hosts}
        near = {zones[one.host_id or ""] for one in peers} - {""}
        if not beside and zones[found.host_id] in near:
            assert all(one.zone in near for one in better), "a host in another zone was free"
        placed.append(
            instance(f"i{number}", host_id=found.host_id, address=Address(found.address, found.port), shard=shard)
        )


@given(st.integers(2, 6), st.integers(1, 12))
def test_shards_on_equal_hosts_are_spread_evenly(hosts: int, primaries: int) -> None:
    placed = place_all([host(f"h{n}", high=7100) for n in range(hosts)], primaries, 1)

    assert placed is not None
    counts = Counter(one.host_id for one in placed)
    assert max(counts.values()) - min(counts[f"h{n}"] for n in range(hosts)) <= 2
    by_shard = {(one.shard, one.host_id) for one in placed}
    assert len(by_shard) == 2 * primaries, "a replica stands beside its primary"


@given(st.integers(1024, 60000), st.integers(0, 20000), st.lists(st.integers(1024, 65535), max_size=5), st.booleans())
def test_the_bus_of_a_member_has_a_port_of_its_own(low: int, span: int, others: list[int], clustered: bool) -> None:
    one = host("h1", low=low, high=min(65535, low + span))
    shard = "1" if clustered else None
    placed = [
        instance(f"i{n}", host_id="h1", group_id="other", address=Address("h1.example", port), shard=shard)
        for n, port in enumerate(dict.fromkeys(others))
    ]

    found = place([one], placed, version="7.0", flavor=SMALL, volume_gb=2, group_id="g", shard="1")

    if isinstance(found, Place):
        taken = {i.address.port for i in placed if i.address}
        taken |= {port + 10_000 for port in taken} if clustered else set()
        assert {found.port, found.port + 10_000}.isdisjoint(taken)
        assert found.port + 10_000 <= 65_535


def test_a_plain_server_does_not_take_the_port_of_a_bus() -> None:
    one = host("h1", low=17000, high=17001)
    member = instance("i0", host_id="h1", address=Address("h1.example", 7000), shard="1")

    found = order([one], [member])

    assert isinstance(found, Place)
    assert found.port == 17001


def test_a_zone_that_was_asked_for_is_kept() -> None:
    two = [replace(host("h1"), zone="a"), replace(host("h2"), zone="b")]

    found = place(two, [], version="7.0", flavor=SMALL, volume_gb=2, group_id="g", shard="1", zone="b")
    nowhere = place(two, [], version="7.0", flavor=SMALL, volume_gb=2, group_id="g", shard="1", zone="c")

    assert isinstance(found, Place)
    assert found.host_id == "h2"
    assert isinstance(nowhere, NoPlace)

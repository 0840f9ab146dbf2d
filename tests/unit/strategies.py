"""What was seen of a group, made up: for the properties of everything that decides."""

from __future__ import annotations

from hypothesis import strategies as st

from redkeep.model.facts import ClusterFacts, Follower, Process, ServerFacts, Upstream
from redkeep.model.instance import Group, Instance, Secrets, Status
from redkeep.model.slots import ClusterView, Member
from redkeep.model.topology import Address, Role, Topology

HISTORY = "a" * 40
OTHER_HISTORY = "b" * 40

addresses = st.builds(Address, st.sampled_from(["10.0.0.1", "10.0.0.2", "db.example", "::1"]), st.integers(1, 65535))
upstreams = st.builds(
    Upstream,
    primary=addresses,
    link_up=st.booleans(),
    syncing=st.booleans(),
    last_io_seconds=st.integers(-1, 20),
)
followers = st.builds(Follower, addresses, st.booleans(), st.integers(0, 10**12), st.floats(0, 100))
topologies = st.builds(
    Topology,
    group_id=st.text(min_size=1, max_size=10),
    epoch=st.integers(0, 2**53),
    primary=st.none() | addresses,
    replicas=st.lists(addresses, max_size=4).map(tuple),
)

members = st.builds(
    Member,
    id=st.sampled_from(["aa", "bb", "cc"]),
    address=addresses,
    ranges=st.lists(st.tuples(st.integers(0, 16383), st.integers(0, 16383)), max_size=2).map(tuple),
)
open_slots = st.lists(st.tuples(st.integers(0, 16383), st.sampled_from(["aa", "bb"])), max_size=2).map(tuple)
cluster_facts = st.builds(
    ClusterFacts,
    view=st.lists(members, max_size=3).map(lambda found: ClusterView(tuple(found))),
    migrating=open_slots,
    importing=open_slots,
    kept=open_slots,
)


def facts_of(name: str) -> st.SearchStrategy[ServerFacts]:
    """Anything that may be seen of the server of that name."""
    return st.builds(
        ServerFacts,
        instance_id=st.just(name),
        process=st.sampled_from(Process),
        seen_at=st.floats(0, 200),
        pid=st.none() | st.integers(1, 2**22),
        run_id=st.text("0123456789abcdef", max_size=40),
        role=st.none() | st.sampled_from(Role),
        fenced=st.booleans(),
        epoch=st.integers(0, 10),
        replication_id=st.sampled_from(["", HISTORY, OTHER_HISTORY]),
        offset=st.integers(-1, 50),
        synced_once=st.booleans(),
        upstream=st.none() | upstreams,
        followers=st.lists(followers, max_size=3).map(tuple),
        keys=st.integers(0, 10),
        memory_used=st.integers(0, 2**40),
        memory_max=st.integers(0, 2**40),
        disk_used=st.integers(0, 2**40),
        redis_version=st.sampled_from(["", "6.2.14", "7.0.15"]),
        detail=st.text(max_size=10),
        cluster=st.none() | cluster_facts,
    )


several_facts = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6).flatmap(
    lambda names: st.tuples(*(facts_of(name) for name in names))
)


def instance(name: str, **more: object) -> Instance:
    """One of group `g` on a host of its own."""
    ordered: dict[str, object] = {
        "id": name,
        "group_id": "g",
        "project_id": "demo",
        "name": name,
        "role": Role.REPLICA,
        "status": Status.ACTIVE,
        "flavor_id": "1",
        "volume_gb": 1,
        "version": "7.0",
        "created": 1.0,
        "updated": 1.0,
        "host_id": f"host-{name}",
        "address": Address("10.0.0.1", 7000 + ord(name[-1]) % 100),
    }
    return Instance(**(ordered | more))  # type: ignore[arg-type]


def group(primary_id: str | None = "p", successor_id: str | None = None) -> Group:
    return Group("g", "demo", Secrets("", ""), primary_id, successor_id)

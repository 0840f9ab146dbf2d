"""What may be asked of a cluster, and who its new members are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide import clusters
from redkeep.decide.lifecycle import Allowed, Refusal
from redkeep.decide.rolling import by_shards
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.facts import ClusterFacts, Process, ServerFacts
from redkeep.model.instance import Instance, Status
from redkeep.model.slots import SLOTS, ClusterView, Member, Ranges
from redkeep.model.topology import Address, Role

from .strategies import instance

HERE = Address("10.0.0.1", 7000)


def cluster(**more: object) -> Cluster:
    plain = Cluster("g", "demo", "c", "7.0", ClusterTask.NONE, 1.0, 1.0, formed=True)
    return replace(plain, **more)  # type: ignore[arg-type]


def shards(counts: list[int]) -> list[Instance]:
    """A primary each, and so many replicas."""
    found: list[Instance] = []
    for shard, replicas in enumerate(counts, start=1):
        for at in range(replicas + 1):
            role = Role.REPLICA if at else Role.PRIMARY
            name = f"c-member-{len(found) + 1}"
            found.append(instance(name, shard=str(shard), role=role, node_id=f"{name:>040}", created=float(at)))
    return found


sizes = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@given(sizes, st.integers(1, 5), st.integers(0, 3))
def test_new_shards_have_names_and_labels_that_nobody_had(counts: list[int], more: int, replicas: int) -> None:
    present = shards(counts)
    of = cluster(members_made=len(present), replicas_per_shard=replicas)

    new = clusters.new_shards(of, present, [None] * more)

    names = [one.name for one in new] + [one.name for one in present]
    assert len(set(names)) == len(names)
    assert {one.shard for one in new}.isdisjoint(one.shard for one in present)
    assert Counter((one.shard, one.role) for one in new) == Counter(
        (str(len(counts) + at), role)
        for at in range(1, more + 1)
        for role in (Role.PRIMARY, *[Role.REPLICA] * replicas)
    )
    assert [one.role for one in new[:more]] == [Role.PRIMARY] * more


@given(st.lists(st.integers(1, 12) | st.none(), min_size=1, max_size=8), st.integers(0, 2))
def test_made_up_names_never_come_twice_whatever_names_were_chosen(chosen: list[int | None], replicas: int) -> None:
    """One grow after the other; who was made before is gone again, so that only the count can know of it."""
    of, ever = cluster(replicas_per_shard=replicas), set[str]()
    for number in chosen:
        name = None if number is None else f"c-member-{number}"
        new = clusters.new_shards(of, [], [name])
        made_up = {one.name for one in new if one.name != name}
        assert len({one.name for one in new}) == len(new)
        assert made_up.isdisjoint(ever)
        ever |= made_up
        of = replace(of, members_made=clusters.made_after(of, [one.name for one in new]))


def test_a_name_that_was_chosen_is_passed_over() -> None:
    present = [replace(one, name="c-member-3") if one.name == "c-member-2" else one for one in shards([0, 0])]

    (new,) = clusters.new_shards(cluster(members_made=2), present, [None])

    assert new.name == "c-member-4"


@given(sizes, st.integers(0, 4))
def test_the_replicas_of_every_shard_become_as_many_as_are_wanted(counts: list[int], wanted: int) -> None:
    present = shards(counts)

    new = clusters.new_replicas(cluster(members_made=len(present)), present, wanted)
    gone = clusters.surplus_replicas(present, wanted)

    left = [(one.shard, one.role) for one in present if one.id not in gone] + [(one.shard, one.role) for one in new]
    assert all(Counter(left)[str(n), Role.REPLICA] == wanted for n in range(1, len(counts) + 1))
    assert not any(one.role is Role.PRIMARY for one in present if one.id in gone)
    assert not (new and gone and {one.shard for one in new} & {one.shard for one in present if one.id in gone})


def test_of_surplus_replicas_those_that_are_broken_go_first() -> None:
    present = shards([2])
    broken = [replace(one, status=Status.ERROR) if one.name == "c-member-2" else one for one in present]

    assert clusters.surplus_replicas(present, 1) == ("c-member-3",)
    assert clusters.surplus_replicas(broken, 1) == ("c-member-2",)


@given(sizes, st.data())
def test_whoever_leaves_takes_its_replicas_along_and_somebody_stays(counts: list[int], data: st.DataObject) -> None:
    present = shards(counts)
    asked = data.draw(st.lists(st.sampled_from([one.id for one in present]), min_size=1, unique=True))

    gone = clusters.leaving(present, asked)

    if isinstance(gone, Refusal):
        assert {one.id for one in present if one.role is Role.PRIMARY} <= set(asked)
    else:
        stay = [one for one in present if one.id not in gone]
        led = {one.shard for one in stay if one.role is Role.PRIMARY}
        assert set(asked) <= set(gone)
        assert led
        assert {one.shard for one in stay} == led, "a replica would be left without its primary"


@given(sizes, st.data())
def test_whoever_has_a_part_in_a_slot_leaves_only_when_it_is_drained(counts: list[int], data: st.DataObject) -> None:
    present = shards(counts)
    asked = data.draw(st.lists(st.sampled_from([one.id for one in present]), min_size=1, unique=True))
    slots = data.draw(st.dictionaries(st.sampled_from([one.id for one in present]), st.integers(0, 3)))

    verdict = clusters.may_shrink(cluster(), present, asked, slots, drain=False)
    drained = clusters.may_shrink(cluster(), present, asked, slots, drain=True)

    if isinstance(verdict, Allowed):
        assert not any(slots.get(name) for name in verdict.members)
        assert drained == verdict
    elif isinstance(drained, Allowed):
        assert verdict.kind == "forbidden"
        assert any(slots.get(name) for name in drained.members)


def seen_by(one: Instance, owned: Mapping[str, Ranges], members: list[Instance], **more: object) -> ServerFacts:
    view = ClusterView(tuple(Member(each.node_id or "", HERE, ranges=owned.get(each.id, ())) for each in members))
    said = ClusterFacts(one.node_id or "", state_ok=True, view=view, **more)  # type: ignore[arg-type]
    return ServerFacts(one.id, Process.RUNNING, cluster=said)


def test_a_slot_counts_whoever_sees_it_and_while_it_is_half_way() -> None:
    """One member has not heard yet that the last one gave its slots away, and another is giving it one."""
    present = shards([0, 0, 0])
    first, second, last = present
    late = {first.id: ((0, 99),), last.id: ((100, SLOTS - 1),)}
    news = {first.id: ((0, SLOTS - 1),)}

    nobody = clusters.slots_held(present, {})
    agreed = clusters.slots_held(present, {one.id: seen_by(one, news, present) for one in present})
    one_late = clusters.slots_held(
        present, {first.id: seen_by(first, news, present), second.id: seen_by(second, late, present)}
    )
    half_way = clusters.slots_held(
        present, {first.id: seen_by(first, news, present, migrating=((7, last.node_id or ""),))}
    )

    assert set(nobody.values()) == {0}
    assert agreed == {first.id: SLOTS, second.id: 0, last.id: 0}
    assert one_late[last.id] == SLOTS - 100
    assert half_way[last.id] == 1


@given(st.sampled_from(ClusterTask), st.booleans())
def test_one_thing_at_a_time(task: ClusterTask, formed: bool) -> None:
    verdict = clusters.may_change(cluster(task=task, formed=formed))

    assert isinstance(verdict, Allowed) == (task is ClusterTask.NONE and formed)
    if isinstance(verdict, Refusal):
        assert verdict.kind == "busy"


@given(sizes)
def test_a_roll_goes_shard_by_shard_and_each_primary_is_last(counts: list[int]) -> None:
    present = shards(counts)

    rolled = by_shards(present)

    assert sorted(one.id for shard in rolled for one in shard) == sorted(one.id for one in present)
    for shard in rolled:
        assert len({one.shard for one in shard}) == 1
        assert [one.role for one in shard][-1] is Role.PRIMARY
        assert Role.PRIMARY not in [one.role for one in shard][:-1]

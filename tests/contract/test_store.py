"""What every Store does, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Any

import pytest

from redkeep.errors import Refused, Unavailable
from redkeep.model.backup import Backup, BackupStatus
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.instance import (
    Applied,
    Configuration,
    Event,
    Fault,
    Group,
    Host,
    Instance,
    RedisUser,
    Secrets,
    Status,
)
from redkeep.model.operation import Kind, Operation, State
from redkeep.model.topology import Address, Role
from redkeep.ports import Store


def a_group(group_id: str = "g", **changes: Any) -> Group:
    return replace(Group(id=group_id, project_id="p", secrets=Secrets("a", "r"), primary_id=None), **changes)


def an_instance(instance_id: str = "i", **changes: Any) -> Instance:
    plain = Instance(
        id=instance_id,
        group_id="g",
        project_id="p",
        name=instance_id,
        role=Role.PRIMARY,
        status=Status.ACTIVE,
        flavor_id="1",
        volume_gb=1,
        version="7.0",
        created=1.0,
        updated=1.0,
    )
    return replace(plain, **changes)


def an_operation(operation_id: str = "o", **changes: Any) -> Operation:
    return replace(Operation(id=operation_id, group_id="g", kind=Kind.REPAIR, created=1.0), **changes)


def a_configuration(configuration_id: str = "c", **changes: Any) -> Configuration:
    return replace(Configuration(configuration_id, "p", "fast", "7.0", created=1.0, updated=1.0), **changes)


def a_backup(backup_id: str = "b", **changes: Any) -> Backup:
    return replace(Backup(backup_id, "p", "nightly", "i", "g", "7.0", created=1.0, updated=1.0), **changes)


def a_cluster(cluster_id: str = "g", **changes: Any) -> Cluster:
    return replace(Cluster(cluster_id, "p", "c", "7.0", ClusterTask.BUILDING, created=1.0, updated=1.0), **changes)


async def saved(store: Store, *rows: Group | Instance | Operation | Host | Configuration | Backup | Cluster) -> None:
    async with store.begin() as unit:
        await unit.save(*rows)


async def group_of(store: Store, group_id: str = "g") -> Group:
    async with store.read() as unit:
        group = await unit.group(group_id)
    assert group is not None
    return group


# --- Rows --------------------------------------------------------------------------------------------------------


async def test_what_was_saved_comes_back_unchanged(store: Store) -> None:
    group = a_group(
        primary_id="i",
        successor_id="j",
        topology_epoch=2**40,
        users=(RedisUser("ann 'or' 1=1 --", "00ff"), RedisUser("Żółć 🐘", "", enabled=False)),
        root_enabled=True,
    )
    instance = an_instance(
        host_id="h", address=Address("::1", 6379), fault=Fault('no "disk"', 3.5), replica_of="other", updated=1e9 / 3
    )
    operation = an_operation(
        args={"n": 1, "of": ["x", None, {"y": 0.1}]}, choice={"successor": "i"}, state=State.FAILED, finished=1e9 / 7
    )
    host = Host("h", "10.0.0.1", 6400, 6500, ("6.2", "7.0"), 2**40, 2**41, 2**40, 1e9 / 3, zone="attic")

    await saved(store, group, instance, operation, host)

    async with store.read() as unit:
        assert await unit.group("g") == group
        assert await unit.instance("i") == instance
        assert await unit.operation("o") == operation
        assert await unit.hosts() == [host]


async def test_configurations_and_what_instances_have_of_them_come_back_unchanged(store: Store) -> None:
    values = (("hz", "100"), ("save", ""))
    configuration = a_configuration(values=values, description="for 'Żółć'", updated=1e9 / 3)
    instance = an_instance(configuration_id="c", parameters=values, proven=Applied("b", values[:1]))

    await saved(store, a_group(), configuration, instance, an_instance("j"))

    async with store.begin() as unit:
        assert await unit.configuration("c") == configuration
        assert await unit.configuration("c", lock=True) == configuration
        assert await unit.configuration("nobody") is None
        assert await unit.instance("i") == instance


async def test_configurations_are_found_by_project_and_instances_by_configuration(store: Store) -> None:
    foreign, gone = a_configuration("a", project_id="q"), a_configuration("b", deleted=True)
    with_it, without = an_instance("i", configuration_id="c"), an_instance("j", configuration_id=None)
    deleted = an_instance("k", configuration_id="c", deleted=True)

    await saved(store, a_group(), foreign, gone, a_configuration("d"), a_configuration("c"), with_it, without, deleted)

    async with store.read() as unit:
        assert await unit.configurations("p") == [a_configuration("c"), a_configuration("d")]
        assert await unit.instances(configuration_id="c") == [with_it]
        assert (await unit.configuration("b")) == gone


async def test_backups_come_back_unchanged(store: Store) -> None:
    backup = a_backup(
        description="before 'Żółć'",
        status=BackupStatus.COMPLETED,
        size_bytes=2**41,
        memory_bytes=2**42,
        location="file://h/srv/b",
        member_id="j",
        replication_id="00ff",
        offset=2**50,
        updated=1e9 / 3,
    )

    await saved(store, a_group(), backup, an_instance())

    async with store.begin() as unit:
        assert await unit.backup("b") == backup
        assert await unit.backup("b", lock=True) == backup
        assert await unit.backup("nobody") is None


async def test_backups_are_found_by_what_they_belong_to_oldest_first(store: Store) -> None:
    young, old = a_backup("a", created=2.0), a_backup("b", created=1.0, status=BackupStatus.FAILED)
    other, foreign = a_backup("c", instance_id="j", created=3.0), a_backup("d", project_id="q", created=4.0)
    gone = a_backup("e", status=BackupStatus.DELETED)

    await saved(store, a_group(), young, old, other, foreign, gone)

    async with store.read() as unit:
        assert await unit.backups() == [old, young, other, foreign]
        assert await unit.backups(project_id="p") == [old, young, other]
        assert await unit.backups(project_id="p", instance_id="i") == [old, young]
        assert await unit.backup("e") == gone


async def test_a_backup_without_its_group_is_refused(store: Store) -> None:
    with pytest.raises(Refused) as refused:
        await saved(store, a_backup())

    assert refused.value.kind == "missing"


async def test_clusters_and_their_members_come_back_unchanged(store: Store) -> None:
    cluster = a_cluster(
        task=ClusterTask.SHRINKING_CLUSTER,
        replicas_per_shard=2,
        formed=True,
        members_made=9,
        configuration_id="c",
        fault=Fault("no 'room'", 1e9 / 7),
        updated=1e9 / 3,
    )
    member = an_instance(shard="3", node_id="00ff")

    await saved(store, member, cluster, a_group())

    async with store.begin() as unit:
        assert await unit.cluster("g") == cluster
        assert await unit.cluster("nobody") is None
        assert await unit.instance("i") == member
        found = await unit.whole_group("g", lock=True)
        assert found is not None
        assert found.cluster == cluster


async def test_a_group_that_is_no_cluster_has_none(store: Store) -> None:
    await saved(store, a_group(), an_instance())

    async with store.read() as unit:
        found = await unit.whole_group("g")

    assert found is not None
    assert found.cluster is None


async def test_clusters_are_found_by_project_oldest_first(store: Store) -> None:
    groups = [a_group(name) for name in "abcd"]
    young, old = a_cluster("a", created=2.0), a_cluster("b", created=1.0)
    foreign, gone = a_cluster("c", project_id="q"), a_cluster("d", deleted=True)

    await saved(store, *groups, young, old, foreign, gone)

    async with store.read() as unit:
        assert await unit.clusters("p") == [old, young]
        assert await unit.cluster("d") == gone


async def test_a_cluster_without_its_group_is_refused(store: Store) -> None:
    with pytest.raises(Refused) as refused:
        await saved(store, a_cluster())

    assert refused.value.kind == "missing"


async def test_saving_again_replaces(store: Store) -> None:
    await saved(store, a_group(), an_instance(fault=Fault("broken", 1.0), address=Address("h", 1)))

    await saved(store, a_group(primary_id="i"), an_instance(status=Status.REBOOT))

    async with store.read() as unit:
        assert await unit.group("g") == a_group(primary_id="i")
        assert await unit.instances() == [an_instance(status=Status.REBOOT)]


async def test_what_is_not_there_is_none(store: Store) -> None:
    async with store.read() as unit:
        assert await unit.group("nobody") is None
        assert await unit.instance("nobody") is None
        assert await unit.operation("nobody") is None
        assert await unit.instances(group_id="nobody") == []


async def test_instances_are_found_by_what_they_belong_to_oldest_first(store: Store) -> None:
    young = an_instance("young", created=9.0, host_id="h1")
    old = an_instance("old", created=2.0, host_id="h2")
    foreign = an_instance("foreign", created=5.0, host_id="h1", project_id="q", group_id="g2")
    gone = an_instance("gone", deleted=True, host_id="h1")
    await saved(store, a_group(), a_group("g2"), young, old, foreign, gone)

    async with store.read() as unit:
        assert await unit.instances() == [old, foreign, young]
        assert await unit.instances(project_id="p") == [old, young]
        assert await unit.instances(group_id="g2") == [foreign]
        assert await unit.instances(host_id="h1") == [foreign, young]
        assert await unit.instances(host_id="h1", project_id="p") == [young]
        assert await unit.instance("gone") == gone


async def test_groups_without_a_living_instance_are_left_out(store: Store) -> None:
    await saved(store, a_group("empty"), a_group("dead"), a_group("half"))
    await saved(store, an_instance("a", group_id="dead", deleted=True), an_instance("b", group_id="half", deleted=True))
    await saved(store, an_instance("c", group_id="half"), an_instance("d", group_id="half"))

    async with store.read() as unit:
        assert [group.id for group in await unit.groups()] == ["half"]


async def test_open_operations_are_those_that_still_need_somebody(store: Store) -> None:
    late, early = an_operation("late", created=2.0), an_operation("early", created=1.0, state=State.RUNNING)
    foreign = an_operation("foreign", group_id="g2", created=3.0)
    await saved(store, a_group(), a_group("g2"), late, early, foreign)
    await saved(store, an_operation("done", state=State.DONE), an_operation("failed", state=State.FAILED))

    async with store.read() as unit:
        assert await unit.open_operations() == [early, late, foreign]
        assert await unit.open_operations(group_id="g") == [early, late]


async def test_a_whole_group_is_what_its_parts_are(store: Store) -> None:
    deleted = an_instance("k", deleted=True)
    await saved(store, a_group(), an_instance("j", created=2.0), an_instance("i"), deleted)
    await saved(store, an_operation("o"), an_operation("done", state=State.DONE))
    await saved(store, a_group("h"), an_instance("l", group_id="h"), an_operation("p", group_id="h"))

    async with store.begin() as unit:
        found = await unit.whole_group("g", lock=True)
        assert found is not None
        assert found.group == await unit.group("g")
        assert [one.id for one in found.instances] == ["i", "j"]
        assert [one.id for one in found.operations] == ["o"]
        assert found.now <= await unit.now()
        assert await unit.whole_group("nobody's") is None


async def test_events_come_newest_first(store: Store) -> None:
    events = [Event(float(n), "kind", f"line {n}", group_id=f"g{n % 2}", instance_id="i") for n in range(6)]
    at_the_same_moment = Event(5.0, "kind", "last word", group_id="g1", operation_id="o", actor="ann")
    async with store.begin() as unit:
        await unit.record(*events)
        await unit.record(at_the_same_moment)

    async with store.read() as unit:
        assert await unit.events() == [at_the_same_moment, *reversed(events)]
        assert await unit.events(limit=2) == [at_the_same_moment, events[5]]
        assert await unit.events(instance_id="i", group_id="g0") == [events[4], events[2], events[0]]
        assert all(event.id is not None for event in await unit.events())


async def test_no_two_living_instances_share_an_address(store: Store) -> None:
    here = Address("10.0.0.1", 6400)
    await saved(
        store, a_group(), an_instance("first", address=here), an_instance("nowhere"), an_instance("nowhere too")
    )

    with pytest.raises(Refused) as refused:
        await saved(store, an_instance("second", address=here))

    assert refused.value.kind == "conflict"
    await saved(store, an_instance("neighbour", address=Address("10.0.0.1", 6401)))


async def test_an_address_is_free_again_when_its_instance_is_deleted(store: Store) -> None:
    here = Address("10.0.0.1", 6400)
    await saved(store, a_group(), an_instance("z", address=here))

    await saved(store, an_instance("a", address=here), an_instance("z", address=here, deleted=True))

    async with store.read() as unit:
        assert [instance.id for instance in await unit.instances()] == ["a"]


async def test_an_instance_needs_its_group(store: Store) -> None:
    with pytest.raises(Refused) as refused:
        await saved(store, an_instance(group_id="nobody"))

    assert refused.value.kind == "missing"


# --- Units of work -----------------------------------------------------------------------------------------------


async def test_a_block_that_fails_leaves_nothing(store: Store) -> None:
    async def fail_late() -> None:
        async with store.begin() as unit:
            await unit.save(a_group(), an_instance())
            await unit.record(Event(1.0, "kind", "text"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_late()

    async with store.read() as unit:
        assert await unit.group("g") is None
        assert await unit.events() == []


async def test_an_error_that_was_swallowed_still_ends_the_unit(store: Store) -> None:
    here = Address("10.0.0.1", 6400)
    await saved(store, a_group(), an_instance("first", address=here))

    async def swallow_the_conflict() -> None:
        async with store.begin() as unit:
            await unit.save(a_group("second"))
            with contextlib.suppress(Refused):
                await unit.save(an_instance("second", group_id="second", address=here))

    with pytest.raises(Refused):
        await swallow_the_conflict()

    async with store.read() as unit:
        assert await unit.group("second") is None


async def test_a_block_that_is_cancelled_leaves_nothing_and_nobody_waits_for_it(store: Store) -> None:
    saving = asyncio.Event()

    async def work_for_ever() -> None:
        async with store.begin() as unit:
            await unit.save(a_group())
            saving.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work_for_ever())
    await saving.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await saved(store, a_group("next"))
    async with store.read() as unit:
        assert await unit.group("g") is None


async def test_a_statement_that_is_cut_short_breaks_its_unit(store: Store) -> None:
    async def lose_patience() -> None:
        async with store.begin() as unit:
            await unit.save(a_group("other"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0):
                    await unit.group("g", lock=True)

    with pytest.raises(Unavailable):
        await lose_patience()

    async with store.read() as unit:
        assert await unit.group("other") is None


async def test_a_reader_sees_one_state_and_never_waits(store: Store) -> None:
    await saved(store, a_group())

    async with store.read() as reader:
        before = await reader.group("g")
        async with store.begin() as writer:
            await writer.save(a_group(primary_id="i"), an_instance())
            assert await reader.group("g") == before
        assert await reader.group("g") == before
        assert await reader.instances() == []

    assert (await group_of(store)).primary_id == "i"


async def test_a_reader_cannot_write(store: Store) -> None:
    async with store.read() as unit:
        with pytest.raises(RuntimeError):
            await unit.save(a_group())
        with pytest.raises(RuntimeError):
            await unit.group("g", lock=True)


async def test_tasks_that_lock_a_group_take_turns(store: Store) -> None:
    await saved(store, a_group())

    async def raise_by_one() -> None:
        async with store.begin() as unit:
            group = await unit.group("g", lock=True)
            assert group is not None
            await asyncio.sleep(0)
            await unit.save(replace(group, topology_epoch=group.topology_epoch + 1))

    await asyncio.gather(*(raise_by_one() for _ in range(25)))

    assert (await group_of(store)).topology_epoch == 25


async def test_the_clock_is_of_this_century_and_goes_on_inside_a_unit(store: Store) -> None:
    async with store.begin() as unit:
        first = await unit.now()
        while await unit.now() <= first:
            pass

    assert first == pytest.approx(time.time(), abs=5.0)


# --- Leases ------------------------------------------------------------------------------------------------------


async def test_a_free_lease_is_taken_and_raises_the_epoch(store: Store) -> None:
    await saved(store, a_group())

    claimed = await store.claim("g", "m1", 60.0)

    assert claimed is not None
    assert (claimed.epoch, claimed.holder) == (1, "m1")
    assert claimed == await group_of(store)
    async with store.read() as unit:
        assert 55.0 < claimed.lease_until - await unit.now() <= 60.0


async def test_a_lease_that_is_held_is_nobody_elses(store: Store) -> None:
    await saved(store, a_group())
    claimed = await store.claim("g", "m1", 60.0)

    assert await store.claim("g", "m2", 60.0) is None
    assert await group_of(store) == claimed


async def test_the_holder_may_claim_again_at_a_higher_epoch(store: Store) -> None:
    await saved(store, a_group())
    await store.claim("g", "m1", 60.0)

    again = await store.claim("g", "m1", 60.0)

    assert again is not None
    assert again.epoch == 2
    assert not await store.renew("g", "m1", 1, 60.0)
    assert await store.renew("g", "m1", 2, 60.0)


async def test_a_lease_that_is_over_can_be_taken(store: Store) -> None:
    await saved(store, a_group())
    await store.claim("g", "m1", 0.0)

    taken = await store.claim("g", "m2", 60.0)

    assert taken is not None
    assert (taken.epoch, taken.holder) == (2, "m2")
    assert not await store.renew("g", "m1", 1, 60.0)
    await store.release("g", "m1", 1)
    assert await group_of(store) == taken


async def test_a_lease_that_is_over_is_not_renewed_even_if_nobody_took_it(store: Store) -> None:
    await saved(store, a_group())
    await store.claim("g", "m1", 0.0)

    assert not await store.renew("g", "m1", 1, 60.0)


async def test_renewing_moves_the_end(store: Store) -> None:
    await saved(store, a_group())
    claimed = await store.claim("g", "m1", 10.0)
    assert claimed is not None

    assert await store.renew("g", "m1", 1, 60.0)

    renewed = await group_of(store)
    assert renewed.lease_until > claimed.lease_until + 40.0
    assert renewed.epoch == 1


async def test_a_lease_that_was_given_back_is_free_and_its_epoch_stays_used(store: Store) -> None:
    await saved(store, a_group())
    await store.claim("g", "m1", 60.0)

    await store.release("g", "m1", 1)

    assert await group_of(store) == a_group(epoch=1)
    taken = await store.claim("g", "m2", 60.0)
    assert taken is not None
    assert taken.epoch == 2


async def test_of_many_claimers_at_once_exactly_one_wins(store: Store) -> None:
    await saved(store, a_group())

    answers = await asyncio.gather(*(store.claim("g", f"m{n}", 60.0) for n in range(12)))

    winners = [group for group in answers if group]
    assert len(winners) == 1
    assert winners[0].epoch == 1
    assert winners == [await group_of(store)]


async def test_epochs_strictly_rise_whoever_claims(store: Store) -> None:
    await saved(store, a_group())

    answers = await asyncio.gather(*(store.claim("g", f"m{n % 3}", 0.0) for n in range(12)))

    assert sorted(group.epoch for group in answers if group) == list(range(1, 13))


async def test_saving_a_group_that_was_read_before_a_claim_leaves_the_lease_alone(store: Store) -> None:
    await saved(store, a_group())
    stale = await group_of(store)
    claimed = await store.claim("g", "m1", 60.0)
    assert claimed is not None

    await saved(store, replace(stale, primary_id="i"))

    assert await group_of(store) == replace(claimed, primary_id="i")


async def test_a_group_that_is_not_there_cannot_be_claimed(store: Store) -> None:
    assert await store.claim("nobody", "m1", 60.0) is None
    assert not await store.renew("nobody", "m1", 1, 60.0)
    await store.release("nobody", "m1", 1)


async def test_what_is_old_is_forgotten_and_what_is_open_is_not(store: Store) -> None:
    async with store.begin() as tx:
        await tx.save(
            a_group("g"),
            replace(an_operation("old"), created=10.0, state=State.DONE, finished=20.0),
            replace(an_operation("open"), created=10.0, state=State.RUNNING, finished=None),
        )
        await tx.record(
            *(Event(at=at, kind="k", text=text, group_id="g") for at, text in ((10.0, "old"), (90.0, "new")))
        )
        pruned = await tx.prune(before=50.0)

    async with store.read() as tx:
        assert pruned == 2
        assert await tx.operation("old") is None
        assert await tx.operation("open") is not None
        assert [event.text for event in await tx.events(group_id="g")] == ["new"]


async def test_a_switch_is_off_until_it_is_set(store: Store) -> None:
    async with store.begin() as tx:
        before = await tx.switch("failover-paused")
        await tx.set_switch("failover-paused", True)

    async with store.read() as tx:
        after = await tx.switch("failover-paused")
    async with store.begin() as tx:
        await tx.set_switch("failover-paused", False)
        again = await tx.switch("failover-paused")

    assert (before, after, again) == (False, True, False)

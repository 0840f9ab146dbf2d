"""What is known to go wrong with active/active managers (contract of the block storage API, section 6), each by its
name there; and faults 41 and 43."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.ways.site_scene import CLUSTER, TARGETS, Deaf, Scene, dies_at, scene

from redkeep.backends.base import BaseDriver
from redkeep.errors import NotNow, Refused
from redkeep.model.instance import Group, Host, Instance, Secrets, Status
from redkeep.model.site import Backend, ReplicationStatus
from redkeep.model.topology import Role
from redkeep.news import SITES, SiteNews, encode_news
from redkeep.operations.fail_over_site import STEPS

S = ReplicationStatus


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as found:
        yield found


def refuses(told: str, error: Exception, *, who: str = "", times: int = 10**6) -> Any:
    """Trouble of a fake storage: a driver raises this when it is told that, the first so many times."""
    left = [times]

    def trouble(manager: str, what: str) -> None:
        if what == told and who in ("", manager) and left[0] > 0:
            left[0] -= 1
            raise error

    return trouble


# --- The way it should go -------------------------------------------------------------------------------------------


async def test_the_storage_is_moved_once_and_every_manager_follows(site: Scene) -> None:
    await site.start_all("m1", "m2", "m3")

    await site.ask("dr1")
    await site.settled("dr1")
    await site.ask("dr2")
    await site.settled("dr2")
    await site.ask("default")
    await site.settled("default")

    assert site.storage.moves == ["dr1", "dr2", "default"]
    assert [site.storage.count(f"failover {target}") for target in ("dr1", "dr2", "default")] == [1, 1, 1]
    assert [site.storage.count(f"completed {target}") for target in ("dr1", "dr2", "default")] == [3, 3, 3]
    assert (await site.cluster()).active_backend_id == ""


async def test_without_a_target_it_is_the_first_that_is_not_active(site: Scene) -> None:
    await site.start("m1")

    await site.ask(None)
    await site.settled("dr1")
    await site.ask(None)
    await site.settled("dr2")


async def test_a_manager_that_is_alone_does_both_halves_in_one(site: Scene) -> None:
    await site.start("lone", cluster="")

    answer = await site.put("failover_host", host="lone@redis", backend_id="dr1")

    async def there() -> bool:
        return (await site.cluster("lone@redis")).replication_status is S.FAILED_OVER

    await site.eventually(there, "failed-over")
    assert answer.status_code == 202
    assert site.storage.told == [("lone", "failover dr1"), ("lone", "completed dr1")]
    assert (await site.services())["lone"].active_backend_id == "dr1"


@pytest.mark.parametrize(("silent_for", "forced"), [(0.0, False), (3600.0, True)])
async def test_unless_told_it_is_forced_only_when_nobody_answers_at_the_old_site(
    site: Scene, silent_for: float, forced: bool
) -> None:
    async with site.store.begin() as tx:
        seen = await tx.now() - silent_for
        await tx.save(Host("h1", "10.0.0.1", 7000, 7999, ("7.0",), 1, 1, 1, seen, site="default"))
    await site.start("m1")

    await site.ask("dr1")
    await site.settled("dr1")

    failover = (await site.cluster()).failover
    assert failover is not None
    assert failover.forced is forced


# --- G1 to G21 ------------------------------------------------------------------------------------------------------


async def test_g1_a_member_that_was_down_learns_at_its_start_where_the_cluster_is(site: Scene) -> None:
    await site.start_all("m1", "m2", "m3")
    await site.members["m3"].kill()
    await site.ask("dr1")
    await site.settled("dr1", "m1", "m2")
    told = len(site.storage.told)

    await site.start("m3")

    assert site.storage.drivers["m3"].site == "dr1"
    await site.settled("dr1")
    assert len(site.storage.told) == told, "its driver was made for dr1, and has nothing to follow"


@pytest.mark.parametrize("status", [S.FAILED_OVER, S.FAILING_OVER, S.FAILOVER_ERROR, S.ERROR])
async def test_g2_g3_g4_no_start_changes_what_a_failover_left(site: Scene, status: S) -> None:
    await site.start("m1")
    await site.members["m1"].kill()
    async with site.store.begin() as tx:
        row = await tx.service_cluster(CLUSTER, lock=True)
        assert row is not None
        await tx.save(
            replace(row, replication_status=status, active_backend_id="dr1", epoch=3, disabled=True),
        )
    # Somebody else works on it, if anybody does.
    await site.store.claim_cluster(CLUSTER, "somebody", 3600.0)
    before = await site.cluster()

    await site.start_all("m1", "m2")
    after = await site.cluster()
    answer = await site.put("failover", cluster=CLUSTER, backend_id="dr2")

    assert after == before
    assert (answer.status_code == 400) == (status is S.FAILING_OVER)
    assert {one.active_backend_id for one in (await site.services()).values()} == {"dr1"}
    assert site.storage.moves == []


async def test_g3_a_second_failover_waits_for_the_end_of_the_first_whoever_restarts(site: Scene) -> None:
    site.storage.hold = asyncio.Event()
    await site.start_all("m1", "m2")
    await site.ask("dr1")

    async def begun() -> bool:
        return site.storage.count("failover dr1") == 1

    await site.eventually(begun, "the driver's call")
    worker = site.storage.told[-1][0]
    idle = "m2" if worker == "m1" else "m1"
    await site.restart(idle)
    second = await site.put("failover", cluster=CLUSTER, backend_id="dr2")
    site.storage.hold.set()
    await site.settled("dr1")

    assert second.status_code == 400
    assert site.storage.moves == ["dr1"]


async def test_g4_an_error_stays_until_somebody_asks_again(site: Scene) -> None:
    await site.start_all("m1", "m2")
    site.storage.trouble = refuses("failover dr1", RuntimeError("the array is on fire"), times=1)
    await site.ask("dr1")
    await site.until("failover-error")
    await site.restart("m1")
    await site.restart("m2")
    stays = await site.shown()

    await site.ask("dr1")
    await site.settled("dr1")

    assert (stays["replication_status"], stays["status"]) == ("failover-error", "disabled")
    assert "the array is on fire" in stays["redkeep:failover"]["error"]
    audit = (await site.http.get("/v1.0/admin/events")).json()["events"]
    texts = [(event["actor"], event["text"]) for event in audit]
    assert ("admin", f"{CLUSTER} is to fail over to dr1; it was failover-error") in texts
    assert [text for _, text in texts if "the array is on fire" in text]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(TimeoutError("the array hung up"), "TimeoutError: the array hung up"), (OSError("gone"), "gone")],
)
async def test_g4_what_a_driver_raises_is_told_as_it_is(site: Scene, error: Exception, reason: str) -> None:
    await site.start("m1")
    site.storage.trouble = refuses("failover dr1", error)

    await site.ask("dr1")
    await site.until("failover-error")

    assert reason in (await site.shown())["redkeep:failover"]["error"]


async def test_g5_fault_41_when_the_doer_dies_another_one_finishes(site: Scene) -> None:
    dead = asyncio.Event()
    doer = await site.start("m1", dies_at("record", dead))
    await site.ask("dr1")
    await asyncio.wait_for(dead.wait(), 60)
    await doer.kill()

    await site.start("m2")
    await site.settled("dr1", "m2")

    assert site.storage.moves == ["dr1"], "the second call of the driver found it done"
    assert site.storage.count("failover dr1") == 2


async def test_g5_a_failover_that_nobody_finishes_ends_in_an_error_by_its_deadline(site: Scene) -> None:
    site.storage.hold = asyncio.Event()
    await site.start("m1")
    await site.ask("dr1")
    async with site.store.begin() as tx:
        row = await tx.service_cluster(CLUSTER, lock=True)
        assert row is not None
        assert row.failover is not None
        await tx.save(replace(row, failover=replace(row.failover, deadline=await tx.now())))
    await site.restart("m1")

    await site.until("failover-error")

    assert "not done in time" in (await site.shown())["redkeep:failover"]["error"]


async def test_g5_a_failover_of_which_managers_die_is_given_up(site: Scene) -> None:
    for attempt in range(6):
        dead = asyncio.Event()
        doer = await site.start("m1", dies_at("record", dead))
        if attempt == 0:
            await site.ask("dr1")
        waiting = asyncio.create_task(dead.wait())
        erring = asyncio.create_task(site.until("failover-error"))
        await asyncio.wait({waiting, erring}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        for one in (waiting, erring):
            one.cancel()
        await doer.kill()

    assert (await site.cluster()).replication_status is S.FAILOVER_ERROR
    assert site.storage.count("failover dr1") == 5


async def test_g6_late_doubled_and_foreign_messages_change_nothing(site: Scene) -> None:
    await site.start_all("m1", "m2")
    await site.ask("dr1")
    await site.settled("dr1")
    await site.ask("dr2")
    await site.settled("dr2")
    before = await site.cluster(), await site.services()
    told = list(site.storage.told)

    bus = site.members["m1"].bus
    for news in (
        encode_news(SiteNews(CLUSTER, 1, "dr1", "an old one", "failed-over")),
        encode_news(SiteNews(CLUSTER, 99, "dr1")),
        encode_news(SiteNews("others@slow", 5, "dr1")),
        {"object": "SiteNews", "version": "2.0", "data": {"all": "is new"}},
        {"what": "is this"},
    ):
        for _ in range(3):
            await bus.publish(SITES, news)
    await asyncio.sleep(0.5)

    after = await site.services()
    same = {name: replace(one, heartbeat_at=before[1][name].heartbeat_at) for name, one in after.items()}
    assert (await site.cluster(), same) == before
    assert site.storage.told == told


async def test_g7_nobody_follows_anywhere_after_a_failure(site: Scene) -> None:
    await site.start_all("m1", "m2")
    site.storage.trouble = refuses("failover dr1", RuntimeError("no"))

    await site.ask("dr1")
    await site.until("failover-error")
    await asyncio.sleep(0.3)

    assert not [what for _, what in site.storage.told if what.startswith("completed")]
    assert {driver.site for driver in site.storage.drivers.values()} == {"default"}
    assert {one.replication_status for one in (await site.services()).values()} == {S.FAILOVER_ERROR}


async def test_g8_drivers_hear_one_word_for_the_default_site_in_both_halves_and_at_their_start(site: Scene) -> None:
    await site.start_all("m1", "m2")
    await site.ask("dr1")
    await site.settled("dr1")
    await site.ask("default")
    await site.settled("default")
    await site.restart("m1")

    targets = {what.partition(" ")[2] for _, what in site.storage.told}
    assert targets == {"dr1", "default"}
    assert site.storage.drivers["m1"].site == "default"


async def test_g9_g21_instances_are_not_touched_before_or_after_and_read_in_two_queries(site: Scene) -> None:
    rows: list[Group | Instance] = []
    for n in range(300):
        rows.append(Group(f"g{n}", "p", Secrets("a", "r"), f"i{n}"))
        names = (f"i{n}", Role.PRIMARY, "default"), (f"r{n}", Role.REPLICA, "oslo" if n % 2 else "default")
        rows += [Instance(i, f"g{n}", "p", i, r, Status.ACTIVE, "1", 1, "7.0", n, n, site=at) for i, r, at in names]
    async with site.store.begin() as tx:
        await tx.save(*rows)
    await site.start("m1")
    typo = await site.put("failover", cluster=CLUSTER, backend_id="typo")

    await site.ask("dr1")
    await site.settled("dr1")

    async with site.store.read() as tx:
        after: list[Group | Instance] = [*await tx.groups(), *await tx.instances()]
    assert sorted(after, key=lambda row: row.id) == sorted(rows, key=lambda row: row.id)
    assert typo.status_code == 400
    told = (await site.shown())["redkeep:failover"]
    assert (told["volumes"], len(told["volume_updates"])) == (300, 150)
    assert told["volume_updates"][0]["detail"] == "it has no copy there"


async def test_g10_a_freeze_and_a_thaw_are_everybodys_and_survive_restarts(site: Scene) -> None:
    await site.start_all("m1", "m2", "m3")
    await site.members["m3"].kill()

    assert (await site.put("freeze", cluster=CLUSTER)).status_code == 200
    frozen = await site.services()
    await site.start("m3")
    await site.restart("m1")
    restarted = await site.cluster(), await site.services()
    assert (await site.put("thaw", host="m2@redis")).status_code == 200
    thawed = await site.cluster(), await site.services()

    assert {(one.frozen, one.disabled, one.disabled_reason) for one in frozen.values()} == {(True, True, "frozen")}
    assert restarted[0].frozen
    assert {one.frozen for one in restarted[1].values()} == {True}
    assert site.storage.drivers["m3"].frozen
    assert (thawed[0].frozen, thawed[0].disabled) == (False, False)
    assert {(one.frozen, one.disabled) for one in thawed[1].values()} == {(False, False)}
    assert site.storage.count("thaw") == 1


async def test_g10_fault_43_frozen_failed_over_failed_back_and_thawed_all_is_as_before(site: Scene) -> None:
    await site.start_all("m1", "m2")
    await site.put("freeze", cluster=CLUSTER)

    await site.ask("dr1")
    await site.settled("dr1")
    await site.ask("default")
    await site.settled("default")
    between = await site.cluster()
    await site.put("thaw", cluster=CLUSTER)

    after = await site.cluster()
    assert (between.frozen, between.disabled, between.disabled_reason) == (True, True, "frozen")
    assert (after.frozen, after.disabled, after.disabled_reason) == (False, False, "")
    assert {one.disabled for one in (await site.services()).values()} == {False}


async def test_g11_a_thaw_that_fails_is_an_error_and_leaves_it_frozen_and_can_be_repeated(site: Scene) -> None:
    await site.start_all("m1", "m2")
    await site.put("freeze", cluster=CLUSTER)
    site.storage.trouble = refuses("thaw", RuntimeError("still cold"), times=1)

    refused = await site.put("thaw", cluster=CLUSTER)
    frozen = (await site.cluster()).frozen
    again = await site.put("thaw", cluster=CLUSTER)

    assert refused.status_code == 400
    assert "still cold" in refused.json()["badRequest"]["message"]
    assert frozen
    assert again.status_code == 200
    assert not (await site.cluster()).frozen


async def test_g13_writing_to_the_rows_of_a_dead_cluster_does_not_make_it_look_alive(site: Scene) -> None:
    await site.start("m1")
    await site.members["m1"].kill()
    async with site.store.begin() as tx:
        (row,) = await tx.services()
        await tx.remove_service(row.id, row.incarnation)
        await tx.add(replace(row, heartbeat_at=await tx.now() - 61.0))

    await site.put("freeze", cluster=CLUSTER)
    await site.http.put("/v3/os-services/disable", json={"host": "m1@redis", "binary": "cinder-volume"})
    answer = await site.put("failover", cluster=CLUSTER, backend_id="dr1")

    assert answer.status_code == 400
    assert "must be up" in answer.text
    assert (await site.shown())["state"] == "down"
    assert (await site.cluster()).replication_status is S.ENABLED


async def test_g16_text_that_says_what_was_asked(site: Scene) -> None:
    await site.start("m1")

    answer = await site.put("thaw", cluster=CLUSTER)

    assert "must be True to thaw" in answer.text
    assert "failover" not in answer.text


async def test_g17_a_member_that_cannot_follow_is_seen_tried_again_and_comes_clean(site: Scene) -> None:
    site.storage.trouble = refuses("completed dr1", RuntimeError("no route"), who="m2", times=3)
    await site.start_all("m1", "m2", follow_pause=0.3)

    await site.ask("dr1")

    async def failed() -> bool:
        return (await site.services())["m2"].fault is not None

    await site.eventually(failed, "the fault of m2")
    shown = await site.shown()
    await site.settled("dr1")
    row = (await site.services())["m2"]

    assert shown["replication_status"] == "failed-over"
    assert "m2@redis" in shown["redkeep:failover"]["missing"]
    assert "no route" in shown["redkeep:failover"]["failed"]["m2@redis"]
    assert (row.fault, row.disabled_reason) == (None, "failed-over")
    assert site.storage.count("completed dr1") == 5


async def test_g18_who_has_not_followed_is_named_whether_up_or_down(site: Scene) -> None:
    names = [f"m{n}" for n in range(1, 7)]
    await site.start_all(*names)
    await site.members["m6"].kill()

    await site.ask("dr1")
    await site.settled("dr1", *names[:5])
    status = (await site.http.get("/v1.0/admin/status")).json()["backends"]
    before = (await site.shown())["redkeep:failover"]
    await site.start("m6")
    await site.settled("dr1")

    assert (before["followed"], before["members"], before["missing"]) == (5, 6, ["m6@redis"])
    assert "5 of 6 managers have followed" in status[0]
    assert (await site.shown())["redkeep:failover"]["followed"] == 6


async def test_g18_a_host_that_is_down_may_be_named_and_the_others_do_it(site: Scene) -> None:
    await site.start_all("m1", "m2")
    await site.members["m2"].kill()

    answer = await site.put("failover", host="m2@redis", backend_id="dr1")

    assert answer.status_code == 202
    await site.settled("dr1", "m1")


async def test_g19_whoever_looks_at_whatever_moment_sees_rows_that_agree(site: Scene) -> None:
    await site.start_all("m1", "m2", "m3")
    seen: set[tuple[str, ...]] = set()

    async def look() -> None:
        while True:
            async with site.store.read() as tx:
                cluster, members = await tx.service_cluster(CLUSTER), await tx.services()
            assert cluster is not None
            states = {one.replication_status for one in members}
            seen.add((cluster.replication_status, *sorted(states)))
            if cluster.replication_status is S.FAILING_OVER:
                assert states == {S.FAILING_OVER}
            for one in members:
                there = one.applied_epoch == cluster.epoch
                assert one.replication_status is (cluster.replication_status if there else S.FAILING_OVER)
                assert not there or one.active_backend_id == cluster.active_backend_id
            assert {one.frozen for one in members} == {cluster.frozen}
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    for target in ("dr1", "dr2", "default"):
        await site.ask(target)
        await site.put("freeze", cluster=CLUSTER)
        await site.settled(target)
        await site.put("thaw", cluster=CLUSTER)
    assert not looking.done() or looking.result()
    looking.cancel()

    assert len(seen) > 3


async def test_g20_another_backends_cluster_of_the_same_name_is_another_one(site: Scene) -> None:
    await site.start("m1")
    await site.start("other", backend=Backend(name="slow", targets=TARGETS))

    answers = [await site.put("failover", cluster="managers", backend_id="dr1")]
    await site.ask("dr1")
    await site.settled("dr1", "m1")

    assert [answer.status_code for answer in answers] == [400]
    assert (await site.cluster("managers@slow")).replication_status is S.ENABLED
    assert site.storage.drivers["other"].site == "default"


# --- Lost messages, refusals, leases --------------------------------------------------------------------------------


async def test_a_cluster_whose_messages_are_all_lost_fails_over_and_follows(site: Scene) -> None:
    await site.start_all("m1", "m2", "m3", bus=Deaf)

    await site.ask("dr1")
    await site.settled("dr1")


async def test_what_a_driver_refuses_leaves_everything_as_it_was_and_says_why(site: Scene) -> None:
    await site.start_all("m1", "m2")
    await site.ask("dr1")
    await site.settled("dr1")
    site.storage.trouble = refuses("failover default", Refused("not resynchronised yet: 3 MB to go"))

    await site.ask("default")
    await site.settled("dr1")

    shown = await site.shown()
    assert (shown["replication_status"], shown["active_backend_id"]) == ("failed-over", "dr1")
    assert shown["redkeep:failover"]["error"] == "not resynchronised yet: 3 MB to go"
    assert {one.replication_status for one in (await site.services()).values()} == {S.FAILED_OVER}


async def test_what_may_pass_is_tried_again_and_costs_no_attempt(site: Scene) -> None:
    await site.start("m1")
    site.storage.trouble = refuses("failover dr1", NotNow("busy"), times=2)

    await site.ask("dr1")
    await site.settled("dr1")

    failover = (await site.cluster()).failover
    assert failover is not None
    assert failover.attempts == 1
    assert site.storage.count("failover dr1") == 3


async def test_g14_a_doer_that_lost_its_lease_writes_nothing(site: Scene) -> None:
    """Each write is made on a condition that is checked. It sleeps through its lease, as a machine that is suspended:
    another one finishes, the sleeper finds that out."""
    site.storage.hold = asyncio.Event()
    sleeper = await site.start("m1", lease_seconds=30.0)
    await site.ask("dr1")

    async def begun() -> bool:
        return site.storage.count("failover dr1") == 1

    await site.eventually(begun, "the driver's call")
    async with site.store.begin() as tx:
        row = await tx.service_cluster(CLUSTER)
        assert row is not None
        await tx.release_cluster(CLUSTER, "m1@redis", row.lease_epoch)
    taken = await site.store.claim_cluster(CLUSTER, "m9@redis", 3600.0)
    site.storage.hold.set()
    await asyncio.wait_for(asyncio.gather(sleeper.membership._worker or asyncio.sleep(0), return_exceptions=True), 60)

    row = await site.cluster()
    assert taken is not None
    assert (row.replication_status, row.epoch, row.holder) == (S.FAILING_OVER, 0, "m9@redis")


async def test_what_hangs_in_order_because_the_old_site_was_lost_meanwhile_can_be_forced(site: Scene) -> None:
    site.storage.hold = asyncio.Event()
    await site.start("m1")
    await site.ask("dr1", forced=False)

    async def begun() -> bool:
        return site.storage.count("failover dr1") == 1

    await site.eventually(begun, "the driver's call")
    other = await site.put("failover", cluster=CLUSTER, backend_id="dr2", forced=True)
    await site.ask("dr1", forced=True)

    async def again() -> bool:
        return site.storage.count("failover dr1") == 2

    await site.eventually(again, "the forced call of the driver")
    site.storage.hold.set()
    await site.settled("dr1")

    failover = (await site.cluster()).failover
    assert other.status_code == 400
    assert failover is not None
    assert failover.forced
    assert failover.attempts == 1


async def test_progress_of_the_storage_is_seen_while_it_goes_on(site: Scene) -> None:
    site.storage.hold = asyncio.Event()
    await site.start("m1")
    await site.ask("dr1")

    async def half() -> bool:
        shown = (await site.shown())["redkeep:failover"]
        return (shown["step"], shown["progress"], shown["worked_on_by"]) == ("fail over", 0.5, "m1@redis")

    await site.eventually(half, "half of it")
    site.storage.hold.set()
    await site.settled("dr1")
    assert (await site.shown())["redkeep:failover"]["progress"] == 1.0


# --- Registering ----------------------------------------------------------------------------------------------------


async def test_many_that_start_at_once_form_one_cluster(site: Scene) -> None:
    await asyncio.gather(*(site.start(f"m{n}") for n in range(8)))

    async with site.store.read() as tx:
        clusters = await tx.service_clusters()
    assert [one.id for one in clusters] == [CLUSTER]
    assert clusters[0].targets == ("dr1", "dr2")
    assert clusters[0].replication_status is S.ENABLED
    assert len(await site.services()) == 8


async def test_a_manager_shows_that_it_lives_and_after_its_death_it_does_not(site: Scene) -> None:
    await site.start("m1")
    first = (await site.services())["m1"].heartbeat_at

    async def later() -> bool:
        return (await site.services())["m1"].heartbeat_at > first

    await site.eventually(later, "a sign of life")
    await site.members["m1"].kill()
    last = (await site.services())["m1"]
    await asyncio.sleep(0.6)

    assert (await site.services())["m1"] == last


async def test_two_that_have_one_name_do_not_hide_each_other(site: Scene) -> None:
    elder = await site.start("m1")
    del site.members["m1"]
    await site.start("m1")

    async def two() -> bool:
        return len(await site.services()) == 2

    await site.eventually(two, "the elder's new name")
    site.members["elder"] = elder
    await site.ask("dr1")

    async def followed() -> bool:
        return {one.applied_epoch for one in (await site.services()).values()} == {1}

    await site.eventually(followed, "that both have followed")


class NoHalves(BaseDriver):
    """A vendor's driver from before the two halves: it can be used by many, and fails over in one piece."""

    SUPPORTS_ACTIVE_ACTIVE = True

    async def failover_host(self, *_: Any, **__: Any) -> Any: ...


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        ({"lacks": "active/active"}, "Active-Active configuration is not currently supported by driver Driver."),
        ({"lacks": "active/active", "cluster": ""}, None),
        ({"make": NoHalves}, "Driver doesn't support clustered replication."),
        ({"make": NoHalves, "cluster": ""}, None),
        ({"make": NoHalves, "backend": Backend()}, None),
        ({"make": BaseDriver, "cluster": ""}, "Driver BaseDriver doesn't support replication."),
    ],
)
async def test_a_manager_does_not_start_with_a_driver_that_cannot(
    site: Scene, more: dict[str, Any], refusal: str | None
) -> None:
    if more.pop("lacks", ""):
        more["make"] = site.storage.driver_class(active_active=False)

    if refusal is None:
        await site.start("m1", **more)
    else:
        with pytest.raises(Refused, match=refusal.replace(".", r"\.")):
            await site.start("m1", **more)
        assert await site.services() == {}
        del site.members["m1"]


# --- Releases next to each other ------------------------------------------------------------------------------------


@pytest.mark.parametrize("doer", ["old", "new"])
async def test_managers_of_neighbouring_releases_fail_over_together(site: Scene, doer: str) -> None:
    """A rolling upgrade: N-1 writes and reads messages of version 1.0, N of 1.1; whoever works, both hear of it."""
    slow = {"look_interval": 120.0}  # so that what is heard is what makes them look
    order = ("old", "new") if doer == "old" else ("new", "old")
    spoken = {"old": {"reads": "1.0", "release": "0.0.9"}, "new": {}}
    for name in order:
        more: dict[str, Any] = {**slow, **spoken[name]}
        await site.start(name, **more)
    await asyncio.sleep(0.2)
    started = time.monotonic()

    await site.ask("dr1")
    await site.settled("dr1")

    assert time.monotonic() - started < 60
    assert {one.release for one in (await site.services()).values()} >= {"0.0.9"}


@pytest.mark.parametrize("step", STEPS)
async def test_an_older_release_takes_over_from_a_newer_one_and_back(tmp_path: Path, step: str) -> None:
    async with scene(tmp_path) as site:
        dead = asyncio.Event()
        newer = await site.start("new", dies_at(step, dead))
        await site.ask("dr1")
        await asyncio.wait_for(dead.wait(), 60)
        await newer.kill()

        await site.start("old", reads="1.0", release="0.0.9")
        await site.settled("dr1", "old")
        await site.start("new")
        await site.settled("dr1")

        assert site.storage.moves == ["dr1"]

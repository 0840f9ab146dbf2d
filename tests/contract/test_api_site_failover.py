"""/v3: failover, failover_host, freeze and thaw: sections 3.3 and 3.4 of the contract with our choices (section 8), and
what a freeze does to the database API. There is no manager behind it, but somebody who answers for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.api_world import World, fault, world
from tests.contract.site_rows import a_team, cluster_row, service_rows

from redkeep.errors import Refused
from redkeep.model.site import ReplicationStatus, Service, ServiceCluster
from redkeep.news import SITES, decode_news, members_name
from redkeep.northbound.memory import MemoryBus

S = ReplicationStatus
CLUSTER = "managers@redis"


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, hook_wait_seconds=5.0) as found:
        yield found


async def ask(keep: World, verb: str, body: Any, version: str | None = "3.26") -> httpx.Response:
    headers = {"OpenStack-API-Version": f"volume {version}"} if version else {}
    return await keep.http.put(f"/v3/demo/os-services/{verb}", json=body, headers=headers)


@contextlib.asynccontextmanager
async def a_member(keep: World, answer: Mapping[str, Any] | Exception) -> AsyncIterator[list[bool]]:
    """Somebody who serves for the cluster's members; what they were asked."""
    asked: list[bool] = []

    async def handle(body: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append(body["data"]["frozen"])
        if isinstance(answer, Exception):
            raise answer
        return answer

    bus = MemoryBus(keep.bus.exchange, name="member")
    serving = asyncio.create_task(bus.serve(members_name(CLUSTER), handle))
    yield asked
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await bus.close()


# --- failover and failover_host -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "body", "version"),
    [
        ("failover", {"cluster": "managers@redis", "backend_id": "dr1"}, "3.26"),
        ("failover", {"cluster": "managers", "backend_id": "dr1"}, "3.26"),
        ("failover", {"host": "m2@redis", "backend_id": "dr1"}, "3.26"),
        ("failover", {"host": "m2", "backend_id": "dr1"}, "3.26"),
        ("failover", {"host": None, "cluster": "managers", "backend_id": "dr1"}, "3.26"),
        ("failover", {"host": "m1@redis", "cluster": "", "backend_id": "dr1"}, "latest"),
        ("failover", {"host": "m1@redis", "backend_id": "dr1"}, None),
        ("failover", {"host": "m1@redis"}, "3.26"),
        ("failover", {"host": "m1@redis", "backend_id": None}, "3.26"),
        ("failover", {"host": "m1@redis", "backend_id": ""}, "3.26"),
        ("failover", {"host": "m1@redis", "backend_id": "dr1", "forced": False}, "3.26"),
        ("failover_host", {"host": "m1@redis", "backend_id": "dr1"}, None),
        ("failover_host", {"host": "m1@redis", "backend_id": "dr1", "cluster": "ignored"}, "3.7"),
        ("failover_host", {"host": "m1@redis", "backend_id": None}, "3.26"),
    ],
)
async def test_a_failover_is_recorded_for_the_whole_cluster_and_told(
    keep: World, verb: str, body: dict[str, Any], version: str | None
) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", "m2@redis")

    answer = await ask(keep, verb, body, version)

    cluster, services = await cluster_row(keep.store), await service_rows(keep.store)
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["content-type"].startswith("text/html")
    assert cluster.replication_status is S.FAILING_OVER
    assert cluster.failover is not None
    assert (cluster.failover.target, cluster.failover.forced) == ("dr1", body.get("forced"))
    assert {one.replication_status for one in services.values()} == {S.FAILING_OVER}
    (news,) = [decode_news(told) for topic, told in keep.bus.published if topic == SITES]
    assert news is not None
    assert news.cluster == CLUSTER
    assert "to fail over to dr1" in (await keep.events())[0].text


@pytest.mark.parametrize(
    ("verb", "body", "version", "message"),
    [
        ("failover", {"cluster": "managers"}, "3.25", "Unknown action"),
        ("failover", {"cluster": "managers"}, None, "OpenStack-API-Version: volume 3.26 or later"),
        ("failover", {"host": "m1@redis"}, "3.0", "OpenStack-API-Version: volume 3.26 or later"),
        ("failover", {}, "3.26", "Invalid input received: One and only one of cluster and host must be set."),
        ("failover", {"host": None, "cluster": ""}, "3.26", "One and only one of cluster and host must be set."),
        ("failover", {"host": "m1@redis", "cluster": "managers"}, "3.26", "One and only one of cluster and host"),
        ("failover_host", {"cluster": "managers"}, "3.26", "Invalid input received: Host field is missing."),
        ("failover_host", {"backend_id": "dr1"}, "3.0", "Host field is missing."),
        ("failover_host", {"host": None}, "3.0", "Host field is missing."),
        ("failover", {"host": ""}, "3.26", "'' is too short"),
        ("failover", {"host": "a b"}, "3.26", "does not match"),
        ("failover", {"host": "m1@redis", "backend_id": "x" * 256}, "3.26", "is too long"),
        ("failover", {"host": "m1@redis", "backend_id": 7}, "3.26", "7 is not of type 'string', 'null'"),
        ("failover", {"host": "m1@redis", "forced": "yes"}, "3.26", "'yes' is not of type 'boolean', 'null'"),
        ("failover", {"host": "m1@redis", "target": "dr1"}, "3.26", "Additional properties are not allowed ('target'"),
        ("failover", {"host": "nope"}, "3.26", "No service found with host=nope"),
        ("failover", {"cluster": "nope"}, "3.26", "No service found with cluster=nope"),
        ("failover", {"host": "twin"}, "3.26", "Services from different clusters found."),
        ("failover", {"cluster": "managers", "backend_id": "typo"}, "3.26", "Invalid replication target 'typo'"),
        ("failover", {"cluster": "silent", "backend_id": "dr1"}, "3.26", "must be up to failover"),
        ("failover_host", {"host": "down", "backend_id": "dr1"}, "3.0", "No service could be changed: "),
    ],
)
async def test_a_failover_that_cannot_be_is_refused_and_changes_nothing(
    keep: World, verb: str, body: dict[str, Any], version: str | None, message: str
) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", "twin@redis")
    await a_team(keep.store, "silent@slow", "s1@slow", "twin@slow", silent=("s1@slow", "twin@slow"))
    await a_team(keep.store, "down@slow", "down@slow", silent=("down@slow",), solitary=True)
    before = await cluster_row(keep.store), await service_rows(keep.store)

    answer = await ask(keep, verb, body, version)

    assert fault(answer)[:2] == (400, "badRequest")
    assert message in fault(answer)[2]
    assert (await cluster_row(keep.store), await service_rows(keep.store)) == before
    assert await keep.events() == []


@pytest.mark.parametrize("status", [S.FAILING_OVER, S.DISABLED, S.NOT_CAPABLE])
async def test_a_state_that_does_not_allow_it_is_named_in_the_words_of_cinder(keep: World, status: S) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", replication_status=status)

    answer = await ask(keep, "failover", {"cluster": CLUSTER, "backend_id": "dr1"})

    text = (
        "Invalid input received: replication_status in managers@redis must be ['enabled', 'failed-over'] and must be up"
    )
    assert fault(answer)[2].startswith(f"{text} to failover.")
    assert status in fault(answer)[2]


@pytest.mark.parametrize(
    ("status", "active", "target"),
    [(S.FAILED_OVER, "dr1", "dr1"), (S.ENABLED, None, "default"), (S.ENABLED, "", "default")],
)
async def test_asking_for_where_it_is_already_is_accepted_and_does_nothing(
    keep: World, status: S, active: str | None, target: str
) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", replication_status=status, active_backend_id=active)
    before = await cluster_row(keep.store)

    answers = [await ask(keep, "failover", {"cluster": CLUSTER, "backend_id": target}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert await cluster_row(keep.store) == before


@pytest.mark.parametrize("status", [S.FAILOVER_ERROR, S.ERROR])
@pytest.mark.parametrize("target", ["dr1", "default"])
async def test_there_is_a_way_out_of_an_error_through_the_api_and_it_is_on_record(
    keep: World, status: S, target: str
) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", replication_status=status, active_backend_id="dr1")

    answer = await ask(keep, "failover", {"cluster": CLUSTER, "backend_id": target})

    (event,) = await keep.events()
    assert answer.status_code == 202
    assert (await cluster_row(keep.store)).replication_status is S.FAILING_OVER
    assert (event.actor, event.kind) == ("admin", "site.failover_requested")
    assert f"it was {status}" in event.text


# --- freeze and thaw ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "version"),
    [
        ({"host": "m1@redis"}, None),
        ({"host": "m1@redis", "cluster": "ignored"}, "3.7"),
        ({"cluster": "managers"}, "3.26"),
    ],
)
async def test_a_freeze_is_the_whole_clusters_and_a_thaw_ends_it(
    keep: World, body: dict[str, str], version: str | None
) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", "m2@redis", silent=("m2@redis",))

    async with a_member(keep, {"complaint": ""}) as asked:
        frozen = await ask(keep, "freeze", body, version)
        cluster, services = await cluster_row(keep.store), await service_rows(keep.store)
        again = await ask(keep, "freeze", body, version)
        thawed = await ask(keep, "thaw", body, version)

    assert (frozen.status_code, frozen.content) == (200, b"")
    assert frozen.headers["content-type"] == "application/json"
    rows: list[ServiceCluster | Service] = [cluster, *services.values()]
    assert {(one.frozen, one.disabled, one.disabled_reason) for one in rows} == {(True, True, "frozen")}
    assert fault(again) == (
        400,
        "badRequest",
        "Invalid input received: frozen in managers@redis must be False to freeze.",
    )
    assert thawed.status_code == 200
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("verb", "body", "version", "message"),
    [
        ("freeze", {"cluster": "managers"}, "3.25", "Host field is missing."),
        ("freeze", {}, "3.26", "One and only one of cluster and host must be set."),
        ("thaw", {"host": "nope"}, "3.26", "No service found with host=nope"),
        ("thaw", {"host": "m1@redis"}, "3.26", "frozen in managers@redis must be True to thaw."),
        ("freeze", {"host": "m1@redis", "backend_id": "x"}, "3.26", "Additional properties"),
    ],
)
async def test_a_freeze_that_cannot_be_is_refused(
    keep: World, verb: str, body: dict[str, str], version: str, message: str
) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis")

    answer = await ask(keep, verb, body, version)

    assert fault(answer)[0] == 400
    assert message in fault(answer)[2]
    assert not (await cluster_row(keep.store)).frozen


async def test_a_freeze_holds_whatever_the_driver_says_and_its_complaint_is_on_record(keep: World) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis")

    async with a_member(keep, {"complaint": "the array is asleep"}):
        answer = await ask(keep, "freeze", {"host": "m1@redis"})

    assert answer.status_code == 200
    assert (await cluster_row(keep.store)).frozen
    assert "the array is asleep" in (await keep.events())[0].text


async def test_a_freeze_needs_no_manager(keep: World) -> None:
    """G11: the answer and the row say the same, also when nobody can be asked."""
    await a_team(keep.store, CLUSTER, "m1@redis", silent=("m1@redis",))

    answer = await ask(keep, "freeze", {"host": "m1@redis"})

    assert answer.status_code == 200
    assert (await cluster_row(keep.store)).frozen


async def test_a_thaw_that_the_driver_refuses_is_an_error_and_it_stays_frozen(keep: World) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", frozen=True)

    async with a_member(keep, Refused("Backend reported error during thaw_host operation")):
        answer = await ask(keep, "thaw", {"host": "m1@redis"})

    assert fault(answer)[0] == 400
    assert "Backend reported error during thaw_host operation" in fault(answer)[2]
    assert (await cluster_row(keep.store)).frozen


async def test_a_thaw_without_a_manager_says_what_to_do_and_it_stays_frozen(keep: World) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", frozen=True, silent=("m1@redis",))

    answer = await ask(keep, "thaw", {"host": "m1@redis"})

    assert fault(answer)[:2] == (503, "serviceUnavailable")
    assert "Start one" in fault(answer)[2]
    assert (await cluster_row(keep.store)).frozen


# --- What it does to instances [43] ---------------------------------------------------------------------------------


async def test_while_it_is_frozen_instances_can_be_read_and_not_changed(keep: World) -> None:
    """Fault 43: reads yes, changes 409; another backend's freeze is none of ours."""
    await keep.host()
    one = await keep.instance()
    replica = await keep.instance(of=one)
    await a_team(keep.store, "others@slow", "o@slow", frozen=True)
    allowed = await keep.call("PUT", f"/instances/{one.id}", {"instance": {"name": "before"}})
    await a_team(keep.store, CLUSTER, "m1@redis", frozen=True)

    order = {"name": "n", "flavorRef": 1, "volume": {"size": 1}}
    changes = [
        await keep.call("POST", "/instances", {"instance": order}),
        await keep.call("POST", "/instances", {"instance": {"name": "r", "replica_of": one.id}}),
        await keep.call("PUT", f"/instances/{one.id}", {"instance": {"name": "after"}}),
        await keep.call("POST", f"/instances/{one.id}/action", {"restart": {}}),
        await keep.call("POST", f"/instances/{replica.id}/action", {"promote_to_replica_source": {}}),
        await keep.call("POST", f"/instances/{one.id}/users", {"users": [{"name": "u", "password": "p"}]}),
        await keep.call("POST", "/backups", {"backup": {"name": "b", "instance": one.id}}),
        await keep.call("DELETE", f"/instances/{replica.id}"),
    ]
    reads = [await keep.call("GET", path) for path in ("/instances", f"/instances/{one.id}", "/backups", "/status")]

    assert allowed.status_code == 202
    assert {fault(answer)[:2] for answer in changes} == {(409, "conflict")}
    assert {
        "Modification operations are not allowed on frozen storage backends" in fault(one)[2] for one in changes
    } == {True}
    assert {answer.status_code for answer in reads} == {200}
    assert await keep.operations() == []


async def test_a_frozen_backend_may_be_failed_over_by_an_administrator(keep: World) -> None:
    await a_team(keep.store, CLUSTER, "m1@redis", frozen=True)

    answer = await ask(keep, "failover", {"cluster": CLUSTER, "backend_id": "dr1"})

    assert answer.status_code == 202
    assert (await cluster_row(keep.store)).frozen

"""/v3: versions, negotiation, errors, service clusters, services: sections 1 to 3 of the contract, rule by rule."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.api_world import BASE, World, fault, world, write_htpasswd
from tests.contract.site_rows import a_team, cluster_row, service_rows

from redkeep.model.site import ReplicationStatus

CLUSTER = "managers@redis"
HEADER = "OpenStack-API-Version"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found:
        yield found


async def ask(
    keep: World, method: str, path: str, body: Any = None, version: str | None = "3.26", **more: Any
) -> httpx.Response:
    """A request to /v3/demo in a microversion; None says none."""
    headers = {HEADER: f"volume {version}"} if version else {}
    return await keep.http.request(method, f"/v3/demo{path}", json=body, headers=headers, **more)


# --- 1.1 and 1.2: where it is, and what it says of itself -----------------------------------------------------------


@pytest.mark.parametrize(("path", "code"), [("/", 300), ("/v3", 200), ("/v3/", 200)])
async def test_the_version_documents_are_public(tmp_path: Path, path: str, code: int) -> None:
    async with world(tmp_path, auth="basic", htpasswd=write_htpasswd(tmp_path / "h", {"admin": "x"})) as keep:
        answer = await keep.http.get(path)

    document = answer.json()["versions"][0]
    assert answer.status_code == code
    assert (document["id"], document["version"], document["min_version"]) == ("v3.0", "3.26", "3.0")
    assert {"rel": "self", "href": f"{BASE}/v3/"} in document["links"]
    assert document["media-types"][0]["type"] == "application/vnd.openstack.volume+json;version=3"


async def test_its_address_is_the_one_that_the_request_came_to_or_the_configured_one(tmp_path: Path) -> None:
    async with world(tmp_path, public_url="https://redis.example") as keep:
        answer = await keep.http.get("/v3/")

    assert answer.json()["versions"][0]["links"][1]["href"] == "https://redis.example/v3/"


async def test_a_process_that_answers_is_healthy(keep: World) -> None:
    answer = await keep.http.get("/healthcheck")

    assert (answer.status_code, answer.text) == (200, "OK")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v3/demo"),
        ("GET", "/v3/demo/"),
        ("GET", "/v3/demo/os-services/"),
        ("GET", "/v3/demo/clusters/"),
        ("POST", "/v3/demo/os-services"),
        ("DELETE", "/v3/demo/clusters/x"),
        ("PUT", "/v3/demo/clusters/x"),
        ("PUT", "/v3/demo/os-services/get-log"),
        ("GET", "/v3/demo/volumes"),
    ],
)
async def test_what_is_not_there_is_not_found_whatever_the_method(keep: World, method: str, path: str) -> None:
    answer = await keep.http.request(method, path, headers={HEADER: "volume 3.26"})

    assert fault(answer)[:2] == (404, "itemNotFound")


async def test_a_resource_is_there_with_a_project_and_without_at_every_version(keep: World) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis")

    answers = [await keep.http.get(f"/v3{project}/os-services") for project in ("", "/demo", "/0123-abc", "/any.thing")]
    named = [await keep.http.get(f"/v3/os-services?host={host}") for host in ("m1@redis", "m1%40redis")]

    assert {answer.status_code for answer in answers} == {200}
    assert {len(answer.json()["services"]) for answer in (*answers, *named)} == {1}


# --- 1.3 Microversions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "spoken"),
    [
        (None, "3.0"),
        ("volume latest", "3.26"),
        ("volume 3.0", "3.0"),
        ("volume 3.7", "3.7"),
        ("compute 2.1,volume 3.26", "3.26"),
        ("compute 2.1, volume 3.26", "3.26"),
        ("volumev3 3.26", "3.26"),
    ],
)
async def test_a_version_is_settled_and_said(keep: World, header: str | None, spoken: str) -> None:
    answer = await keep.http.get("/v3/os-services", headers={HEADER: header} if header else {})

    assert answer.status_code == 200
    assert answer.headers[HEADER] == f"volume {spoken}"
    assert answer.headers["vary"] == HEADER


@pytest.mark.parametrize("version", ["3.72", "3.27", "2.0", "4.0"])
async def test_a_version_that_is_not_spoken_is_not_acceptable(keep: World, version: str) -> None:
    answer = await ask(keep, "GET", "/os-services", version=version)

    assert answer.status_code == 406
    assert answer.json() == {
        "computeFault": {
            "code": 406,
            "message": f"Version {version} is not supported by the API. Minimum is 3.0 and maximum is 3.26.",
        }
    }


@pytest.mark.parametrize("version", ["3", "abc", "3.07", "03.7", "3.7.1", "3,7"])
async def test_what_is_no_version_is_refused(keep: World, version: str) -> None:
    answer = await ask(keep, "GET", "/os-services", version=version)

    assert fault(answer)[:2] == (400, "badRequest")
    assert "is of invalid format. Must be of format MajorNum.MinorNum." in fault(answer)[2]
    assert HEADER not in answer.headers


@pytest.mark.parametrize("header", ["volume", "compute 2.1", "Volume 3.26", "volume 3.26 junk", "", "volume 3.26 3.7"])
async def test_a_header_that_means_nothing_is_refused(keep: World, header: str) -> None:
    answer = await keep.http.get("/v3/os-services", headers={HEADER: header})

    assert fault(answer)[:2] == (400, "badRequest")


async def test_the_version_documents_answer_whatever_version_is_asked_for(keep: World) -> None:
    answers = [await keep.http.get(path, headers={HEADER: "volume 3.71"}) for path in ("/", "/v3", "/v3/")]

    assert [answer.status_code for answer in answers] == [300, 200, 200]


# --- 1.5 Errors -----------------------------------------------------------------------------------------------------


async def test_every_answer_says_its_version_and_its_id_errors_too(keep: World) -> None:
    answers = [
        await ask(keep, "GET", "/os-services"),
        await ask(keep, "GET", "/clusters/nope"),
        await ask(keep, "PUT", "/clusters/enable", {}),
    ]

    assert [answer.status_code for answer in answers] == [200, 404, 400]
    for answer in answers:
        assert answer.headers[HEADER] == "volume 3.26"
        assert answer.headers["x-compute-request-id"] == answer.headers["x-openstack-request-id"]
        assert answer.headers["x-compute-request-id"].startswith("req-")


@pytest.mark.parametrize(
    ("content", "kind", "code", "message"),
    [
        (b"{", "application/json", 400, "Malformed request body"),
        (b"", "application/json", 400, "Malformed request body"),
        (b"name: x", "text/yaml", 415, "Unsupported Content-Type"),
        (b"[]", "application/json", 400, "[] is not of type 'object'"),
        (b"{}", "application/json", 400, "'name' is a required property"),
        (b'{"name": "a", "foo": 1}', "application/json", 400, "Additional properties are not allowed ('foo' was"),
        (b'{"name": "a", "f": 1, "g": 1}', "application/json", 400, "('f', 'g' were unexpected)"),
        (b'{"name": 1}', "application/json", 400, "Invalid input for field/attribute name. Value: 1. 1 is not of type"),
        (b'{"name": null}', "application/json", 400, "None is not of type 'string'"),
        (b'{"name": ""}', "application/json", 400, "'' is too short"),
        (b'{"name": "  "}', "application/json", 400, "is blank"),
        (b'{"name": "' + b"a" * 256 + b'"}', "application/json", 400, "is too long"),
        (b'{"name": "a", "disabled_reason": "x"}', "application/json", 400, "'disabled_reason' was unexpected"),
    ],
)
async def test_a_wrong_body_is_refused_in_the_words_of_cinder(
    keep: World, content: bytes, kind: str, code: int, message: str
) -> None:
    headers = {"Content-Type": kind, HEADER: "volume 3.26"}

    answer = await keep.http.put("/v3/demo/clusters/enable", content=content, headers=headers)

    assert fault(answer)[0] == code
    assert message in fault(answer)[2]
    assert fault(answer)[1] == ("badMediaType" if code == 415 else "badRequest")


async def test_it_is_for_administrators_alone(tmp_path: Path) -> None:
    passwords = write_htpasswd(tmp_path / "h", {"admin": "x", "demo": "y"})
    async with world(tmp_path, auth="basic", htpasswd=passwords) as keep:
        stranger = await keep.http.get("/v3/demo/os-services")
        tenant = await keep.http.get("/v3/demo/os-services", auth=("demo", "y"))
        admin = [await keep.http.get(path, auth=("admin", "x")) for path in ("/v3/demo/os-services", "/v3/os-services")]

    assert fault(stranger)[:2] == (401, "unauthorized")
    assert fault(tenant)[:2] == (403, "forbidden")
    assert "volume_extension:services:index" in fault(tenant)[2]
    assert [answer.status_code for answer in admin] == [200, 200]


# --- 2. Clusters ----------------------------------------------------------------------------------------------------


async def test_the_summary_of_a_cluster_grows_with_the_version(keep: World) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis")

    old = (await ask(keep, "GET", "/clusters", version="3.7")).json()["clusters"]
    new = (await ask(keep, "GET", "/clusters")).json()["clusters"]

    plain = {"name": "managers@redis", "binary": "cinder-volume", "state": "up", "status": "enabled"}
    assert old == [plain]
    assert new == [{**plain, "replication_status": "enabled"}]


async def test_the_details_of_a_cluster(keep: World) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis", "m2@redis", silent=("m2@redis",), frozen=True)

    (old,) = (await ask(keep, "GET", "/clusters/detail", version="3.25")).json()["clusters"]
    (new,) = (await ask(keep, "GET", "/clusters/detail")).json()["clusters"]
    shown = (await ask(keep, "GET", "/clusters/managers")).json()["cluster"]

    assert (old["num_hosts"], old["num_down_hosts"], old["state"]) == (2, 1, "up")
    assert MOMENT.fullmatch(old["created_at"])
    assert MOMENT.fullmatch(old["last_heartbeat"])
    assert (old["updated_at"], old["disabled_reason"]) == ("", None)
    assert {"replication_status", "frozen", "active_backend_id"}.isdisjoint(old)
    assert (new["replication_status"], new["frozen"], new["active_backend_id"]) == ("enabled", True, None)
    assert shown == new


async def test_who_has_followed_is_shown_in_the_details(keep: World) -> None:
    await a_team(
        keep.store,
        "managers@redis",
        *(f"m{n}@redis" for n in range(6)),
        epoch=4,
        replication_status=ReplicationStatus.FAILED_OVER,
    )
    async with keep.store.begin() as tx:
        (one, *_) = await tx.services()
        await tx.save(replace(one, applied_epoch=3, fault="no route to dr1"))

    shown = (await ask(keep, "GET", "/clusters/managers@redis")).json()["cluster"]["redkeep:failover"]
    status = (await keep.call("GET", "/status")).json()["backends"]

    assert (shown["members"], shown["followed"], shown["missing"]) == (6, 5, ["m0@redis"])
    assert shown["failed"] == {"m0@redis": "no route to dr1"}
    assert "5 of 6 managers have followed (missing: m0@redis)" in status[0]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name=managers", ["managers@redis", "managers@slow"]),
        ("name=managers@redis", ["managers@redis"]),
        ("name=managers%40redis", ["managers@redis"]),
        ("name=man", []),
        ("name=managers@redis&name=others@redis", ["others@redis"]),
        ("binary=cinder-volume", ["managers@redis", "managers@slow", "others@redis"]),
        ("binary=nova", []),
        ("is_up=true", ["managers@redis", "others@redis"]),
        ("is_up=N", ["managers@slow"]),
        ("is_up=False", ["managers@slow"]),
        ("disabled=yes", ["others@redis"]),
        ("disabled=off", ["managers@redis", "managers@slow"]),
        ("num_hosts=2", ["managers@redis"]),
        ("num_hosts=7", []),
        ("num_down_hosts=1", ["managers@redis", "managers@slow"]),
        ("num_down_hosts=0", ["others@redis"]),
        ("replication_status=failed-over", ["others@redis"]),
        ("replication_status=nonsense", []),
        ("active_backend_id=dr1", ["others@redis"]),
        ("active_backend_id=", ["managers@redis", "managers@slow"]),
        ("frozen=true", ["managers@slow"]),
        ("frozen=True", ["managers@slow"]),
        ("frozen=0", ["managers@redis", "others@redis"]),
        ("frozen=False&is_up=1", ["managers@redis", "others@redis"]),
    ],
)
async def test_filters_all_have_to_pass(keep: World, query: str, found: list[str]) -> None:
    await a_team(keep.store, "managers@redis", "a@redis", "b@redis", silent=("b@redis",))
    await a_team(keep.store, "managers@slow", "c@slow", silent=("c@slow",), frozen=True)
    over: dict[str, Any] = {
        "replication_status": ReplicationStatus.FAILED_OVER,
        "active_backend_id": "dr1",
        "disabled": True,
    }
    await a_team(keep.store, "others@redis", "d@redis", **over)
    await a_team(keep.store, "alone@redis", "alone@redis", solitary=True, disabled=True, frozen=True)

    answers = [
        (await ask(keep, "GET", f"{path}?{query}")).json()["clusters"] for path in ("/clusters", "/clusters/detail")
    ]

    assert [[one["name"] for one in answer] for answer in answers] == [found, found]


@pytest.mark.parametrize(
    ("query", "version", "message"),
    [
        ("foo=1&bar=2", "3.26", "Invalid input received: Invalid filter keys: bar, foo"),
        ("frozen=true", "3.25", "Invalid filter keys: frozen"),
        (
            "replication_status=x&active_backend_id=y",
            "3.7",
            "Invalid filter keys: active_backend_id, replication_status",
        ),
        ("limit=1", "3.26", "Invalid filter keys: limit"),
        ("state=up", "3.26", "Invalid filter keys: state"),
        ("is_up=maybe", "3.26", "Value 'maybe' for 'is_up' is not a boolean."),
        ("disabled=", "3.26", "Value '' for 'disabled' is not a boolean."),
        ("frozen=2", "3.26", "Value '2' for 'frozen' is not a boolean."),
        ("num_hosts=many", "3.26", "Value 'many' for 'num_hosts' is not a number."),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(keep: World, query: str, version: str, message: str) -> None:
    answer = await ask(keep, "GET", f"/clusters?{query}", version=version)

    assert fault(answer)[0] == 400
    assert message in fault(answer)[2]


async def test_g12_g15_g16_what_is_known_to_be_wrong_elsewhere_is_right(keep: World) -> None:
    """Filters are parsed, switches are kept, a missing body and junk in a header are 400, `binary` counts."""
    await a_team(keep.store, CLUSTER, "m1@redis", frozen=True)

    filtered = [
        (await ask(keep, "GET", f"/clusters?{query}")).json()["clusters"] for query in ("frozen=True", "frozen=0")
    ]
    await ask(keep, "PUT", "/os-services/disable", {"host": "m1@redis", "binary": "cinder-volume"})
    kept = (await service_rows(keep.store))["m1@redis"].disabled
    empty = await keep.http.put("/v3/os-services/failover", headers={HEADER: "volume 3.26"})
    junk = await keep.http.get("/v3/os-services", headers={HEADER: "volume 3.26 junk"})
    other = await ask(keep, "GET", "/clusters/managers?binary=nova")

    assert [len(found) for found in filtered] == [1, 0]
    assert kept
    assert [answer.status_code for answer in (empty, junk, other)] == [400, 400, 404]


async def test_clusters_begin_with_version_3_7(keep: World) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis")
    requests: list[tuple[str, str, Any]] = [
        ("GET", path, None) for path in ("/clusters", "/clusters/detail", "/clusters/x")
    ]
    requests += [("PUT", f"/clusters/{verb}", {"name": "managers"}) for verb in ("enable", "disable")]

    for version in (None, "3.6"):
        answers = [await ask(keep, *request, version=version) for request in requests]
        assert {fault(answer)[:2] for answer in answers} == {(404, "itemNotFound")}
    assert (await ask(keep, "GET", "/clusters", version="3.7")).status_code == 200


@pytest.mark.parametrize(
    ("path", "binary"), [("nope", "cinder-volume"), ("nope?binary=x", "x"), ("managers?binary=nova", "nova")]
)
async def test_an_unknown_cluster_is_not_found(keep: World, path: str, binary: str) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis")

    answer = await ask(keep, "GET", f"/clusters/{path}")

    name = path.partition("?")[0]
    message = f"Cluster {{'binary': '{binary}', 'name': '{name}'}} could not be found."
    assert fault(answer) == (404, "itemNotFound", message)


async def test_a_manager_that_is_alone_has_no_cluster_to_show(keep: World) -> None:
    await a_team(keep.store, "alone@redis", "alone@redis", solitary=True)

    shown = await ask(keep, "GET", "/clusters/alone@redis")
    (service,) = (await ask(keep, "GET", "/os-services")).json()["services"]

    assert shown.status_code == 404
    assert service["cluster"] is None


@pytest.mark.parametrize("version", ["3.7", "3.26"])
async def test_a_cluster_is_disabled_with_a_reason_and_enabled_without(keep: World, version: str) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis")

    off = await ask(keep, "PUT", "/clusters/disable", {"name": "managers@redis", "disabled_reason": " dust "}, version)
    again = await ask(keep, "PUT", "/clusters/disable", {"name": "managers", "binary": "cinder-volume"}, version)
    stored = await cluster_row(keep.store)
    on = await ask(keep, "PUT", "/clusters/enable", {"name": "managers@redis", "binary": None}, version)

    assert (off.status_code, off.json()["cluster"]["status"], off.json()["cluster"]["disabled_reason"]) == (
        200,
        "disabled",
        "dust",
    )
    assert ("replication_status" in off.json()["cluster"]) == (version == "3.26")
    assert again.status_code == 200
    assert stored.disabled
    assert (on.json()["cluster"]["status"], on.json()["cluster"]["disabled_reason"]) == ("enabled", None)
    assert not (await cluster_row(keep.store)).disabled
    assert not (await service_rows(keep.store))["m1@redis"].disabled


async def test_an_empty_reason_is_one_and_an_unknown_cluster_is_none(keep: World) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis")

    empty = await ask(keep, "PUT", "/clusters/disable", {"name": "managers", "disabled_reason": ""})
    unknown = [await ask(keep, "PUT", f"/clusters/{verb}", {"name": "nope"}) for verb in ("enable", "disable")]
    strange = await ask(keep, "PUT", "/clusters/disable", {"name": "managers", "binary": "nova"})

    assert empty.json()["cluster"]["disabled_reason"] == ""
    assert [answer.status_code for answer in (*unknown, strange)] == [404, 404, 404]


# --- 3.1 and 3.2: services ------------------------------------------------------------------------------------------


async def test_a_service_shows_its_cluster_from_3_7_on_and_its_replication_always(keep: World) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis", active_backend_id="dr1")

    (old,) = (await ask(keep, "GET", "/os-services", version=None)).json()["services"]
    (new,) = (await ask(keep, "GET", "/os-services", version="3.7")).json()["services"]

    assert MOMENT.fullmatch(old.pop("updated_at"))
    assert old == {
        "binary": "cinder-volume",
        "host": "m1@redis",
        "zone": "nova",
        "status": "enabled",
        "state": "up",
        "disabled_reason": None,
        "replication_status": "enabled",
        "active_backend_id": "dr1",
        "frozen": False,
    }
    assert new["cluster"] == "managers@redis"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("host=m1", ["m1@redis", "m1@slow"]),
        ("host=m1@redis", ["m1@redis"]),
        ("host=m", []),
        ("binary=cinder-volume", ["m1@redis", "m1@slow", "m2@redis"]),
        ("binary=cinder-scheduler", []),
        ("host=m2&binary=cinder-volume&foo=bar", ["m2@redis"]),
    ],
)
async def test_services_are_found_by_host_and_binary(keep: World, query: str, found: list[str]) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis", "m2@redis")
    await a_team(keep.store, "managers@slow", "m1@slow")

    shown = (await ask(keep, "GET", f"/os-services?{query}")).json()["services"]

    assert [one["host"] for one in shown] == found


@pytest.mark.parametrize("key", ["binary", "service"])
async def test_a_service_is_disabled_and_enabled_again(keep: World, key: str) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis", "m2@redis")
    body = {"host": "m1@redis", key: "cinder-volume", "cluster": "whatever"}
    named = {"host": "m1@redis", "service": "", "binary": "", key: "cinder-volume"}

    off = await ask(keep, "PUT", "/os-services/disable", body, version=None)
    why = await ask(keep, "PUT", "/os-services/disable-log-reason", {**body, "disabled_reason": "dust"}, version=None)
    stored = await service_rows(keep.store)
    on = await ask(keep, "PUT", "/os-services/enable", body, version=None)

    assert off.json() == {**named, "status": "disabled", "disabled": True}
    assert why.json() == {**named, "status": "disabled", "disabled": True, "disabled_reason": "dust"}
    assert (stored["m1@redis"].disabled_reason, stored["m2@redis"].disabled) == ("dust", False)
    assert on.json() == {**named, "status": "enabled", "disabled": False}
    enabled = (await service_rows(keep.store))["m1@redis"]
    assert (enabled.disabled, enabled.disabled_reason) == (False, None)
    assert {event.kind for event in await keep.events()} == {"site.service_disabled", "site.service_enabled"}


@pytest.mark.parametrize(
    ("verb", "body", "code", "message"),
    [
        ("enable", {"binary": "cinder-volume"}, 400, "Host field is missing."),
        ("disable", {"host": "m1@redis"}, 400, "binary"),
        (
            "enable",
            {"host": "nope", "binary": "cinder-volume"},
            404,
            "Service cinder-volume could not be found on host",
        ),
        ("disable", {"host": "m1@redis", "binary": "nova"}, 404, "Service nova could not be found on host m1@redis."),
        ("disable-log-reason", {"host": "m1@redis", "binary": "cinder-volume"}, 400, "'disabled_reason' is a required"),
        ("disable-log-reason", {"host": "h", "binary": "b", "disabled_reason": ""}, 400, "too short"),
        ("disable-log-reason", {"host": "h", "binary": "b", "disabled_reason": "  "}, 400, "blank"),
        ("disable-log-reason", {"host": "h", "binary": "b", "disabled_reason": None}, 400, "not of type 'string'"),
        ("disable-log-reason", {"host": "h", "binary": "b", "disabled_reason": "x" * 256}, 400, "too long"),
        ("enable", {"host": "m1 redis", "binary": "cinder-volume"}, 400, "does not match"),
        ("enable", {"host": "m1@redis", "binary": "cinder-volume", "x": 1}, 400, "Additional properties"),
    ],
)
async def test_what_a_service_cannot_be_asked(
    keep: World, verb: str, body: dict[str, Any], code: int, message: str
) -> None:
    await a_team(keep.store, "managers@redis", "m1@redis")

    answer = await ask(keep, "PUT", f"/os-services/{verb}", body)

    assert fault(answer)[0] == code
    assert message in fault(answer)[2]

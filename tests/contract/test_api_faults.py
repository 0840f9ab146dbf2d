"""Every way of going wrong has the one shape that the clients understand."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from tests.contract.api_world import BASE, World, fault, world

from redkeep.api import faults
from redkeep.api.app import create_app
from redkeep.errors import NotNow, OutcomeUnknown, RedkeepError, Refused, StaleEpoch, Unavailable

JSON = {"content-type": "application/json"}


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, max_body_bytes=1000) as made:
        await made.host()
        yield made


async def send(keep: World, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return await keep.http.post("/v1.0/demo/instances", content=body, headers=headers)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"[]", b"null", b"{}", b'"x"', b'{"instance": null}', b'{"instance": []}', b"\xff\xfe",
     b"[" * 900, b'{"instance": {"name": "\\ud800", "flavorRef": 1, "volume": {"size": 1}}}',
     b'{"instance": {"name": "a", "flavorRef": 1, "volume": {"size": ' + b"9" * 500 + b"}}}"],
)  # fmt: skip
async def test_what_is_no_order_is_a_bad_request(keep: World, body: bytes) -> None:
    assert fault(await send(keep, body, JSON))[:2] == (400, "badRequest")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "json"])
async def test_what_is_not_json_is_another_media_type(keep: World, kind: str) -> None:
    assert fault(await send(keep, b"{}", {"content-type": kind} if kind else {}))[:2] == (415, "badMediaType")


async def test_json_may_name_its_characters(keep: World) -> None:
    body = b'{"instance": {"name": "a", "flavorRef": 1, "volume": {"size": 1}}}'

    assert (await send(keep, body, {"content-type": "application/JSON; charset=utf-8"})).status_code == 200


async def test_a_request_that_is_too_large_is_refused_unread(keep: World) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    announced = await send(keep, b" " * 2000, JSON)
    unannounced = await keep.http.post("/v1.0/demo/instances", content=in_pieces(), headers=JSON)

    assert fault(announced)[:2] == fault(unannounced)[:2] == (413, "overLimit")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/v1.0/demo/nothing"),
        ("GET", "/v2.0/demo/instances"),
        ("GET", "/v1.0/demo/instances/x/y/z"),
        ("PUT", "/v1.0/demo/instances"),
        ("DELETE", "/v1.0/demo/flavors/1"),
        ("POST", "/healthz"),
        ("GET", "/docs"),
        ("GET", "/redoc"),
    ],
)
async def test_unknown_paths_and_wrong_methods_are_not_found(keep: World, method: str, path: str) -> None:
    answer = await keep.http.request(method, path)

    assert fault(answer)[:2] == (404, "itemNotFound")
    assert path in fault(answer)[2]


async def test_a_slash_at_the_end_changes_nothing(keep: World) -> None:
    assert (await keep.http.get("/v1.0/demo/instances/")).json() == {"instances": []}


async def test_every_answer_has_an_id(keep: World) -> None:
    answers = [await keep.http.get(path) for path in ("/", "/nothing", "/v1.0/demo/instances")]

    ids = {answer.headers["x-openstack-request-id"] for answer in answers}
    assert len({UUID(one.removeprefix("req-")) for one in ids}) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("x"), 400),
        (Refused("x", kind="unauthorized"), 401),
        (Refused("x", kind="forbidden"), 403),
        (Refused("x", kind="missing"), 404),
        (Refused("x", kind="conflict"), 409),
        (Refused("x", kind="too_large"), 413),
        (Refused("x", kind="busy"), 422),
        (Refused("x", kind="unsupported"), 501),
        (NotNow("x"), 409),
        (StaleEpoch("x"), 409),
        (Unavailable("x"), 503),
        (OutcomeUnknown("x"), 503),
        (RedkeepError("x"), 500),
    ],
)
def test_every_error_has_its_number(error: RedkeepError, code: int) -> None:
    assert faults.status_of(error) == code


def test_an_unknown_outcome_says_so() -> None:
    assert "may have run" in faults.message_of(OutcomeUnknown("no answer"))
    assert "may have run" not in faults.message_of(Unavailable("no answer"))


async def test_a_store_that_is_away_is_said_so(keep: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise Unavailable("the database cannot be reached")

    monkeypatch.setattr(keep.store, "read", away)

    for path in ("/healthz", "/v1.0/demo/instances"):
        answer = await keep.http.get(path)
        assert fault(answer) == (503, "serviceUnavailable", "the database cannot be reached")


async def test_what_nobody_foresaw_is_told_to_the_log_alone(
    keep: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("an inner secret")

    monkeypatch.setattr(keep.store, "read", broken)
    with caplog.at_level(logging.ERROR):
        answer = await keep.http.get("/v1.0/demo/instances")

    assert fault(answer)[:2] == (500, "instanceFault")
    assert "secret" not in answer.text
    assert "an inner secret" in caplog.text
    assert "x-openstack-request-id" in answer.headers


async def test_the_document_describes_every_route_and_loads_nothing(keep: World) -> None:
    document = (await keep.http.get("/openapi.json")).json()

    assert "/v1.0/{project}/instances/{instance_id}/action" in document["paths"]
    assert set(document["components"]["securitySchemes"]) == {"basic", "token"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert BASE not in (await keep.http.get("/openapi.json")).text


async def test_the_application_is_made_once_per_set_of_doors(keep: World) -> None:
    first = create_app(keep.settings, keep.store, keep.bus, keep.vault)
    second = create_app(keep.settings, keep.store, keep.bus, keep.vault)

    assert first.openapi() == second.openapi()

"""Who gets in, with what, and where to."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.api_world import BASE, World, fault, world, write_htpasswd

from redkeep.api import auth
from redkeep.vault import Vault

PASSWORDS = {"admin": "sesame", "demo": "open"}


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, auth="basic", htpasswd=write_htpasswd(tmp_path / "htpasswd", PASSWORDS)) as made:
        await made.host()
        yield made


def log_in_body(name: str, password: str, scope: Any = None) -> dict[str, Any]:
    user = {"name": name, "password": password, "domain": {"id": "default"}}
    identity = {"methods": ["password"], "password": {"user": user}}
    return {"auth": {"identity": identity} | ({"scope": scope} if scope is not None else {})}


async def log_in(keep: World, name: str = "demo", project: str | None = "demo") -> str:
    scope = {"project": {"name": project, "domain": {"name": "Default"}}} if project else None
    answer = await keep.http.post("/identity/v3/auth/tokens", json=log_in_body(name, PASSWORDS[name], scope))
    assert answer.status_code == 201
    return answer.headers["x-subject-token"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"auth": ("demo", "wrong")},
        {"auth": ("nobody", "open")},
        {"auth": ("demo", "open" + "x" * 100)},
        {"headers": {"Authorization": "Basic ???"}},
        {"headers": {"Authorization": "Basic ZGVtbw=="}},
        {"headers": {"Authorization": "Bearer abc"}},
        {"headers": {"X-Auth-Token": "notused"}},
        {"headers": {"X-Auth-Token": ""}},
    ],
)
async def test_without_good_credentials_nobody_gets_in(keep: World, given: dict[str, Any]) -> None:
    answer = await keep.call("GET", "/instances", **given)

    assert fault(answer)[:2] == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Basic realm="redkeep"'


async def test_credentials_are_asked_for_before_anything_is_read(keep: World) -> None:
    """A stranger learns nothing of what would be valid, and has nothing parsed."""
    answers = [
        await keep.http.post("/v1.0/demo/instances", content=b"{", headers={"content-type": "application/json"}),
        await keep.http.post("/v1.0/demo/instances", content=b"x", headers={"content-type": "text/plain"}),
        await keep.call("GET", "/instances?limit=abc"),
        await keep.call("GET", "/nothing-like-it"),
    ]

    assert {answer.status_code for answer in answers} == {401}


async def test_a_name_and_a_password_open_ones_own_project(keep: World) -> None:
    assert (await keep.call("GET", "/instances", auth=("demo", "open"))).status_code == 200


async def test_another_project_is_forbidden_to_all_but_the_administrator(keep: World) -> None:
    foreign = await keep.call("GET", "//v1.0/other/instances", auth=("demo", "open"))
    administered = await keep.call("GET", "//v1.0/other/instances", auth=("admin", "sesame"))

    assert fault(foreign)[:2] == (403, "forbidden")
    assert administered.status_code == 200


async def test_only_the_administrator_resets_a_status(keep: World) -> None:
    one = await keep.instance()
    reset: dict[str, Any] = {"reset_status": {}}

    mine = await keep.call("POST", f"/instances/{one.id}/action", reset, auth=("demo", "open"))
    admins = await keep.call("POST", f"/instances/{one.id}/action", reset, auth=("admin", "sesame"))

    assert fault(mine)[:2] == (403, "forbidden")
    assert admins.status_code == 202


async def test_only_the_administrator_sees_whose_an_instance_is(keep: World) -> None:
    one = await keep.instance()

    mine = (await keep.call("GET", f"/instances/{one.id}", auth=("demo", "open"))).json()["instance"]

    assert "tenant_id" not in mine


async def test_a_changed_password_file_counts_at_once(keep: World) -> None:
    token = await log_in(keep)
    assert (await keep.call("GET", "/instances", auth=("demo", "open"))).status_code == 200

    write_htpasswd(keep.settings.htpasswd, {"demo": "changed"})

    assert (await keep.call("GET", "/instances", auth=("demo", "open"))).status_code == 401
    assert (await keep.call("GET", "/instances", auth=("demo", "changed"))).status_code == 200
    assert (await keep.call("GET", "/instances", headers={"X-Auth-Token": token})).status_code == 401


async def test_a_checked_password_needs_no_second_check(keep: World, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = 0
    real = auth.matches

    def counted(password: str, hashed: str) -> bool:
        nonlocal checks
        checks += 1
        return real(password, hashed)

    monkeypatch.setattr(auth, "matches", counted)

    good = [(await keep.call("GET", "/limits", auth=("demo", "open"))).status_code for _ in range(3)]
    bad = [(await keep.call("GET", "/limits", auth=("demo", "bad"))).status_code for _ in range(2)]

    assert (good, bad, checks) == ([200, 200, 200], [401, 401], 3)


async def test_a_password_file_that_cannot_be_read_lets_nobody_in(keep: World) -> None:
    keep.settings.htpasswd.unlink()

    answer = await keep.call("GET", "/instances", auth=("demo", "open"))

    assert fault(answer)[:2] == (503, "serviceUnavailable")


def test_only_bcrypt_is_read_from_a_password_file(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        hashes = auth.parse_htpasswd("# who may\n\na:$2y$05$x\nb:$apr1$secret\n:$2y$05$x\nc\n")

    assert hashes == {"a": "$2y$05$x"}
    assert "secret" not in caplog.text


# --- Tokens


async def test_a_log_in_brings_a_token_and_the_catalogue(keep: World) -> None:
    body = log_in_body("demo", "open", {"project": {"name": "demo", "domain": {"name": "Default"}}})

    answer = await keep.http.post("/identity/v3/auth/tokens", json=body)

    token = answer.json()["token"]
    assert answer.status_code == 201
    assert (
        token["user"]
        == token["project"]
        == {"id": "demo", "name": "demo", "domain": {"id": "default", "name": "Default"}}
    )
    assert {one["type"]: one["endpoints"][0]["url"] for one in token["catalog"]} == {
        "database": f"{BASE}/v1.0/demo",
        "block-storage": f"{BASE}/v3/demo",
        "volumev3": f"{BASE}/v3/demo",
        "identity": f"{BASE}/identity/v3",
    }
    assert token["roles"] == [{"id": "member", "name": "member"}]
    assert token["expires_at"] > token["issued_at"]
    headers = {"X-Auth-Token": answer.headers["x-subject-token"]}
    assert (await keep.call("GET", "/instances", headers=headers)).status_code == 200


@pytest.mark.parametrize("scope", [None, "unscoped", {}])
async def test_a_token_without_scope_has_no_catalogue(keep: World, scope: Any) -> None:
    answer = await keep.http.post("/identity/v3/auth/tokens", json=log_in_body("demo", "open", scope))

    assert answer.status_code == 201
    assert "catalog" not in answer.json()["token"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (log_in_body("demo", "wrong"), 401),
        (log_in_body("nobody", "open"), 401),
        (log_in_body("demo", "open", {"project": {"id": "other"}}), 401),
        ({"auth": {"identity": {"methods": ["token"], "token": {"id": "x"}}}}, 400),
        ({}, 400),
    ],
)
async def test_a_log_in_that_is_refused_does_not_say_more_than_needed(keep: World, body: Any, code: int) -> None:
    answer = await keep.http.post("/identity/v3/auth/tokens", json=body)

    assert fault(answer)[0] == code
    assert "wrong" not in answer.text


async def test_a_token_stays_in_its_project(keep: World) -> None:
    headers = {"X-Auth-Token": await log_in(keep, "admin", "demo")}

    assert (await keep.call("GET", "/instances", headers=headers)).status_code == 200
    assert (await keep.call("GET", "//v1.0/other/instances", headers=headers)).status_code == 403


async def test_a_token_ends(tmp_path: Path) -> None:
    passwords = write_htpasswd(tmp_path / "htpasswd", PASSWORDS)
    async with world(tmp_path, auth="basic", htpasswd=passwords, token_lifetime_seconds=-1) as keep:
        token = await log_in(keep)

        answer = await keep.call("GET", "/instances", headers={"X-Auth-Token": token})

    assert fault(answer)[0] == 401


async def test_nothing_else_that_is_sealed_is_a_token(keep: World) -> None:
    fakes = [
        keep.vault.seal("a servers password"),
        keep.vault.seal("[]"),
        keep.vault.seal('{"user": "admin", "project": null, "issued": 0, "proof": "x"}'),
        Vault.open(keep.settings.htpasswd.with_name("other-key")).seal("{}"),
    ]

    for fake in fakes:
        assert (await keep.call("GET", "/instances", headers={"X-Auth-Token": fake})).status_code == 401


async def test_a_token_can_be_looked_at_by_its_user_and_the_administrator(keep: World) -> None:
    mine, admins = await log_in(keep), await log_in(keep, "admin", None)

    async def look(caller: str, subject: str) -> int:
        headers = {"X-Auth-Token": caller, "X-Subject-Token": subject}
        return (await keep.http.get("/identity/v3/auth/tokens", headers=headers)).status_code

    assert await look(mine, mine) == 200
    assert await look(admins, mine) == 200
    assert await look(mine, admins) == 403
    assert await look(mine, "nonsense") == 404


async def test_identity_is_discovered_without_credentials(keep: World) -> None:
    index, slash, v3 = [await keep.http.get(path) for path in ("/identity", "/identity/", "/identity/v3/")]

    assert (index.status_code, index.json()) == (300, slash.json())
    assert index.json()["versions"]["values"] == [v3.json()["version"]]
    assert v3.json()["version"]["links"] == [{"rel": "self", "href": f"{BASE}/identity/v3/"}]


async def test_secrets_stay_out_of_the_log(keep: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        token = await log_in(keep)
        await keep.call("GET", "/instances", auth=("demo", "a wrong word"))
        await keep.call("GET", "/instances", headers={"X-Auth-Token": token[:-4]})

    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("redkeep"))
    assert not any(secret in ours for secret in ("a wrong word", PASSWORDS["demo"] + '"', token[:20]))


async def test_a_crowd_is_checked_without_stopping_the_others(keep: World) -> None:
    answers = await asyncio.gather(
        *(keep.call("GET", "/limits", auth=("demo", f"guess {number}")) for number in range(10)),
        keep.call("GET", "/limits", auth=("demo", "open")),
    )

    assert [answer.status_code for answer in answers] == [401] * 10 + [200]


async def test_a_password_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    path = write_htpasswd(tmp_path / "htpasswd", {"demo": "open"})
    file = auth.PasswordFile(path)
    first = file.hash_of("demo")
    state = path.stat()

    path.write_text("x" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert file.hash_of("demo") == first

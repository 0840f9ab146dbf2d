"""Users and root: passwords are handed out, changed, and work at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.api_world import World, fault, finishing, world

from redkeep.model.instance import Instance, RedisUser, Status
from redkeep.model.operation import Kind, State
from redkeep.vault import digest


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.host()
        yield made


async def users(keep: World, one: Instance) -> dict[str, str]:
    return {user.name: user.password_sha256 for user in (await keep.group(one.group_id)).users}


async def test_a_user_comes_with_a_password_or_gets_one(keep: World) -> None:
    one = await keep.instance()
    order = [{"name": "app", "password": "pw", "databases": [{"name": "0"}]}, {"name": "job"}]

    async with finishing(keep.store):
        answer = await keep.call("POST", f"/instances/{one.id}/users", {"users": order})

    made = answer.json()["users"]
    assert answer.status_code == 202
    assert made == [{"name": "app"}, {"name": "job", "password": made[1]["password"]}]
    assert await users(keep, one) == {
        "default": digest("secret"),
        "app": digest("pw"),
        "job": digest(made[1]["password"]),
    }


async def test_a_change_of_users_is_an_operation_without_a_lock(keep: World) -> None:
    one = await keep.instance()

    answer = await keep.call("POST", f"/instances/{one.id}/users", {"users": [{"name": "app"}]})

    operation = await keep.the_operation()
    assert answer.status_code == 202  # although nobody has done it within the time that settings give
    assert (operation.kind, operation.args, operation.group_id) == (Kind.UPDATE_USERS, {}, one.group_id)
    assert (await keep.row(one.id)).status is Status.ACTIVE
    assert keep.bus.published == [("hints", {"group": one.group_id})]


async def test_servers_that_refuse_a_change_are_not_hidden(keep: World) -> None:
    one = await keep.instance()

    async with finishing(keep.store, State.FAILED, "h1 is away"):
        answer = await keep.call("POST", f"/instances/{one.id}/root")

    assert fault(answer)[:2] == (503, "serviceUnavailable")
    assert "h1 is away" in fault(answer)[2]
    assert "may have run" in fault(answer)[2]


async def test_users_are_listed_without_root_and_without_passwords(keep: World) -> None:
    one = await keep.instance()
    async with finishing(keep.store):
        await keep.call("POST", f"/instances/{one.id}/users", {"users": [{"name": "app"}]})

    shown = {"name": "app", "host": "%", "databases": []}
    assert (await keep.call("GET", f"/instances/{one.id}/users")).json() == {"users": [shown]}
    assert (await keep.call("GET", f"/instances/{one.id}/users/app")).json() == {"user": shown}


async def test_a_user_gets_another_password_and_goes(keep: World) -> None:
    one = await keep.instance()
    path = f"/instances/{one.id}/users"
    async with finishing(keep.store):
        await keep.call("POST", path, {"users": [{"name": "app"}]})

        changed = await keep.call("PUT", path, {"users": [{"name": "app", "password": "new"}]})
        after_change = await users(keep, one)
        deleted = await keep.call("DELETE", f"{path}/app")

    assert (changed.status_code, changed.content, deleted.status_code) == (202, b"", 202)
    assert after_change["app"] == digest("new")
    assert await users(keep, one) == {"default": digest("secret")}


@pytest.mark.parametrize("name", ["default", "redkeep-admin", "redkeep-", "a b", "", "x" * 65, "é", "a\n", None, 5])
async def test_a_users_name_is_a_word_that_is_not_reserved(keep: World, name: Any) -> None:
    one = await keep.instance()

    answer = await keep.call("POST", f"/instances/{one.id}/users", {"users": [{"name": name}]})

    assert fault(answer)[:2] == (400, "badRequest")
    assert await keep.operations() == []


async def test_a_refused_password_is_not_repeated(keep: World) -> None:
    one = await keep.instance()
    order = {"users": [{"name": "app", "password": "secret\nword"}]}

    answer = await keep.call("POST", f"/instances/{one.id}/users", order)

    assert fault(answer)[0] == 400
    assert "users.0.password" in fault(answer)[2]
    assert "secret" not in answer.text


async def test_a_user_exists_once(keep: World) -> None:
    one = await keep.instance()
    path = f"/instances/{one.id}/users"
    async with finishing(keep.store):
        await keep.call("POST", path, {"users": [{"name": "app"}]})

    again = await keep.call("POST", path, {"users": [{"name": "app"}]})
    twice = await keep.call("POST", path, {"users": [{"name": "job"}, {"name": "job"}]})

    assert fault(again)[:2] == fault(twice)[:2] == (409, "conflict")


async def test_a_user_that_is_not_there_is_not_found(keep: World) -> None:
    one = await keep.instance()
    path = f"/instances/{one.id}/users"

    answers = [
        await keep.call("GET", f"{path}/app"),
        await keep.call("DELETE", f"{path}/app"),
        await keep.call("DELETE", f"{path}/default"),
        await keep.call("PUT", path, {"users": [{"name": "app", "password": "x"}]}),
    ]

    assert {fault(answer)[:2] for answer in answers} == {(404, "itemNotFound")}


async def test_root_gets_a_new_password_and_loses_it(keep: World) -> None:
    one = await keep.instance()
    path = f"/instances/{one.id}/root"
    before = (await keep.call("GET", path)).json()

    async with finishing(keep.store):
        enabled = (await keep.call("POST", path)).json()
        known = (await users(keep, one))["default"]
        while_enabled = (await keep.call("GET", path)).json()
        chosen = (await keep.call("POST", path, {"password": "mine"})).json()
        disabled = await keep.call("DELETE", path)

    assert (before, while_enabled) == ({"rootEnabled": False}, {"rootEnabled": True})
    assert known == digest(enabled["user"]["password"])
    assert chosen == {"user": {"name": "default", "password": "mine"}}
    assert disabled.status_code == 202
    assert (await users(keep, one))["default"] not in (digest("mine"), digest("secret"))
    assert (await keep.call("GET", path)).json() == {"rootEnabled": False}


async def test_users_belong_to_the_source(keep: World) -> None:
    replica = await keep.instance(of=await keep.instance())

    for method, path, body in (
        ("GET", "/users", None),
        ("GET", "/root", None),
        ("POST", "/root", None),
        ("POST", "/users", {"users": [{"name": "app"}]}),
    ):
        assert fault(await keep.call(method, f"/instances/{replica.id}{path}", body))[:2] == (400, "badRequest")


async def test_users_wait_for_their_instance(keep: World) -> None:
    one = await keep.instance(Status.BUILD)

    assert fault(await keep.call("POST", f"/instances/{one.id}/root"))[:2] == (422, "unprocessableEntity")


async def test_root_comes_first_whatever_happens_to_others(keep: World) -> None:
    one = await keep.instance()
    async with finishing(keep.store):
        await keep.call("POST", f"/instances/{one.id}/users", {"users": [{"name": "app", "password": "a"}]})
        await keep.call("POST", f"/instances/{one.id}/root", {"password": "r"})

    assert (await keep.group(one.group_id)).users == (RedisUser("default", digest("r")), RedisUser("app", digest("a")))

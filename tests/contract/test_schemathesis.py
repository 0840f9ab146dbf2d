"""The OpenAPI document and the application say the same: whatever is sent, nothing fails, and every answer has
the shape that the document promises.

Requests are generated from the document, with a seed that never changes, and served in process.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, note, settings
from schemathesis import Case, CheckContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from starlette.types import ASGIApp, Receive, Scope, Send

from redkeep.api.app import create_app
from redkeep.api.settings import ApiSettings
from redkeep.model.cluster import Cluster, ClusterTask
from redkeep.model.instance import Group, Host, Instance, RedisUser, Secrets, Status
from redkeep.model.topology import Address, Role
from redkeep.northbound.memory import MemoryBus, MemoryExchange
from redkeep.ports import Store
from redkeep.store.sql import open_store
from redkeep.vault import Vault

SEED = 20260101
INSTANCE_ID = "11111111-1111-4111-8111-111111111111"
GROUP = Group("g", "demo", Secrets("a", "r"), INSTANCE_ID, users=(RedisUser("default", ""), RedisUser("app", "")))
INSTANCE = Instance(
    id=INSTANCE_ID,
    group_id="g",
    project_id="demo",
    name="cache",
    role=Role.PRIMARY,
    status=Status.ACTIVE,
    flavor_id="1",
    volume_gb=1,
    version="7.0",
    created=1.0,
    updated=1.0,
    address=Address("10.0.0.1", 7000),
)
"""On no host, so that nobody waits for the word of an agent."""
CLUSTER_ID = "22222222-2222-4222-8222-222222222222"
ITS_GROUP = replace(GROUP, id=CLUSTER_ID, primary_id=None)
CLUSTER = Cluster(CLUSTER_ID, "demo", "c", "7.0", ClusterTask.NONE, 1.0, 1.0, formed=True, members_made=2)
MEMBERS = tuple(
    replace(INSTANCE, id=f"{n}" * 8 + INSTANCE_ID[8:], group_id=CLUSTER_ID, address=None, shard=str(n)) for n in (3, 4)
)


class Keep:
    """The application over a store that is opened in the event loop of the first request, and in which the same
    instance waits for each of them."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._store: Store | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="redkeep-test-")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        app = self._app or await self._open()
        assert self._store is not None
        async with self._store.begin() as tx:
            leftovers = await tx.instances()
            gone = (replace(one, deleted=True) for one in leftovers)
            await tx.save(GROUP, *gone, INSTANCE, ITS_GROUP, CLUSTER, *MEMBERS)
        await app(scope, receive, send)

    async def _open(self) -> ASGIApp:
        here = Path(self._directory.name)
        self._store = store = await open_store(f"sqlite:///{here}/rows.db")
        async with store.begin() as tx:
            await tx.save(Host("h1", "10.0.0.1", 7000, 7999, ("7.0", "6.2"), 2**36, 2**40, 2**40, await tx.now()))
        api_settings = ApiSettings(auth="noauth", users_wait_seconds=0.0)
        bus = MemoryBus(MemoryExchange(), name="api")
        self._app = create_app(api_settings, store, bus, Vault.open(here / "key"))
        return self._app


keep = Keep()
schema = schemathesis.openapi.from_asgi("/openapi.json", keep, config=SchemathesisConfig(seed=SEED))


@schemathesis.check
def no_failure_of_ours(_: CheckContext, response: Response, __: Case[Any]) -> None:
    """501 is an answer that the contract asks for; all else from 500 on is not meant to be seen here."""
    assert response.status_code < 500 or response.status_code == 501, response.text


CHECKS = [
    no_failure_of_ours,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
"""Not those that want 405 for a wrong method (the contract says 404), a 400 for unknown keys (it says: ignore them), or
success for whatever fits the schema (rows decide as well)."""


@schema.parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: Case[Any]) -> None:
    note(f"seed {SEED}")
    if "project" in case.path_parameters:
        case.path_parameters["project"] = "demo"
    if "instance_id" in case.path_parameters:
        case.path_parameters["instance_id"] = MEMBERS[0].id if "cluster_id" in case.path_parameters else INSTANCE_ID
    if "cluster_id" in case.path_parameters:
        case.path_parameters["cluster_id"] = CLUSTER_ID

    case.call_and_validate(checks=CHECKS)

"""`openstack database cluster ...` and `trove cluster-...` as people install them, against a Redkeep that works."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.contract.api_world import write_htpasswd
from tests.real.cluster_members import in_order, members

from redkeep.api.app import create_app
from redkeep.api.settings import ApiSettings
from redkeep.testing.servers import free_port
from redkeep.testing.stack import Stack, stack

pytestmark = [pytest.mark.real, pytest.mark.clients, pytest.mark.timeout(400)]

PASSWORD = "open sesame"
MEMBER = "flavor=1,volume=1"


@dataclass
class Shell:
    """The clients as processes, configured by nothing but the usual variables."""

    found: Stack
    port: int

    async def run(self, program: str, *arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "PYTHONWARNINGS": "ignore",
            "OS_AUTH_URL": f"http://127.0.0.1:{self.port}/identity/v3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
        }
        command = [str(Path(sys.executable).parent / program), *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr or done.stdout}"
        return str(done.stdout)

    async def openstack(self, *arguments: str) -> Any:
        """What `openstack database cluster ...` prints, as data."""
        return json.loads(await self.run("openstack", "database", "cluster", *arguments, "-f", "json"))

    async def order(self, *arguments: str) -> None:
        """One that prints nothing."""
        await self.run("openstack", "database", "cluster", *arguments)

    async def trove(self, *arguments: str) -> Any:
        return json.loads(await self.run("trove", "--json", *arguments))


@asynccontextmanager
async def shell(directory: Path) -> AsyncIterator[Shell]:
    """Agent, manager, and an API on a port."""
    async with stack() as found:
        await found.start_agent()
        await found.start_manager()
        assert found.store is not None
        settings = ApiSettings(auth="basic", htpasswd=write_htpasswd(directory / "htpasswd", {"admin": PASSWORD}))
        bus, port = found.bus("api on a port"), free_port()
        config = uvicorn.Config(
            create_app(settings, found.store, bus, found.vault),
            host="127.0.0.1",
            port=port,
            log_level="warning",
            lifespan="off",
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await found.eventually(lambda: asyncio.sleep(0, server.started), what="the API")
        try:
            yield Shell(found, port)
        finally:
            server.should_exit = True
            await serving
            await bus.close()


async def test_openstack_lives_through_a_clusters_life(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        instances = ["--instance", MEMBER] * 3
        made = await sh.openstack("create", "life", "redis", "7.0", *instances)
        assert (made["task_name"], made["instance_count"]) == ("BUILDING", 3)
        await sh.found.until_free(made["id"])
        assert await in_order(sh.found, made["id"])

        shown = await sh.openstack("show", "life")
        assert (shown["id"], shown["task_name"], shown["ip"]) == (made["id"], "NONE", "127.0.0.1, 127.0.0.1, 127.0.0.1")
        listed = await sh.openstack("list")
        assert [(one["Name"], one["Task Name"]) for one in listed] == [("life", "NONE")]

        await sh.order("grow", "--instance", f"{MEMBER},name=extra", "life")
        await sh.found.until_free(made["id"])
        grown = await sh.openstack("list", "instances", "life")
        assert [(one["Name"], one["Status"], one["Size"]) for one in grown] == [
            *((f"life-member-{n}", "ACTIVE", 1) for n in (1, 2, 3)),
            ("extra", "ACTIVE", 1),
        ]
        extra = next(one["ID"] for one in grown if one["Name"] == "extra")

        await sh.order("shrink", "life", extra)
        await sh.found.until_free(made["id"])
        assert len(await members(sh.found, made["id"])) == 3
        assert await in_order(sh.found, made["id"])

        await sh.order("reset", "status", "life")
        await sh.order("force", "delete", "life")
        await sh.found.idle()
        assert await sh.openstack("list") == []
        assert sh.found.redis_processes() == []


async def test_openstack_orders_replicas_and_upgrades(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        instances = ["--instance", MEMBER] * 2
        properties = ["--extended-properties", "replicas_per_shard=1", "--locality", "anti-affinity"]
        made = await sh.openstack("create", "old", "redis", "6.2", *instances, *properties)
        await sh.found.until_free(made["id"])
        assert len(await members(sh.found, made["id"])) == 4

        await sh.order("upgrade", "old", "7.0")
        await sh.found.until_free(made["id"], 120)

        assert {one.version for one in await members(sh.found, made["id"])} == {"7.0"}
        assert (await sh.openstack("show", "old"))["datastore_version"] == "7.0"
        await sh.order("delete", "old")
        await sh.found.idle()
        assert await sh.openstack("list") == []


async def test_the_legacy_client_lives_through_a_clusters_life(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        instances = ["--instance", MEMBER] * 3
        made = await sh.trove("cluster-create", "life", "redis", "7.0", *instances)
        await sh.found.until_free(made["id"])

        shown = await sh.trove("cluster-show", "life")
        assert shown["ip"] == "127.0.0.1, 127.0.0.1, 127.0.0.1"
        assert [one["name"] for one in await sh.trove("cluster-list")] == ["life"]
        await sh.run("trove", "cluster-grow", "life", "--instance", MEMBER)
        grown = await sh.found.until_free(made["id"])
        table = await sh.run("trove", "cluster-instances", "life")  # --json breaks in the client itself
        assert all(f"life-member-{n}" in table for n in (1, 2, 3, 4))
        assert table.count("ACTIVE") == 4
        await sh.run("trove", "cluster-shrink", "life", grown["instances"][3]["id"])
        await sh.found.until_free(made["id"])
        assert await in_order(sh.found, made["id"])

        await sh.run("trove", "cluster-reset-status", "life")
        await sh.run("trove", "cluster-delete", "life")
        await sh.found.idle()
        assert await sh.trove("cluster-list") == []

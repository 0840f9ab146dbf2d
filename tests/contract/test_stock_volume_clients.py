"""The clients of Cinder that people have already: `cinder`, `openstack volume service|host`, `openstack block storage
cluster`, the SDK and the bindings; without keystone, with HTTP Basic, and with a password.

They talk to a real API on a port, which has three real managers behind it, with a driver without storage.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openstack
import pytest
import uvicorn
from cinderclient import client as cinder_client
from cinderclient.contrib.noauth import CinderNoAuthPlugin
from keystoneauth1 import session
from openstack.block_storage.v3.service import Service as SdkService
from tests.contract.api_world import write_htpasswd

from redkeep.api.app import create_app
from redkeep.api.settings import ApiSettings
from redkeep.manager.membership import Membership
from redkeep.manager.settings import ManagerSettings
from redkeep.model.site import Backend, ReplicationTarget
from redkeep.northbound.memory import MemoryBus, MemoryExchange
from redkeep.orders import BusAgents
from redkeep.store.sql import open_store
from redkeep.testing.fake_backend import FakeStorage
from redkeep.testing.servers import free_port
from redkeep.vault import Vault

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(600),
    # The clients' own imports say that; nothing of it is ours to change.
    pytest.mark.filterwarnings("ignore:The osc_lib.version module is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:cinderclient"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:openstack"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.OpenStackDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.UnsupportedServiceVersion"),
]

PASSWORD = "open sesame"
CLUSTER = "managers@redis"
HOSTS = ["m1@redis", "m2@redis", "m3@redis"]


# --- The other side -------------------------------------------------------------------------------------------------


async def serve(directory: Path, servers: list[tuple[uvicorn.Server, ApiSettings]]) -> None:
    """APIs over one store, and the managers."""
    store = await open_store(f"sqlite:///{directory}/rows.db")
    exchange, storage, vault = MemoryExchange(), FakeStorage(), Vault.open(directory / "key")
    buses = [MemoryBus(exchange, name=f"m{n}") for n in (1, 2, 3)]
    targets = (ReplicationTarget("dr1", "dr1"), ReplicationTarget("dr2", "dr2"))
    members = [
        Membership(
            ManagerSettings(name, {}, backend=Backend(targets=targets), look_interval=0.05, report_interval=0.5),
            store,
            bus,
            BusAgents(bus),
            storage.driver_class(),
        )
        for name, bus in zip(("m1", "m2", "m3"), buses, strict=True)
    ]
    for member in members:
        await member.join()
    running = [asyncio.create_task(member.run()) for member in members]
    for server, settings in servers:
        server.config.app = create_app(settings, store, MemoryBus(exchange, name="api"), vault)
    await asyncio.gather(*(server.serve() for server, _ in servers))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await store.close()


@dataclass(frozen=True)
class Keep:
    """A running installation: one API that lets everybody in, one that wants credentials."""

    open_port: int
    closed_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.open_port}"

    @property
    def closed_url(self) -> str:
        return f"http://127.0.0.1:{self.closed_port}"

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        program = str(Path(sys.executable).parent / command[0])
        usual = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            [program, *command[1:]], env=usual | environment, capture_output=True, text=True, timeout=120, check=False
        )

    def cinder(self, *arguments: str, url: str = "", auth: str = "none") -> str:
        """What `cinder` prints."""
        ways = {
            "noauth": ("--os-auth-type", "noauth", "--os-user-id", "admin"),
            "none": ("--os-auth-type", "none"),
            "http_basic": ("--os-auth-type", "http_basic", "--os-username", "admin", "--os-password", PASSWORD),
        }
        where = url or (f"{self.closed_url}/v3/demo" if auth == "http_basic" else f"{self.url}/v3/demo")
        done = self.run("cinder", *ways[auth], "--os-project-id", "demo", "--os-endpoint", where, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def openstack(
        self, *arguments: str, version: str = "3.26", as_data: bool = True, way: dict[str, str] | None = None
    ) -> Any:
        """What `openstack` prints, as data; without authentication unless the environment says otherwise."""
        way = way or {"OS_AUTH_TYPE": "none", "OS_ENDPOINT": f"{self.url}/v3/demo"}
        more = {"OS_VOLUME_API_VERSION": version} if version else {}
        done = self.run("openstack", *arguments, *(("-f", "json") if as_data else ()), **way, **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if as_data else done.stdout

    def password(self) -> dict[str, str]:
        """The environment of somebody who logs in by the identity facade."""
        return {
            "OS_AUTH_URL": f"{self.closed_url}/identity/v3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
        }

    def sdk(self) -> Any:
        """The SDK's proxy, as section 7 of the contract has it."""
        found = openstack.connect(
            auth_type="none",
            auth={"endpoint": f"{self.url}/v3/demo"},
            block_storage_default_microversion="3.26",
            load_yaml_config=False,
            load_envvars=False,
        )
        return found.block_storage


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keep]:
    directory = tmp_path_factory.mktemp("keep")
    passwords = write_htpasswd(directory / "htpasswd", {"admin": PASSWORD, "demo": PASSWORD})
    ports = free_port(), free_port()
    servers = [
        uvicorn.Server(uvicorn.Config("unused", host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
        for port in ports
    ]
    settings = [ApiSettings(auth="noauth"), ApiSettings(auth="basic", htpasswd=passwords)]
    thread = threading.Thread(target=lambda: asyncio.run(serve(directory, list(zip(servers, settings, strict=True)))))
    thread.start()
    until(lambda: all(server.started for server in servers), seconds=60)
    yield Keep(*ports)
    for server in servers:
        server.should_exit = True
    thread.join(30)


@pytest.fixture(autouse=True)
def _at_home(keep: Keep) -> Iterator[None]:
    """Each test finds the backend at its own site, thawed and enabled."""
    yield
    proxy = keep.sdk()
    one = proxy.get_cluster(CLUSTER)
    if one.frozen:
        proxy.thaw_service(SdkService(host="m1@redis"))
    if one.replication_status != "enabled":
        proxy.failover_service(SdkService(host="m1@redis"), backend_id="default")
        until_status(keep, "enabled")


def until(true: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def until_status(keep: Keep, status: str) -> None:
    """Until the cluster is there and everybody has followed."""
    proxy = keep.sdk()

    def there() -> bool:
        rows = [proxy.get_cluster(CLUSTER), *proxy.services()]
        return {row.replication_status for row in rows} == {status}

    until(there)


def host_rows(printed: str) -> list[list[str]]:
    """The cells of a table that a client printed, without its frame."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# --- cinder ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["noauth", "none", "http_basic"])
def test_cinder_lists_services_and_clusters_whatever_the_authentication(keep: Keep, auth: str) -> None:
    services = keep.cinder("service-list", auth=auth)
    clusters = keep.cinder("cluster-list", auth=auth)

    assert [row[1] for row in host_rows(services)[1:]] == HOSTS
    assert host_rows(clusters)[1][:4] == [CLUSTER, "cinder-volume", "up", "enabled"]


def test_cinder_logs_in_with_a_password(keep: Keep) -> None:
    """With what `openrc` exports."""
    done = keep.run("cinder", "service-list", **keep.password(), OS_VOLUME_API_VERSION="3.26")
    moved = keep.run("cinder", "failover-host", "m1", "--backend_id", "dr1", **keep.password())
    until_status(keep, "failed-over")

    assert [row[1] for row in host_rows(done.stdout)[1:]] == HOSTS, done.stderr
    assert moved.returncode == 0, moved.stderr


def test_cinder_works_without_a_project_in_the_address_and_finds_its_version(keep: Keep) -> None:
    services = keep.cinder("service-list", "--withreplication", url=f"{keep.url}/v3")
    versions = keep.cinder("version-list")
    api = keep.cinder("api-version")

    assert "enabled" in services
    assert "3.26" in versions
    assert "3.26" in api or "3.0" in api


def test_cinder_shows_filters_disables_and_enables_a_cluster(keep: Keep) -> None:
    keep.cinder("cluster-disable", "managers", "--reason", "dust")
    off = keep.cinder("cluster-show", "managers")
    found = [keep.cinder("cluster-list", "--disabled", value, "--detailed") for value in ("true", "false")]
    keep.cinder("cluster-enable", "managers@redis")
    on = keep.cinder("cluster-list", "--name", "managers", "--is-up", "true", "--num-hosts", "3")

    assert "dust" in off
    assert (CLUSTER in found[0], CLUSTER in found[1]) == (True, False)
    assert "enabled" in on


def test_cinder_disables_and_enables_a_service(keep: Keep) -> None:
    keep.cinder("service-disable", "m2@redis", "cinder-volume", "--reason", "dust")
    one = host_rows(keep.cinder("service-list", "--host", "m2@redis", "--binary", "cinder-volume"))
    keep.cinder("service-enable", "m2@redis", "cinder-volume")
    two = keep.cinder("service-list", "--host", "m2")

    assert len(one) == 2
    assert "disabled" in one[1]
    assert "dust" in one[1]
    assert "disabled " not in two


@pytest.mark.parametrize("version", [(), ("--os-volume-api-version", "3.0"), ("--os-volume-api-version", "3.26")])
def test_cinder_fails_a_host_over_and_back(keep: Keep, version: tuple[str, ...]) -> None:
    keep.cinder(*version, "failover-host", "m1@redis", "--backend_id", "dr1")
    until_status(keep, "failed-over")
    over = keep.cinder("service-list", "--withreplication")
    keep.cinder(*version, "failover-host", "m2@redis", "--backend_id", "default")
    until_status(keep, "enabled")

    assert over.count("dr1") == 3


def test_cinder_freezes_and_thaws_and_says_what_is_wrong(keep: Keep) -> None:
    keep.cinder("freeze-host", "m1@redis")
    frozen = keep.sdk().get_cluster(CLUSTER).frozen
    keep.cinder("thaw-host", "m3@redis")
    where = ("--os-project-id", "demo", "--os-endpoint", f"{keep.url}/v3/demo")
    wrong = keep.run("cinder", "--os-auth-type", "none", *where, "failover-host", "m1@redis", "--backend_id", "typo")

    assert frozen
    assert wrong.returncode == 1
    assert "Invalid replication target 'typo'" in wrong.stderr
    assert "HTTP 400" in wrong.stderr
    assert "req-" in wrong.stderr


# --- openstack ------------------------------------------------------------------------------------------------------


def test_openstack_lists_services_and_sets_them(keep: Keep) -> None:
    listed = keep.openstack("volume", "service", "list", "--long")
    keep.openstack("volume", "service", "set", "m1@redis", "cinder-volume", "--disable", as_data=False)
    reason = ("--disable", "--disable-reason", "dust")
    keep.openstack("volume", "service", "set", "m1@redis", "cinder-volume", *reason, as_data=False)
    off = keep.openstack("volume", "service", "list", "--host", "m1@redis", "--service", "cinder-volume", "--long")
    keep.openstack("volume", "service", "set", "m1@redis", "cinder-volume", "--enable", as_data=False)
    on = keep.openstack("volume", "service", "list", "--host", "m1@redis")

    assert [each["Host"] for each in listed] == HOSTS
    assert (off[0]["Status"], off[0]["Disabled Reason"]) == ("disabled", "dust")
    assert on[0]["Status"] == "enabled"


@pytest.mark.parametrize("version", ["", "3.26"])
def test_openstack_freezes_fails_over_and_thaws_a_host_with_a_version_and_without(keep: Keep, version: str) -> None:
    """Without one it sends none, and `failover` all the same (contract, section 0)."""
    keep.openstack("volume", "host", "set", "m1@redis", "--disable", as_data=False, version=version)
    frozen = keep.sdk().get_cluster(CLUSTER).frozen
    keep.openstack("volume", "host", "failover", "m1@redis", "--volume-backend", "dr1", as_data=False, version=version)
    until_status(keep, "failed-over")
    keep.openstack("volume", "host", "set", "m1@redis", "--enable", as_data=False, version=version)

    assert frozen
    assert not keep.sdk().get_cluster(CLUSTER).frozen


def test_openstack_lists_shows_and_sets_clusters(keep: Keep) -> None:
    base = ("block", "storage", "cluster")
    listed = keep.openstack(*base, "list", "--long")
    shown = keep.openstack(*base, "show", CLUSTER)
    found = keep.openstack(*base, "list", "--cluster", "managers", "--up", "--enabled", "--num-hosts", "3")
    none = keep.openstack(*base, "list", "--down")
    # It prints a tuple and ends with 1 although it worked: a bug of that client.
    way = {"OS_AUTH_TYPE": "none", "OS_ENDPOINT": f"{keep.url}/v3/demo", "OS_VOLUME_API_VERSION": "3.26"}
    keep.run("openstack", *base, "set", CLUSTER, "--disable", "--disable-reason", "dust", **way)
    off = keep.openstack(*base, "show", CLUSTER)
    keep.run("openstack", *base, "set", CLUSTER, "--enable", **way)
    on = keep.openstack(*base, "show", CLUSTER)

    assert listed[0]["Name"] == CLUSTER
    assert shown["Replication Status"] == "enabled"
    assert ([each["Name"] for each in found], none) == ([CLUSTER], [])
    assert (off["Status"], off["Disabled Reason"]) == ("disabled", "dust")
    assert on["Status"] == "enabled"


def test_openstack_with_http_basic_and_with_a_password(keep: Keep) -> None:
    basic = {
        "OS_AUTH_TYPE": "http_basic",
        "OS_ENDPOINT": f"{keep.closed_url}/v3/demo",
        "OS_USERNAME": "admin",
        "OS_PASSWORD": PASSWORD,
    }
    by_basic = keep.openstack("volume", "service", "list", way=basic)
    by_password = keep.openstack("volume", "service", "list", way=keep.password())
    clusters = keep.openstack("block", "storage", "cluster", "list", way=keep.password())
    way = {**keep.password(), "OS_USERNAME": "demo", "OS_PROJECT_NAME": "demo"}
    tenant = keep.run("openstack", "volume", "service", "list", **way)

    assert [each["Host"] for each in by_basic] == [each["Host"] for each in by_password] == HOSTS
    assert [each["Name"] for each in clusters] == [CLUSTER]
    assert tenant.returncode == 1
    assert "403" in tenant.stderr


# --- The SDK and the bindings ---------------------------------------------------------------------------------------


def test_the_sdk_reads_and_changes_clusters(keep: Keep) -> None:
    proxy = keep.sdk()

    (one,) = proxy.clusters(details=True)
    by_filter = [list(proxy.clusters(details=True, **query)) for query in ({"frozen": True}, {"frozen": False})]
    proxy.disable_cluster(one, reason="dust")
    off = proxy.get_cluster(CLUSTER)
    said = off.status, off.disabled_reason
    proxy.enable_cluster(off)
    found = proxy.find_cluster("managers")

    assert (one.name, one.replication_status, one.frozen) == (CLUSTER, "enabled", False)
    assert [len(each) for each in by_filter] == [0, 1]
    assert said == ("disabled", "dust")
    assert found.status == "enabled"


def test_the_sdk_fails_a_whole_cluster_over(keep: Keep) -> None:
    """With a service whose host is null, the only way in which it sends a cluster alone."""
    proxy = keep.sdk()

    proxy.failover_service(SdkService(host=None), cluster=CLUSTER, backend_id="dr2")
    until_status(keep, "failed-over")

    assert proxy.get_cluster(CLUSTER).active_backend_id == "dr2"


def test_the_sdk_freezes_disables_and_fails_over_a_service(keep: Keep) -> None:
    proxy = keep.sdk()
    one = proxy.find_service("cinder-volume", host="m1@redis")

    proxy.freeze_service(one)
    frozen = proxy.get_cluster(CLUSTER).frozen
    proxy.thaw_service(one)
    proxy.disable_service(one, reason="dust")
    off = proxy.find_service("cinder-volume", host="m1@redis")
    said = off.status, off.disabled_reason
    proxy.enable_service(off)
    proxy.failover_service(one, backend_id="dr1")
    until_status(keep, "failed-over")

    assert frozen
    assert said == ("disabled", "dust")


def test_the_bindings_of_cinder_read_clusters_and_fail_over(keep: Keep) -> None:
    auth = CinderNoAuthPlugin("admin", "demo", endpoint=f"{keep.url}/v3")
    cinder = cinder_client.Client("3.26", session=session.Session(auth=auth))

    (one,) = cinder.clusters.list(detailed=True)
    none = cinder.clusters.list(is_up="false")
    cinder.services.failover_host("m1@redis", "dr1")
    until_status(keep, "failed-over")
    cinder.services._update("/os-services/failover", {"cluster": CLUSTER, "backend_id": "default"})
    until_status(keep, "enabled")

    assert (one.name, one.num_hosts, one.replication_status) == (CLUSTER, 3, "enabled")
    assert none == []

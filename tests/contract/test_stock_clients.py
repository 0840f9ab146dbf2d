"""The clients that people have already: python-troveclient, `openstack database ...` and the legacy `trove`.

They talk to a real server on a port, log in by the identity facade, and a stand-in does what the managers would do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from keystoneauth1 import http_basic, session
from keystoneauth1.identity import v3
from tests.contract.api_world import write_htpasswd
from troveclient import client
from troveclient.apiclient import exceptions

from redkeep.api.app import create_app
from redkeep.api.settings import ApiSettings
from redkeep.model.backup import BackupStatus
from redkeep.model.instance import Applied, Host, Status
from redkeep.model.operation import Kind, Operation, State
from redkeep.model.topology import Address, Role
from redkeep.northbound.memory import MemoryBus, MemoryExchange
from redkeep.ports import Store, Transaction
from redkeep.store.sql import open_store
from redkeep.testing.servers import free_port
from redkeep.vault import Vault

pytestmark = [
    pytest.mark.clients,
    # The clients' own imports say that; nothing of it is ours to change.
    pytest.mark.filterwarnings("ignore:The osc_lib.version module is deprecated:DeprecationWarning"),
]

PASSWORD = "open sesame"


# --- The other side -----------------------------------------------------------------------------------------------


async def carry_out(tx: Transaction, operation: Operation) -> None:
    """What the managers make of an operation, as far as a client can see it."""
    members = await tx.instances(group_id=operation.group_id)
    about = operation.args.get("instance")
    if operation.kind is Kind.DELETE_INSTANCE:
        await tx.save(*(replace(one, deleted=True) for one in members if one.id == about))
    elif operation.kind is Kind.PROMOTE_REPLICA:
        members = [
            replace(one, role=Role.PRIMARY, replica_of=None)
            if one.id == about
            else replace(one, role=Role.REPLICA, replica_of=about)
            for one in members
        ]
    elif operation.kind in (Kind.CREATE_BACKUP, Kind.DELETE_BACKUP):
        backup = await tx.backup(str(operation.args["backup"]))
        done = BackupStatus.COMPLETED if operation.kind is Kind.CREATE_BACKUP else BackupStatus.DELETED
        assert backup is not None
        await tx.save(replace(backup, status=done, size_bytes=2**29, location="s3://keep/b/1.rdb"))
    elif operation.kind is Kind.RESIZE_INSTANCE:
        flavor, volume = operation.args.get("flavor"), operation.args.get("volume_gb")
        members = [
            replace(one, flavor_id=flavor or one.flavor_id, volume_gb=volume or one.volume_gb) for one in members
        ]
    elif operation.kind is Kind.CONFIGURE:
        values = tuple((name, value) for name, value in operation.args["parameters"])
        members = [replace(one, parameters=values) for one in members]
    elif operation.kind in (Kind.ROLL_GROUP, Kind.RESTART_INSTANCE):
        members = [
            replace(
                one,
                version=operation.args.get("version", one.version),
                proven=Applied(one.configuration_id, one.parameters),
            )
            for one in members
        ]
    for one in members:
        if one.status is not Status.SHUTDOWN:
            place = one.address or Address("10.0.0.1", 10000 + int(one.id.replace("-", ""), 16) % 50000)
            await tx.save(replace(one, status=Status.ACTIVE, host_id="h1", address=place))
    await tx.save(replace(operation, state=State.DONE))


async def stand_in(store: Store) -> None:
    """The managers, without servers."""
    while True:
        async with store.begin() as tx:
            for operation in await tx.open_operations():
                await carry_out(tx, operation)
        await asyncio.sleep(0.02)


async def serve(directory: Path, server: uvicorn.Server, settings: ApiSettings) -> None:
    store = await open_store(f"sqlite:///{directory}/rows.db")
    async with store.begin() as tx:
        await tx.save(Host("h1", "10.0.0.1", 7000, 7999, ("7.0", "6.2"), 2**36, 2**40, 2**40, await tx.now()))
    bus = MemoryBus(MemoryExchange(), name="api")
    server.config.app = create_app(settings, store, bus, Vault.open(directory / "key"))
    managers = asyncio.create_task(stand_in(store))
    await server.serve()
    managers.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await managers
    await store.close()


@dataclass(frozen=True)
class Keep:
    """A running installation."""

    port: int

    @property
    def auth_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/identity/v3"

    def trove(self) -> Any:
        """The bindings, logged in with a name and a password."""
        auth = v3.Password(
            auth_url=self.auth_url,
            username="demo",
            password=PASSWORD,
            project_name="demo",
            user_domain_name="Default",
            project_domain_name="Default",
        )
        return client.Client("1.0", session=session.Session(auth=auth))

    def run(self, program: str, *arguments: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        """A client as a process, configured by nothing but the usual variables."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "PYTHONWARNINGS": "ignore",
            "OS_AUTH_URL": self.auth_url,
            "OS_USERNAME": "demo",
            "OS_PASSWORD": password,
            "OS_PROJECT_NAME": "demo",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
        }
        command = [str(Path(sys.executable).parent / program), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def openstack(self, *arguments: str) -> Any:
        """What `openstack database ...` prints, as data."""
        done = self.run("openstack", "database", *arguments, "-f", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keep]:
    directory = tmp_path_factory.mktemp("keep")
    passwords = write_htpasswd(directory / "htpasswd", {"demo": PASSWORD})
    port = free_port()
    server = uvicorn.Server(uvicorn.Config("unused", host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(
        target=lambda: asyncio.run(serve(directory, server, ApiSettings(auth="basic", htpasswd=passwords)))
    )
    thread.start()
    until(lambda: server.started, seconds=10)
    yield Keep(port)
    server.should_exit = True
    thread.join(10)


def until(true: Callable[[], bool], *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def active(trove: Any, instance_id: str) -> Any:
    until(lambda: trove.instances.get(instance_id).status == "ACTIVE")
    return trove.instances.get(instance_id)


# --- The bindings -------------------------------------------------------------------------------------------------


def test_the_bindings_live_through_an_instances_life(keep: Keep) -> None:
    trove = keep.trove()

    made = trove.instances.create("life", 2, volume={"size": 2}, datastore="redis", datastore_version="7.0")
    assert made.password
    one = active(trove, made.id)
    assert one.ip == ["10.0.0.1"]
    assert made.id in {each.id for each in trove.instances.list()}

    trove.instances.restart(made.id)
    active(trove, made.id)
    trove.instances.resize_instance(made.id, 1)
    assert active(trove, made.id).flavor["id"] == 1
    trove.instances.resize_volume(made.id, 3)
    assert active(trove, made.id).volume["size"] == 3
    trove.instances.update(made.id, name="renamed")
    assert trove.instances.get(made.id).name == "renamed"

    trove.instances.delete(made.id)
    until(lambda: made.id not in {each.id for each in trove.instances.list()})
    with pytest.raises(exceptions.NotFound):
        trove.instances.get(made.id)


def test_the_bindings_replicate_and_promote(keep: Keep) -> None:
    trove = keep.trove()
    source = trove.instances.create("source", 1, volume={"size": 1})
    active(trove, source.id)

    last = trove.instances.create("copy", None, replica_of=source.id, replica_count=2)
    active(trove, last.id)
    assert last.name == "copy-2"
    assert len(trove.instances.get(source.id).replicas) == 2
    with pytest.raises(exceptions.Forbidden, match="Detach replicas"):
        trove.instances.delete(source.id)

    trove.instances.promote_to_replica_source(last.id)
    active(trove, last.id)
    assert trove.instances.get(source.id).replica_of["id"] == last.id
    with pytest.raises(exceptions.BadRequest, match="current heartbeat"):
        trove.instances.eject_replica_source(last.id)
    trove.instances.update(source.id, detach_replica_source=True)
    active(trove, source.id)


def test_the_bindings_hand_out_users_and_root(keep: Keep) -> None:
    trove = keep.trove()
    one = trove.instances.create("users", 1, volume={"size": 1})
    active(trove, one.id)

    trove.users.create(one.id, [{"name": "app", "password": "pw", "databases": []}, {"name": "a.b"}])
    assert [user.name for user in trove.users.list(one.id)] == ["app", "a.b"]
    assert trove.users.get(one.id, "a.b").name == "a.b"
    trove.users.change_passwords(one.id, [{"name": "app", "password": "other"}])
    trove.users.delete(one.id, "a.b")
    assert [user.name for user in trove.users.list(one.id)] == ["app"]

    name, password = trove.root.create(one.id)
    assert (name, bool(password)) == ("default", True)
    assert trove.root.is_root_enabled(one.id).rootEnabled is True
    trove.root.delete(one.id)
    assert trove.root.is_root_enabled(one.id).rootEnabled is False


def test_the_bindings_read_the_catalogue(keep: Keep) -> None:
    trove = keep.trove()

    assert trove.flavors.get(2).ram == 512
    assert [each.name for each in trove.datastores.list()] == ["redis"]
    assert [each.name for each in trove.datastore_versions.list("redis")] == ["7.0", "6.2"]
    assert trove.limits.list()[0].max_instances == 100


def test_the_bindings_turn_faults_into_their_exceptions(keep: Keep) -> None:
    trove = keep.trove()

    with pytest.raises(exceptions.BadRequest, match="Volume size was not specified"):
        trove.instances.create("no", 1)
    with pytest.raises(exceptions.RequestEntityTooLarge, match="Quota exceeded"):
        trove.instances.create("no", 1, volume={"size": 9999})
    with pytest.raises(exceptions.NotFound):
        trove.clusters.get("none")
    with pytest.raises(exceptions.HttpNotImplemented):
        trove.backups.create("half", "00000000-0000-0000-0000-000000000000", incremental=True)


def test_the_bindings_configure_and_upgrade(keep: Keep) -> None:
    trove = keep.trove()
    mine = trove.configurations.create("tuned", '{"hz": 50}', "for tests", "redis", "6.2")
    made = trove.instances.create("tuned", 1, volume={"size": 1}, datastore="redis", datastore_version="6.2")
    active(trove, made.id)

    trove.instances.update(made.id, configuration=mine.id)
    assert active(trove, made.id).configuration["id"] == mine.id
    assert [one.id for one in trove.configurations.instances(mine.id)] == [made.id]
    trove.configurations.edit(mine.id, '{"io-threads": 2}')
    until(lambda: trove.instances.get(made.id).status == "RESTART_REQUIRED")
    assert trove.configurations.get(mine.id).values == {"hz": 50, "io-threads": 2}
    with pytest.raises(exceptions.BadRequest, match="cannot be deleted"):
        trove.configurations.delete(mine.id)
    with pytest.raises(exceptions.BadRequest, match="append-only file"):
        trove.configurations.update(mine.id, '{"appendonly": "no", "save": ""}')

    trove.instances.upgrade(made.id, "7.0")
    assert active(trove, made.id).datastore["version"] == "7.0"
    assert trove.instances.configuration(made.id).configuration["hz"] == "10"
    trove.instances.update(made.id, remove_configuration=True)
    until(lambda: trove.instances.get(made.id).status == "RESTART_REQUIRED")
    trove.instances.restart(made.id)
    assert not hasattr(active(trove, made.id), "configuration")
    trove.configurations.delete(mine.id)
    assert mine.id not in {one.id for one in trove.configurations.list()}

    (version,) = [one.id for one in trove.datastore_versions.list("redis") if one.name == "7.0"]
    assert trove.configuration_parameters.get_parameter("redis", "7.0", "hz").max == 500
    assert "databases" in {one.name for one in trove.configuration_parameters.parameters_by_version(version)}


def test_the_bindings_need_no_identity_service(keep: Keep) -> None:
    endpoint = f"http://127.0.0.1:{keep.port}/v1.0/demo"
    auth = http_basic.HTTPBasicAuth(endpoint=endpoint, username="demo", password=PASSWORD)

    assert client.Client("1.0", session=session.Session(auth=auth)).flavors.list()


def test_the_bindings_back_up_and_restore(keep: Keep) -> None:
    trove = keep.trove()
    source = trove.instances.create("precious", 1, volume={"size": 1})
    active(trove, source.id)

    made = trove.backups.create("nightly", source.id, description="every night")
    until(lambda: trove.backups.get(made.id).status == "COMPLETED")
    active(trove, source.id)
    assert trove.backups.get(made.id).size == 0.5
    assert [each.id for each in trove.backups.list(instance_id=source.id)] == [made.id]
    assert [each.id for each in trove.instances.backups(source.id)] == [made.id]
    copy = trove.instances.create("copy of it", 1, volume={"size": 1}, restorePoint={"backupRef": made.id})
    active(trove, copy.id)

    trove.backups.delete(made.id)
    until(lambda: trove.backups.list(instance_id=source.id) == [])
    with pytest.raises(exceptions.NotFound):
        trove.backups.get(made.id)


# --- The command lines --------------------------------------------------------------------------------------------


def test_openstack_database_from_create_to_promote(keep: Keep) -> None:
    """By name, as people do."""
    trove = keep.trove()
    version = ("--datastore", "redis", "--datastore-version", "7.0")
    made = keep.openstack("instance", "create", "cli", "--flavor", "2", "--size", "2", *version)
    active(trove, made["id"])
    replica = keep.openstack("instance", "create", "cli-copy", "--replica-of", "cli")
    active(trove, replica["id"])

    listed = {each["Name"]: each for each in keep.openstack("instance", "list")}
    promoted = keep.run("openstack", "database", "instance", "promote", "cli-copy")
    active(trove, replica["id"])
    shown = keep.openstack("instance", "show", "cli-copy")

    assert (listed["cli"]["Role"], listed["cli-copy"]["Role"]) == ("primary", "replica")
    assert listed["cli"]["Operating Status"] == "HEALTHY"
    assert promoted.returncode == 0, promoted.stderr
    assert (shown["ip"], shown["replicas"], shown["datastore_version"]) == ("10.0.0.1", made["id"], "7.0")
    assert isinstance(shown["port"], int)


def test_openstack_database_configures(keep: Keep) -> None:
    """By name where the client looks names up."""
    trove = keep.trove()
    made = trove.instances.create("cfg", 1, volume={"size": 1})
    active(trove, made.id)
    mine = keep.openstack("configuration", "create", "cli-tuned", '{"hz": 50}', "--datastore", "redis")

    attached = keep.run("openstack", "database", "configuration", "attach", "cfg", "cli-tuned")
    active(trove, made.id)
    shown = keep.openstack("instance", "show", "cfg")
    known = keep.openstack("configuration", "parameter", "list", "7.0", "--datastore", "redis")

    assert attached.returncode == 0, attached.stderr
    assert (shown["configuration"], mine["values"]) == (mine["id"], '{"hz": 50}')
    assert {"Name": "hz", "Type": "integer", "Min Size": 1, "Max Size": 500, "Restart Required": False} in known


def test_openstack_database_tells_what_is_wrong(keep: Keep) -> None:
    refused = keep.run("openstack", "database", "instance", "create", "no", "--flavor", "6", "--size", "1")
    stranger = keep.run("openstack", "database", "flavor", "list", password="wrong")

    assert (refused.returncode, stranger.returncode) == (1, 1)
    assert "8192 MB" in refused.stderr
    assert "HTTP 401" in stranger.stderr


def test_the_legacy_trove_client_works_too(keep: Keep) -> None:
    source = keep.trove().instances.create("legacy", 1, volume={"size": 1})
    active(keep.trove(), source.id)

    made = keep.run("trove", "--json", "create", "legacy-copy", "1", "--replica_of", "legacy")
    listed = keep.run("trove", "--json", "list")
    rooted = keep.run("trove", "--json", "root-enable", "legacy")

    assert (made.returncode, listed.returncode, rooted.returncode) == (0, 0, 0), made.stderr + listed.stderr
    assert {"legacy", "legacy-copy"} <= {each["name"] for each in json.loads(listed.stdout)}


def test_openstack_and_trove_back_up_and_restore_by_name(keep: Keep) -> None:
    source = keep.trove().instances.create("ledger", 1, volume={"size": 1})
    active(keep.trove(), source.id)

    made = keep.openstack("backup", "create", "evening", "--instance", "ledger", "--description", "all of it")
    until(lambda: keep.trove().backups.get(made["id"]).status == "COMPLETED")
    listed = keep.openstack("backup", "list", "--instance", "ledger")
    shown = keep.openstack("backup", "show", "evening")
    size = ("--flavor", "1", "--size", "1", "--datastore", "redis", "--datastore-version", "7.0")
    copy = keep.openstack("instance", "create", "ledger-copy", *size, "--backup", "evening")
    active(keep.trove(), copy["id"])
    legacy = keep.run("trove", "--json", "backup-list")
    keep.run("openstack", "database", "backup", "delete", "evening")
    until(lambda: keep.openstack("backup", "list", "--instance", "ledger") == [], seconds=20)

    assert [(each["Name"], each["Status"]) for each in listed] == [("evening", "COMPLETED")]
    assert (shown["datastore"], shown["datastore_version"], shown["description"]) == ("redis", "7.0", "all of it")
    assert legacy.returncode == 0, legacy.stderr
    assert "evening" in {each["name"] for each in json.loads(legacy.stdout)}

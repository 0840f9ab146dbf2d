"""Backups on real servers: taken under a writing client, kept, checked, restored key by key."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redkeep.errors import Refused
from redkeep.model.backup import Backup, BackupStatus
from redkeep.model.instance import Status
from redkeep.model.operation import Kind
from redkeep.redis.checker import check_rdb
from redkeep.redis.versions import find_servers
from redkeep.testing.servers import free_port, redis_process
from redkeep.testing.stack import Part, Stack, stack

pytestmark = [
    pytest.mark.real,
    # moto's own; nothing of it is ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

VERSIONS = list(find_servers())
QUICK = {"lease_seconds": 1.0, "look_interval": 0.2}


def client(found: Stack, shown: dict[str, Any], name: str = "db") -> Redis:
    return Redis(
        host=shown["ip"][0],
        port=shown["port"],
        password=found.passwords[name],
        decode_responses=True,
        socket_timeout=5,
    )


def admin(found: Stack, instance_id: str) -> Redis:
    """As the agent commands the server."""
    server = next(part.service._servers[instance_id] for part in found.parts if instance_id in part.service._servers)
    password = found.vault.unseal(server.record.spec.secrets.admin)
    address = server.record.spec.address
    return Redis(host=address.host, port=address.port, username="redkeep-admin", password=password)


async def order(found: Stack, instance_id: str, name: str = "nightly") -> str:
    body = {"backup": {"name": name, "instance": instance_id, "incremental": 0}}
    made = await found.call("POST", "/backups", body, expect=202)
    return str(made["backup"]["id"])


async def row(found: Stack, backup_id: str) -> Backup:
    assert found.store is not None
    async with found.store.read() as tx:
        backup = await tx.backup(backup_id)
    assert backup is not None
    return backup


async def until(found: Stack, backup_id: str, *wanted: BackupStatus, limit: float = 30) -> Backup:
    async def there() -> Backup | None:
        backup = await row(found, backup_id)
        return backup if backup.status in wanted else None

    backup = await found.eventually(there, limit, what=f"{wanted} of the backup")
    assert isinstance(backup, Backup)
    return backup


async def completed(found: Stack, instance_id: str) -> Backup:
    backup = await until(found, await order(found, instance_id), BackupStatus.COMPLETED, BackupStatus.FAILED)
    assert backup.status is BackupStatus.COMPLETED, backup.fault
    return backup


async def contents(found: Stack, shown: dict[str, Any], name: str = "db") -> dict[str, Any]:
    """The value of every key, and whether it expires."""
    readers = {
        "string": lambda pipe, key: pipe.get(key),
        "hash": lambda pipe, key: pipe.hgetall(key),
        "list": lambda pipe, key: pipe.lrange(key, 0, -1),
        "set": lambda pipe, key: pipe.smembers(key),
        "zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
        "stream": lambda pipe, key: pipe.xrange(key),
    }
    async with client(found, shown, name) as redis, redis.pipeline(transaction=False) as pipe:
        keys = sorted(await redis.keys("*"))
        for key in keys:
            pipe.type(key)
        for key, kind in zip(keys, await pipe.execute(), strict=True):
            readers[kind](pipe, key)
            pipe.ttl(key)
        said = await pipe.execute()
    return {str(key): (said[2 * n], said[2 * n + 1] > 0) for n, key in enumerate(keys)}


async def fill(redis: Redis) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"text:{number}", "x" * number)
        pipe.set("soon", "gone", ex=3600)
        pipe.hset("hash", mapping={"a": 1, "b": "żółć"})
        pipe.zadd("sorted", {"a": 1.5, "b": float("inf")})
        pipe.rpush("list", *range(300))
        pipe.sadd("set", *"abc")
        pipe.xadd("stream", {"field": "value"})
        await pipe.execute()


@contextlib.asynccontextmanager
async def writing(redis: Redis) -> AsyncIterator[None]:
    """Two keys that are equal at every moment, and load beside them. It is under way when the block begins."""
    stop, going = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with contextlib.suppress(RedisError):
                await redis.mset({"first": number, "second": number, f"w:{number % 5000}": "y" * 100})
                going.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        try:
            await going.wait()
            yield
        finally:
            stop.set()


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_was_backed_up_is_restored_key_by_key(version: str) -> None:
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        source = await found.create(version=version)
        async with client(found, source) as redis:
            await fill(redis)
            backup = await completed(found, source["id"])
            before = await contents(found, source)

        made = await found.create("copy", version=version, restorePoint={"backupRef": backup.id})

        assert len(before) == 506
        assert await contents(found, made, "copy") == before
        async with client(found, made, "copy") as redis:
            assert await redis.set("new", "written")
        assert (await found.call("GET", f"/instances/{source['id']}"))["instance"]["status"] == "ACTIVE"
        await survives_a_crash(found, made)


async def survives_a_crash(found: Stack, made: dict[str, Any]) -> None:
    """Persistence is on: what was restored is there after kill -9 as well."""
    next(one for one in found.redis_processes() if one.cwd().endswith(made["id"])).kill()
    async with client(found, made, "copy") as redis:

        async def back() -> bool:
            with contextlib.suppress(RedisError):
                return bool(await redis.dbsize() == 507 and await redis.set("again", "written"))
            return False

        await found.eventually(back, what="the restored data after a crash")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_copy_is_taken_of_a_replica_while_the_primary_is_written_to(version: str) -> None:
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        primary, replica = await found.replicated(replicas=1, version=version)
        async with client(found, primary) as redis, writing(redis):
            backup = await completed(found, primary["id"])
            history = (await redis.info("replication"))["master_replid"]

        made = await found.create("copy", version=version, restorePoint={"backupRef": backup.id})

        assert backup.member_id == replica["id"]
        assert (backup.replication_id, backup.offset > 0) == (history, True)
        async with client(found, made, "copy") as redis:
            first, second = await redis.mget("first", "second")
            assert first == second
            assert int(first or 0) > 0


async def test_the_source_shows_that_it_is_backed_up_and_a_deleted_backup_is_gone() -> None:
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        source = await found.create()
        async with admin(found, source["id"]) as redis:
            await redis.mset({f"k{number}": number for number in range(1000)})
            await redis.config_set("rdb-key-save-delay", 1000)  # a second

        backup_id = await order(found, source["id"])
        await until(found, backup_id, BackupStatus.BUILDING)
        shown = (await found.call("GET", f"/instances/{source['id']}"))["instance"]["status"]
        await found.call("DELETE", f"/backups/{backup_id}", expect=422)
        await found.call("POST", "/backups", {"backup": {"name": "b", "instance": source["id"]}}, expect=422)
        backup = await until(found, backup_id, BackupStatus.COMPLETED)
        stored = [path.stat().st_size for path in (found.directory / "backups").rglob("*") if path.is_file()]
        await found.call("DELETE", f"/backups/{backup_id}", expect=202)
        await until(found, backup_id, BackupStatus.DELETED)

        assert shown == "BACKUP"
        assert stored == [backup.size_bytes]
        assert list((found.directory / "backups").rglob("*.rdb")) == []
        assert list((found.directory / "host-1").rglob("backup-*")) == []
        await found.call("GET", f"/backups/{backup_id}", expect=404)


async def test_a_backup_outlives_its_instance() -> None:
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        source = await found.create()
        async with client(found, source) as redis:
            await redis.set("kept", "yes")
        backup = await completed(found, source["id"])
        await found.call("DELETE", f"/instances/{source['id']}")
        await found.idle()

        made = await found.create("copy", restorePoint={"backupRef": backup.id})
        async with client(found, made, "copy") as redis:
            assert await redis.get("kept") == "yes"
        await found.call("DELETE", f"/backups/{backup.id}", expect=202)
        await until(found, backup.id, BackupStatus.DELETED)


async def test_an_older_redis_is_not_given_what_it_cannot_read() -> None:
    if VERSIONS[-1] == VERSIONS[0]:
        pytest.skip("there is one version of Redis here")
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        old = await found.create(version=VERSIONS[-1])
        async with client(found, old) as redis:
            await redis.set("kept", "yes")
        backup = await completed(found, old["id"])

        body = {"name": "newer", "flavorRef": 1, "volume": {"size": 1}, "restorePoint": {"backupRef": backup.id}}
        newer = await found.create("newer", version=VERSIONS[0], restorePoint={"backupRef": backup.id})
        async with client(found, newer, "newer") as redis:
            assert await redis.get("kept") == "yes"
        again = await completed(found, newer["id"])
        refused = await found.call(
            "POST",
            "/instances",
            {
                "instance": body
                | {"datastore": {"type": "redis", "version": VERSIONS[-1]}, "restorePoint": {"backupRef": again.id}}
            },
            expect=400,
        )

        assert "cannot read" in str(refused)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing"])
async def test_a_damaged_file_is_refused_before_anything_is_touched(harm: str) -> None:
    async with stack(manager_options=QUICK) as found:
        await found.start_agent()
        await found.start_manager()
        source = await found.create()
        async with client(found, source) as redis:
            await fill(redis)
        backup = await completed(found, source["id"])
        (file,) = (found.directory / "backups").rglob("*.rdb")
        damage(file, harm)

        body = {"name": "copy", "flavorRef": 1, "volume": {"size": 1}, "restorePoint": {"backupRef": backup.id}}
        made = (await found.call("POST", "/instances", {"instance": body}))["instance"]["id"]
        await found.idle()

        shown = (await found.call("GET", f"/instances/{made}"))["instance"]
        assert shown["status"] == Status.ERROR
        assert {"truncated": "bytes", "flipped": "SHA-256", "missing": "not there"}[harm] in shown["fault"]["message"]
        assert not (found.directory / "host-1" / made).exists()
        await found.call("DELETE", f"/instances/{made}")
        await found.idle()


def damage(file: Path, harm: str) -> None:
    content = bytearray(file.read_bytes())
    if harm == "truncated":
        file.write_bytes(content[:-1])
    elif harm == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()


async def test_data_that_went_with_a_port_that_was_taken_is_fetched_again() -> None:
    """A place that turns out to be a stranger's is given up with all that lies there; nobody starts empty after it."""
    async with stack(manager_options=QUICK) as found:
        agent = (await found.start_agent()).service
        await found.start_manager()
        source = await found.create()
        async with client(found, source) as redis:
            await redis.set("kept", "yes")
        backup = await completed(found, source["id"])

        with socket.create_server(("127.0.0.1", agent._settings.port_low + 1)):
            made = await found.create("copy", restorePoint={"backupRef": backup.id})

        assert made["port"] == agent._settings.port_low + 2
        async with client(found, made, "copy") as redis:
            assert await redis.get("kept") == "yes"


async def test_a_backup_goes_through_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    bucket = boto3.session.Session().resource("s3", endpoint_url=url).create_bucket(Bucket="keep")
    options = {"url": "s3://keep/deep", "endpoint_url": url}
    async with stack(manager_options=QUICK, backup_options=options) as found:
        await found.start_agent()
        await found.start_manager()
        source = await found.create()
        async with client(found, source) as redis:
            await fill(redis)
        backup = await completed(found, source["id"])
        before = await contents(found, source)
        (kept,) = bucket.objects.all()

        made = await found.create("copy", restorePoint={"backupRef": backup.id})
        restored = await contents(found, made, "copy")
        await found.call("DELETE", f"/backups/{backup.id}", expect=202)
        await until(found, backup.id, BackupStatus.DELETED)

        assert (backup.location, kept.size) == (f"s3://keep/deep/{backup.id}/1.rdb", backup.size_bytes)
        assert restored == before
        assert list(bucket.objects.all()) == []
    server.stop()


async def test_what_only_one_host_has_is_restored_there() -> None:
    async with stack(manager_options=QUICK, backup_options={"shared": False}) as found:
        for host in ("host-1", "host-2"):
            await found.start_agent(host)
        await found.start_manager()
        source = await found.create()
        backup = await completed(found, source["id"])
        (holder,) = [one.host_id for one in await found.rows()]

        made = await found.create("copy", restorePoint={"backupRef": backup.id})  # the other host has fewer servers
        elsewhere = await found.create("plain")

        hosts = {one.id: one.host_id for one in await found.rows()}
        assert backup.location.startswith(f"file://{holder}/")
        assert hosts[made["id"]] == holder
        assert hosts[elsewhere["id"]] != holder


@pytest.mark.parametrize("version", VERSIONS)
async def test_redis_own_check_refuses_what_is_cut_off_or_changed_anywhere(version: str, tmp_path: Path) -> None:
    program, file = find_servers()[version], tmp_path / "copy.rdb"
    with redis_process(version=version) as server, server.client() as redis:
        redis.set("key", "value")
        redis.save()
        whole = (server.directory / "dump.rdb").read_bytes()

    file.write_bytes(whole)
    await check_rdb(program, file)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(Refused, match="not one that"):
            await check_rdb(program, file)


async def test_a_restore_whose_host_is_lost_ends_with_the_reason() -> None:
    """Its place is chosen once: the copy may be nowhere else, and a server may have been started there."""
    agents: list[Part] = []

    def lose_host(kind: Kind, step: str) -> None:
        if kind is Kind.CREATE_INSTANCE and step == "fetch":
            agents[0].task.cancel()

    async with stack(manager_options={"host_lost": 4.0}) as found:
        agents.append(await found.start_agent())
        await found.start_manager(at_step=lose_host)
        source = await found.create()
        backup = await completed(found, source["id"])

        body = {"name": "copy", "flavorRef": 1, "volume": {"size": 1}, "restorePoint": {"backupRef": backup.id}}
        made = (await found.call("POST", "/instances", {"instance": body}))["instance"]

        with pytest.raises(AssertionError, match=r"has said nothing for .* delete the instance and order it again"):
            await found.until(made["id"], "ACTIVE", 60)

"""What every storage of backups does: a directory, and a bucket of a real S3 server in a process of its own port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from redkeep.errors import Refused, Unavailable
from redkeep.ports import BackupStorage
from redkeep.storage import StorageSettings, open_storage
from redkeep.testing.servers import free_port

MEGABYTE = 1024 * 1024
SEVERAL_PARTS = os.urandom(20 * MEGABYTE)

# moto's own imports and threads say these; nothing of it is ours to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """Of a running S3 server."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty one, with credentials where boto3 looks for them."""
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "word"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    made = boto3.session.Session().resource("s3", endpoint_url=s3_url).create_bucket(Bucket="keep")
    yield made
    made.objects.delete()
    made.delete()


@pytest.fixture(params=["directory", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BackupStorage:
    if request.param == "directory":
        return open_storage(StorageSettings(f"file://{tmp_path}/kept", "host-1"))
    request.getfixturevalue("bucket")
    url = request.getfixturevalue("s3_url")
    return open_storage(StorageSettings("s3://keep/deep/down", "host-1", endpoint_url=url))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(SEVERAL_PARTS)
    return path


async def test_what_was_put_comes_back_unchanged(storage: BackupStorage, source: Path, tmp_path: Path) -> None:
    sent, fetched = list[int](), list[int]()

    await storage.put("b/1.rdb", source, sent.append)
    await storage.get("b/1.rdb", tmp_path / "target", fetched.append)

    assert (tmp_path / "target").read_bytes() == SEVERAL_PARTS
    assert await storage.size("b/1.rdb") == max(sent) == max(fetched) == len(SEVERAL_PARTS)


async def test_putting_again_replaces(storage: BackupStorage, source: Path, tmp_path: Path) -> None:
    await storage.put("b/1.rdb", source)
    source.write_bytes(b"short")

    await storage.put("b/1.rdb", source)
    await storage.get("b/1.rdb", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"short"


async def test_what_is_not_there_is_refused_as_missing(storage: BackupStorage, tmp_path: Path) -> None:
    for asking in (storage.size("b/1.rdb"), storage.get("b/1.rdb", tmp_path / "target")):
        with pytest.raises(Refused) as refused:
            await asking
        assert refused.value.kind == "missing"
    assert list(tmp_path.glob("*target*")) == []


async def test_removing_takes_the_whole_folder_and_may_be_repeated(storage: BackupStorage, source: Path) -> None:
    source.write_bytes(b"short")
    for name in ("b/1.rdb", "b/2.rdb", "bb/1.rdb"):
        await storage.put(name, source)

    await storage.remove("b")
    await storage.remove("b")

    with pytest.raises(Refused):
        await storage.size("b/2.rdb")
    assert await storage.size("bb/1.rdb") == 5


async def test_putting_that_is_cancelled_leaves_nothing(storage: BackupStorage, source: Path) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(_: int) -> None:
        loop.call_soon_threadsafe(begun.set)

    task = asyncio.create_task(storage.put("b/1.rdb", source, tell))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    with pytest.raises(Refused):
        await storage.size("b/1.rdb")


async def test_a_location_says_where_it_is_and_who_has_it(tmp_path: Path) -> None:
    def locate(url: str, **more: Any) -> str:
        return open_storage(StorageSettings(url, "host-1", **more)).locate("b/1.rdb")

    assert locate("file:///srv/a%20b") == "file://host-1/srv/a%20b/b/1.rdb"
    assert locate("file:///srv", shared=True) == "file:///srv/b/1.rdb"
    assert locate("s3://keep") == "s3://keep/b/1.rdb"
    assert locate("s3://keep/deep/") == "s3://keep/deep/b/1.rdb"


@pytest.mark.parametrize("url", ["", "/srv", "file://other/srv", "file:srv", "s3:///x", "swift://c/x"])
def test_what_is_no_storage_is_refused_by_its_name(url: str) -> None:
    with pytest.raises(Refused, match=r"backup\.storage"):
        open_storage(StorageSettings(url, "host-1"))


async def test_a_service_that_is_away_is_unavailable(bucket: Any, source: Path) -> None:
    storage = open_storage(StorageSettings("s3://keep", "h", endpoint_url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable):
        await storage.size("b/1.rdb")


async def test_a_bucket_that_is_not_there_is_missing(bucket: Any, s3_url: str, source: Path) -> None:
    with pytest.raises(Refused) as refused:
        await open_storage(StorageSettings("s3://nowhere", "h", endpoint_url=s3_url)).put("b/1.rdb", source)

    assert refused.value.kind == "missing"


async def test_halves_that_a_killed_upload_left_behind_are_removed(bucket: Any, s3_url: str) -> None:
    storage = open_storage(StorageSettings("s3://keep", "h", endpoint_url=s3_url))
    bucket.Object("b/1.rdb").initiate_multipart_upload()

    await storage.remove("b")

    assert list(bucket.multipart_uploads.all()) == []


async def test_a_draft_that_a_killed_agent_left_behind_is_removed(tmp_path: Path) -> None:
    storage = open_storage(StorageSettings(f"file://{tmp_path}", "h"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/.1.rdb.part").write_bytes(b"half")

    await storage.remove("b")

    assert list(tmp_path.iterdir()) == []

"""Backups in a bucket of an S3-compatible service, by boto3: credentials and region come from its usual places.

An object appears when its upload is complete: that is the service's own promise, so no name is temporary here. What an
upload that was killed has left behind is not an object, and costs money until it is aborted: `put` and `remove` do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from redkeep.errors import RedkeepError, Refused, Unavailable
from redkeep.ports import Report
from redkeep.storage.threads import in_thread, silent

_CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 5})
_TRANSFER = TransferConfig(max_concurrency=4)

_MISSING = ("404", "NoSuchKey", "NoSuchBucket", "NoSuchUpload")
_FORBIDDEN = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")


class S3Storage:
    """Implements `ports.BackupStorage`."""

    def __init__(self, bucket: str, prefix: str, *, endpoint_url: str | None = None) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._endpoint_url = endpoint_url
        self._made: Any = None

    def locate(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    async def put(self, name: str, source: Path, report: Report = silent) -> None:
        def work(tell: Report) -> None:
            with self._border(name):
                self._abort_uploads(self._key(name))
                self._client.upload_file(
                    str(source), self._bucket, self._key(name), Callback=_Sum(tell), Config=_TRANSFER
                )

        await in_thread(work, report)

    async def get(self, name: str, target: Path, report: Report = silent) -> None:
        def work(tell: Report) -> None:
            with self._border(name):
                self._client.download_file(
                    self._bucket, self._key(name), str(target), Callback=_Sum(tell), Config=_TRANSFER
                )

        await in_thread(work, report)

    async def size(self, name: str) -> int:
        def work(_: Report) -> int:
            with self._border(name):
                return int(self._client.head_object(Bucket=self._bucket, Key=self._key(name))["ContentLength"])

        return await in_thread(work, silent)

    async def remove(self, folder: str) -> None:
        def work(_: Report) -> None:
            with self._border(folder):
                prefix = f"{self._key(folder)}/"
                self._abort_uploads(prefix)
                pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
                for each in [each for page in pages for each in page.get("Contents", ())]:
                    self._client.delete_object(Bucket=self._bucket, Key=each["Key"])

        await in_thread(work, silent)

    @property
    def _client(self) -> Any:
        """Made when it is needed first: finding credentials may ask the network."""
        if self._made is None:
            self._made = boto3.session.Session().client("s3", endpoint_url=self._endpoint_url, config=_CONFIG)
        return self._made

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _abort_uploads(self, prefix: str) -> None:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
        for each in [each for page in pages for each in page.get("Uploads", ())]:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=each["Key"], UploadId=each["UploadId"])

    @contextmanager
    def _border(self, name: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise _as_ours(error, self.locate(name)) from error
        except (BotoCoreError, Boto3Error) as error:
            raise Unavailable(f"{self.locate(name)}: {error}") from error
        except OSError as error:
            raise Unavailable(f"{error.filename}: {error.strerror or error}") from error


class _Sum:
    """boto3 reports what each part has moved, from several threads."""

    def __init__(self, tell: Report) -> None:
        self._tell = tell
        self._done = 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._tell(self._done)


def _as_ours(error: ClientError, location: str) -> RedkeepError:
    said = error.response.get("Error", {})
    code, text = str(said.get("Code", "")), f"{location}: {said.get('Message') or error}"
    if code in _MISSING:
        return Refused(text, kind="missing")
    return Refused(text, kind="forbidden") if code in _FORBIDDEN else Unavailable(text)

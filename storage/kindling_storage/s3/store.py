"""A store in a bucket, or under a prefix of one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from kindling_api.errors import NotFoundError, SpecError, StorageError, explain
from kindling_storage.s3.bucket import OWN, PROBE, Access, Bucket
from kindling_storage.s3.errors import MISSING, code_of
from kindling_storage.s3.stream import BUFFER_BYTES, ResumingStream
from kindling_storage.s3.upload import upload
from kindling_storage.store import Data, ObjectInfo, ObjectStore, as_stream, checked_path, not_found

DELETE_BATCH = 1000
"""S3's limit on the keys of one deletion."""


@dataclass(frozen=True)
class S3Store(ObjectStore):
    """A prefix in a bucket; all children share one client."""

    bucket: Bucket
    prefix: str
    """Before every path: empty, or ending with a slash."""

    @classmethod
    def from_uri(
        cls, uri: str, *, endpoint: str | None = None, region: str | None = None, access: Access = OWN
    ) -> S3Store:
        """The store at `s3://bucket/prefix`; nothing is contacted yet.

        `endpoint` defaults to AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, as for other tools.

        Raises:
            SpecError: the prefix or the endpoint is not one.
        """
        name, _, path = uri.removeprefix("s3://").partition("/")
        path = path.strip("/")
        prefix = f"{_checked_prefix(uri, path)}/" if path else ""
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        return cls(Bucket(name, prefix, _checked_endpoint(endpoint), region, access), prefix)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket.name}/{self.prefix}".rstrip("/")

    def child(self, path: str) -> S3Store:
        return S3Store(self.bucket, f"{self.key(path.rstrip('/'))}/")

    def key(self, path: str) -> str:
        """The object's key in the bucket."""
        return self.prefix + _checked_key(path)

    def local_path(self, path: str) -> None:
        return None

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(self._stream(path), BUFFER_BYTES))

    def get_range(self, path: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        try:
            with self._stream(path, start, start + length) as stream:
                return stream.readall()
        except StorageError as error:
            if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) in {"InvalidRange", "416"}:
                return b""  # past the end
            raise

    def exists(self, path: str) -> bool:
        try:
            self.info(path)
        except NotFoundError:
            return False
        return True

    def info(self, path: str) -> ObjectInfo:
        key = self.key(path)
        with self.bucket.errors(f"looking for {key}"):
            try:
                answer = self.bucket.client.head_object(Bucket=self.bucket.name, Key=key)
            except ClientError as error:
                if code_of(error) in MISSING:
                    raise not_found(self.uri, path) from error
                raise
        return ObjectInfo(path, answer["ContentLength"], answer["ETag"])

    def put(self, path: str, data: Data) -> ObjectInfo:
        with as_stream(data) as stream:
            uploaded = upload(self.bucket, self.key(path), stream)
        return ObjectInfo(path, uploaded.size, uploaded.etag, uploaded.digest)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self.bucket.put_if(self.key(path), data, match=None) is not None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self.bucket.errors(f"listing {self.prefix}{prefix}"):
            pages = self.bucket.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket.name, Prefix=self.prefix + prefix):
                for item in page.get("Contents", []):
                    path = item["Key"].removeprefix(self.prefix)
                    if path and not path.endswith(("/", PROBE)):  # other tools' folder marks, and our probe
                        yield ObjectInfo(path, item["Size"], item["ETag"], modified=item["LastModified"].timestamp())

    def delete(self, path: str) -> None:
        key = self.key(path)
        with self.bucket.errors(f"deleting {key}"):
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)

    def delete_prefix(self, folder: str) -> None:
        found = self.list(f"{checked_path(folder.rstrip('/'))}/" if folder else "")
        while batch := tuple(self.key(info.path) for info in islice(found, DELETE_BATCH)):
            self._delete_batch(batch)

    def _stream(self, path: str, start: int = 0, stop: int | None = None) -> ResumingStream:
        key = self.key(path)
        with self.bucket.errors(f"reading {key}"):
            try:
                return ResumingStream(self.bucket, key, start, stop)
            except ClientError as error:
                if code_of(error) in MISSING:
                    raise not_found(self.uri, path) from error
                raise

    def _delete_batch(self, keys: tuple[str, ...]) -> None:
        with self.bucket.errors(f"deleting {len(keys)} objects under {self.prefix}"):
            answer = self.bucket.client.delete_objects(
                Bucket=self.bucket.name, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        for refused in answer.get("Errors", [])[:1]:
            found = f"{refused.get('Code')} ({refused.get('Message')}), deleting {refused.get('Key')}"
            allowed, remedy = "a user who may delete here", "grant s3:DeleteObject on the bucket's objects"
            raise StorageError(explain(self.uri, found=found, allowed=allowed, remedy=remedy))


def _checked_key(path: str) -> str:
    """`path`, in which parts but the last may be empty, since `a//b` is another object than `a/b`.

    Raises:
        StorageError: see `checked_path`; HTTP clients take `.` and `..` for steps.
    """
    *folders, name = path.split("/")
    checked_path("/".join([*filter(None, folders), name]))
    return path


def _checked_prefix(uri: str, path: str) -> str:
    try:
        return checked_path(path)
    except StorageError as error:
        allowed = "s3://bucket/prefix without empty, '.' or '..' parts"
        raise SpecError(
            explain("storage uri", found=repr(uri), allowed=allowed, remedy="correct the prefix")
        ) from error


def _checked_endpoint(endpoint: str | None) -> str | None:
    """`endpoint`, if it is an address and nothing more: it is shown in messages, so it must hold no password."""
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme in ("http", "https") and parts.hostname and not parts.username and not parts.query:
        return endpoint
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    allowed = "http://host:port or https://host:port, without user or password"
    remedy = "write the address alone; credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    raise SpecError(explain("storage endpoint", found=repr(shown), allowed=allowed, remedy=remedy))

"""Writing an object of any size: small ones in one request, large ones in parts that are joined at the end.

Until they are joined nothing is visible. A failed upload is taken back; parts left by a killed process cost space
until the bucket's lifecycle rule (AbortIncompleteMultipartUpload) removes them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from kindling_api.errors import StorageError
from kindling_storage.atomic import remaining
from kindling_storage.s3.bucket import Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 16 << 20
MAX_PARTS = 10_000
"""S3's limit on the parts of one object."""
IN_FLIGHT = 4
"""Parts sent at a time; each is held in memory."""


@dataclass(frozen=True)
class Uploaded:
    """What was written: etag, size in bytes, and `sha256:…` of the content."""

    etag: str
    size: int
    digest: str


def upload(bucket: Bucket, key: str, source: BinaryIO) -> Uploaded:
    """Write all of `source` to `key`.

    Raises:
        StorageError: the server refused or could not be reached; the object is as it was before.
    """
    hashed = _Hashed(source)
    part_bytes = _part_bytes(source)
    first = hashed.read(part_bytes)
    if len(first) < part_bytes:
        with bucket.errors(f"writing {key}"):
            etag = bucket.client.put_object(Bucket=bucket.name, Key=key, Body=first)["ETag"]
    else:
        etag = _upload_in_parts(bucket, key, hashed.parts(first, part_bytes))
    return Uploaded(etag, hashed.size, hashed.digest)


def _upload_in_parts(bucket: Bucket, key: str, parts: Iterator[bytes]) -> str:
    """The etag of the object."""
    with bucket.errors(f"writing {key}"):
        client = bucket.client
        upload_id = client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
        try:
            sent = _send_parts(bucket, key, upload_id, parts)
            answer = client.complete_multipart_upload(
                Bucket=bucket.name, Key=key, UploadId=upload_id, MultipartUpload={"Parts": sent}
            )
            return answer["ETag"]
        except BaseException:
            with suppress(StorageError), bucket.errors(f"taking back {key}"):
                client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload_id)
            raise


def _send_parts(bucket: Bucket, key: str, upload_id: str, parts: Iterator[bytes]) -> list[CompletedPartTypeDef]:
    """Send the parts, a few at a time."""

    def send(number: int, data: bytes) -> CompletedPartTypeDef:
        answer = bucket.client.upload_part(
            Bucket=bucket.name, Key=key, UploadId=upload_id, PartNumber=number, Body=data
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    sent: list[CompletedPartTypeDef] = []
    under_way: deque[Future[CompletedPartTypeDef]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="kindling-upload") as pool:
        try:
            for number, data in enumerate(parts, start=1):
                under_way.append(pool.submit(send, number, data))
                if len(under_way) == IN_FLIGHT:
                    sent.append(under_way.popleft().result())
            sent.extend(future.result() for future in under_way)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sent


class _Hashed:
    """A stream whose size and digest are known once it has been read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, length: int) -> bytes:
        """Exactly `length` bytes, or fewer at the end."""
        chunks: list[bytes] = []
        missing = length
        while missing and (chunk := self._source.read(missing)):
            chunks.append(chunk)
            missing -= len(chunk)
        data = b"".join(chunks)
        self._hash.update(data)
        self.size += len(data)
        return data

    def parts(self, first: bytes, length: int) -> Iterator[bytes]:
        """`first`, and the rest of the stream in pieces of `length`."""
        yield first
        while data := self.read(length):
            yield data

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _part_bytes(source: BinaryIO) -> int:
    """Large enough for the whole stream to fit into MAX_PARTS, where its size can be known."""
    return max(PART_BYTES, -(-(remaining(source) or 0) // MAX_PARTS))

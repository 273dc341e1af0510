"""Reading an object as a stream that outlives a broken connection."""

from __future__ import annotations

import io
import os
import random
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from kindling_storage.s3 import errors
from kindling_storage.s3.bucket import Bucket

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody

BUFFER_BYTES = 1 << 20
FAILURES = 6
"""Connections that may break one after the other without a byte in between."""


class ResumingStream(io.RawIOBase):
    """The bytes [start, stop) of an object; where the connection breaks, the rest of that version is asked for again.

    Raises:
        botocore.exceptions.ClientError: on opening, what the server said.
        StorageError: on reading, the server stays away, or the object was replaced meanwhile.
    """

    def __init__(self, bucket: Bucket, key: str, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self._bucket = bucket
        self._key = key
        self._position = start
        self._stop = stop  # of an object without a stop, its size, known from the first answer
        self._etag: str | None = None
        self._body: StreamingBody | None = None
        self._failures = 0
        self._connect()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stop or 0}[whence]
        if base + offset != self._position:
            self._position = max(base + offset, 0)
            self._disconnect()
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max((self._stop or 0) - self._position, 0))
        while wanted:
            try:
                data = self._read_some(wanted)
            except (*errors.FAILURES, OSError) as error:
                self._wait_after(error)
                continue
            view[: len(data)] = data
            self._position += len(data)
            self._failures = 0
            return len(data)
        return 0

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _read_some(self, wanted: int) -> bytes:
        if self._body is None:
            self._connect()
        assert self._body is not None
        data = self._body.read(wanted)
        if not data:
            raise ConnectionResetError("the answer ended early")
        return data

    def _connect(self) -> None:
        request: dict[str, Any] = {"Bucket": self._bucket.name, "Key": self._key}
        if self._position or self._stop is not None:
            request["Range"] = f"bytes={self._position}-{'' if self._stop is None else self._stop - 1}"
        if self._etag is not None:
            request["IfMatch"] = self._etag
        answer = self._bucket.client.get_object(**request)
        self._body, self._etag = answer["Body"], answer["ETag"]
        self._stop = self._position + answer["ContentLength"]

    def _wait_after(self, error: errors.Failure) -> None:
        """Let some time go by before the next try; or give up, on an answer that will not change."""
        self._disconnect()
        self._failures += 1
        if isinstance(error, ClientError) or self._failures == FAILURES:
            raise self._bucket.error(error, f"reading {self._key}") from error
        time.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**self._failures, 5.0))

    def _disconnect(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

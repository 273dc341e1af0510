"""One bucket and the way to it: client, first contact, conditional writes, and errors in our words."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from kindling_api.errors import StorageError, explain
from kindling_storage.s3.credentials import mounted_at, new_session
from kindling_storage.s3.errors import (
    FAILURES,
    LISTING,
    MISSING,
    Address,
    Failure,
    NotS3Error,
    code_of,
    is_withdrawn,
    storage_error,
)
from kindling_storage.s3.retry import keep_retrying

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.awsrequest import AWSResponse
    from mypy_boto3_s3.client import S3Client

CONNECT_SECONDS = 5
READ_SECONDS = 60
ATTEMPTS = 6
"""Of each request that is throttled (botocore's standard mode); for a server that does not answer see `retry`."""
FIRST_CONTACT_SECONDS = 10
FIRST_CONTACT_ATTEMPTS = 2
"""Of the first request, so that a wrong address or key is reported within seconds."""
PROBE = ".kindling-probe"
"""The object on which conditional writes are probed; never listed."""

_CONFLICT_TRIES = 5
_UNSUPPORTED = {"NotImplemented", "501"}


class Access(NamedTuple):
    """How a bucket of somebody else's is asked."""

    unsigned: bool = False
    """Without a key, as public buckets can be."""
    requester_pays: bool = False
    """Whoever reads pays, and says so in each request."""
    secret: str | None = None
    """The Secret that holds the key, where it is another than that of the products' store."""


OWN = Access()
"""A bucket of one's own."""


class Versioned(NamedTuple):
    """An object's content, its etag, and its age in seconds by the server's own clock."""

    data: bytes
    etag: str
    age: float


class Bucket:
    """A bucket on a server. The connection is made at first use; copies in other processes make their own."""

    def __init__(self, name: str, root: str, endpoint: str | None, region: str | None, access: Access = OWN) -> None:
        self.name = name
        self._root = root  # the prefix that this process works under: it may have no rights elsewhere
        self._endpoint = endpoint
        self._region = region
        self._access = access
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._conditional = False  # whether the server has shown that it honours conditional writes
        self._granted: set[str] = set()  # operations, as in `is_withdrawn`

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, str, str | None, str | None, Access]]:
        return Bucket, (self.name, self._root, self._endpoint, self._region, self._access)

    @property
    def client(self) -> S3Client:
        """The client; the first use of it finds out whether bucket, address and credentials are right.

        Raises:
            StorageError: one of them is wrong.
        """
        with self._lock:
            if self._client is None:
                with self.errors("at the first contact"):
                    session = new_session(self._region, self._access.secret)
                    self._greet(self._connect(session, FIRST_CONTACT_ATTEMPTS, FIRST_CONTACT_SECONDS))
                    self._client = self._connect(session, ATTEMPTS, READ_SECONDS)
                    keep_retrying(self._client, self._address, self._granted, renewable=self._renewable)
            return self._client

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turn what boto3 raises into a StorageError that says what was being done."""
        try:
            yield
        except FAILURES as error:
            raise self.error(error, doing) from error

    def error(self, error: Failure, doing: str) -> StorageError:
        """The StorageError for what went wrong while `doing`."""
        withdrawn = is_withdrawn(error, self._granted, renewable=self._renewable)
        return storage_error(error, self._address, doing, withdrawn=withdrawn)

    def put_if(self, key: str, data: bytes, *, match: str | None) -> str | None:
        """Write an object if its etag is `match`, or, for None, if there is none; its new etag, or None if not.

        Raises:
            StorageError: as all requests, or the server does not honour conditional writes.
        """
        if not self._conditional:
            self._probe()
        return self._put_if(key, data, match)

    def read(self, key: str) -> Versioned | None:
        """A small object with its etag and age; None where there is none."""
        with self.errors(f"reading {key}"):
            try:
                answer = self.client.get_object(Bucket=self.name, Key=key)
                data = answer["Body"].read()
            except ClientError as error:
                if code_of(error) in MISSING:
                    return None
                raise
        stated = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(stated) if stated else datetime.now(UTC)
        return Versioned(data, answer["ETag"], (now - answer["LastModified"]).total_seconds())

    def _put_if(self, key: str, data: bytes, match: str | None) -> str | None:
        condition = {"IfNoneMatch": "*"} if match is None else {"IfMatch": match}
        with self.errors(f"writing {key} on condition"):
            for attempt in range(_CONFLICT_TRIES):
                try:
                    answer = self.client.put_object(Bucket=self.name, Key=key, Body=data, **condition)  # type: ignore[arg-type]
                    return answer["ETag"]
                except ClientError as error:
                    # 412: the condition does not hold; 404: nothing there to match; 409: another writer is at it.
                    if code_of(error) in {"PreconditionFailed", "412", *MISSING}:
                        return None
                    if code_of(error) not in {"ConditionalRequestConflict", "409"} or attempt == _CONFLICT_TRIES - 1:
                        raise
                    time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _probe(self) -> None:
        """Make sure that a server refuses to write an object that exists: an old one writes it and says nothing."""
        probe = self._root + PROBE
        try:
            honoured = self._put_if(probe, b"", None) is None or self._put_if(probe, b"", None) is None
        except StorageError as error:
            if not isinstance(error.__cause__, ClientError) or code_of(error.__cause__) not in _UNSUPPORTED:
                raise
            honoured = False
        if not honoured:
            raise StorageError(
                explain(
                    str(self._address),
                    found="a server without conditional writes",
                    allowed="one that honours If-None-Match and If-Match on PUT, as AWS, MinIO, Ceph and R2 do",
                    remedy="upgrade the server or use another; without them two runs could overwrite each other",
                )
            )
        self._conditional = True

    @property
    def _renewable(self) -> bool:
        """Whether another key would be seen while this process lives."""
        return mounted_at(self._access.secret) is not None

    @property
    def _address(self) -> Address:
        return Address(self.name, self._endpoint or "AWS")

    def _connect(self, session: Session, attempts: int, read_seconds: int) -> S3Client:
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=16,
            s3={"addressing_style": "path" if self._endpoint else "auto"},
            # Newer checksums in requests and answers are AWS's alone; many other servers refuse them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version=UNSIGNED if self._access.unsigned else None,
        )
        region = session.region_name or "us-east-1"
        client = session.client("s3", endpoint_url=self._endpoint, region_name=region, config=config)
        if self._access.requester_pays:
            for operation in ("GetObject", "HeadObject", "ListObjectsV2"):
                client.meta.events.register(f"provide-client-params.s3.{operation}", _paying)
        return client

    def _greet(self, client: S3Client) -> None:
        """Ask for one name, which answers with a reason where a HEAD request would not."""
        client.meta.events.register_first(f"needs-retry.s3.{LISTING}", _refuse_a_page)
        try:
            answer = client.list_objects_v2(Bucket=self.name, Prefix=self._root, MaxKeys=1)
            if "Name" not in answer:
                raise NotS3Error(answer["ResponseMetadata"]["HTTPStatusCode"], "no list of objects")
            self._granted.add(LISTING)
        except ClientError as error:
            if code_of(error) not in {"AccessDenied", "403"}:  # listing may be forbidden, and the rest not
                raise


def _refuse_a_page(response: tuple[AWSResponse, Any] | None, **_: object) -> None:
    """What answers with a page for people is no S3 server; in an outage, whatever stands before one may.

    The status is the raw one, for botocore makes a 500 of a success without a list, as of a passing fault."""
    if response is None:
        return
    status, body = response[0].raw.status, response[0].content.lstrip()
    is_html = response[0].headers.get("content-type", "").startswith("text/html")
    if (is_html or body[:14].lower().startswith((b"<html", b"<!doctype html"))) and status < 500 and status != 429:
        raise NotS3Error(status, "a page of HTML")
    if status == 200 and not body.startswith(b"<"):
        raise NotS3Error(status, "no list of objects")


def _paying(params: dict[str, Any], **_: object) -> None:
    params["RequestPayer"] = "requester"

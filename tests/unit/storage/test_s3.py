"""What can go wrong with an S3 server."""

from __future__ import annotations

import io
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ReadTimeoutError

from kindling_api.errors import RefusedError, SpecError, StorageError, UnreachableError
from kindling_storage import ObjectStore, open_store
from kindling_storage.outage import outage
from kindling_storage.s3.errors import Address, storage_error
from kindling_storage.s3.store import S3Store


def test_a_missing_bucket_is_named(s3_bucket) -> None:
    with pytest.raises(StorageError) as raised:
        open_store("s3://no-such-bucket/a", endpoint=s3_bucket.endpoint).get("x")
    assert str(raised.value) == (
        f"bucket 'no-such-bucket' at {s3_bucket.endpoint}: found NoSuchBucket (The specified bucket does not exist), "
        "at the first contact; allowed: a bucket that exists. "
        "To fix it: create it (`aws s3 mb s3://no-such-bucket`), or correct storage.uri."
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody-knows-me", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "mistyped-secret", "SignatureDoesNotMatch"),
    ],
)
def test_wrong_credentials_are_reported_and_not_shown(
    new_bucket: Callable, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, found: str
) -> None:
    bucket = new_bucket("minio")
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError) as raised:
        open_store(bucket.uri, endpoint=bucket.endpoint).put("x", b"")
    message = str(raised.value)
    assert f"found {found} (" in message
    assert message.endswith("To fix it: correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or renew the session.")
    assert value not in message
    assert "kindling-test-secret" not in message


def test_no_credentials_are_reported(s3_bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(
        StorageError, match="found no usable credentials \\(NoCredentialsError\\), at the first contact"
    ):
        open_store(s3_bucket.uri, endpoint=s3_bucket.endpoint).put("x", b"")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://nowhere.invalid:9000"], ids=["port", "host"])
def test_a_dead_endpoint_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    started = time.monotonic()
    with pytest.raises(StorageError) as raised:
        open_store("s3://bucket", endpoint=endpoint).get("x")
    assert time.monotonic() - started < 15
    assert str(raised.value) == (
        f"bucket 'bucket' at {endpoint}: found no answer (EndpointConnectionError), at the first contact; "
        "allowed: an S3 server that answers. To fix it: check storage.endpoint, that the server is up, "
        "and the network (name resolution, proxy, firewall)."
    )


def test_an_endpoint_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(SpecError) as raised:
        open_store("s3://bucket", endpoint="http://user:hunter2@minio:9000")
    assert str(raised.value) == (
        "storage endpoint: found 'http://minio:9000'; allowed: http://host:port or https://host:port, "
        "without user or password. To fix it: write the address alone; "
        "credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    )


def test_the_endpoint_may_come_from_the_environment(s3_bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_bucket.endpoint)
    open_store(s3_bucket.uri).put("a", b"content")
    assert open_store(s3_bucket.uri, endpoint=s3_bucket.endpoint).get("a") == b"content"


def test_a_download_outlives_broken_connections(proxied: tuple, tmp_path) -> None:
    proxy, store = proxied
    data = random.Random(3).randbytes(8 << 20)
    store.put("a", data)
    proxy.cuts, proxy.after = 3, 2 << 20
    store.download("a", tmp_path / "a")
    assert proxy.cuts == 0
    assert (tmp_path / "a").read_bytes() == data


def test_a_range_outlives_a_broken_connection(proxied: tuple) -> None:
    proxy, store = proxied
    data = random.Random(4).randbytes(4 << 20)
    store.put("a", data)
    proxy.cuts, proxy.after = 1, 1 << 20
    assert store.get_range("a", 1000, 3 << 20) == data[1000 : 1000 + (3 << 20)]
    assert proxy.cuts == 0


@pytest.mark.slow
def test_an_upload_outlives_broken_connections(proxied: tuple) -> None:
    proxy, store = proxied
    store.exists("warm")
    data = random.Random(5).randbytes(20 << 20)
    proxy.cuts, proxy.after = 2, 0
    store.put("a", data)
    assert proxy.cuts == 0
    assert store.get("a") == data


@pytest.mark.slow
def test_a_server_that_is_away_is_waited_for(proxied: tuple) -> None:
    proxy, store = proxied
    store.put("a", b"before")
    proxy.cuts, proxy.after = 10_000, 0
    writing = threading.Thread(target=lambda: store.put("a", b"after"))
    writing.start()
    until = time.monotonic() + 20
    while not outage() and time.monotonic() < until:
        time.sleep(0.1)
    assert outage().startswith(f"waiting for bucket {store.bucket.name!r} at {proxy.endpoint} since ")
    proxy.cuts = 0
    writing.join(20)
    assert (store.get("a"), outage()) == (b"after", "")


def test_a_download_that_cannot_go_on_leaves_nothing(proxied: tuple, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("kindling_storage.s3.stream.FAILURES", 2)
    monkeypatch.setattr("kindling_storage.s3.retry.SECONDS", 1.0)
    proxy, store = proxied
    store.put("a", bytes(4 << 20))
    proxy.close()
    with store.open("a") as stream:
        stream.read(1)
        proxy.cuts, proxy.after = 1, 0
    with pytest.raises(UnreachableError, match="reading a; allowed: an S3 server that answers"):
        proxy.cuts, proxy.after = 1000, 0
        store.download("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_object_replaced_while_it_is_read_is_noticed(s3_store: S3Store) -> None:
    s3_store.put("a", bytes(3 << 20))
    with s3_store.open("a") as stream:
        stream.read(10)
        s3_store.put("a", bytes(range(256)) * (3 << 12))
        stream.seek(2 << 20)
        with pytest.raises(StorageError, match="allowed: an object that stays as it is while it is read"):
            stream.read(10)


class Failing(io.RawIOBase):
    """More than two parts' worth of bytes, and then an error."""

    left = 12 << 20

    def read(self, size: int = -1) -> bytes:
        if not self.left:
            raise OSError("the source broke")
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def test_an_upload_that_fails_half_way_is_taken_back(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kindling_storage.s3.upload.PART_BYTES", 5 << 20)
    s3_store.put("a", b"old")
    with pytest.raises(OSError, match="the source broke"):
        s3_store.put("a", Failing())
    assert s3_store.get("a") == b"old"
    bucket = s3_store.bucket
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=s3_store.key("a"))


ENDLESS_PUT = """
import pickle, sys
class Endless:
    calls = 0
    def seekable(self): return False
    def read(self, size):
        self.calls += 1
        if self.calls == 3: print("writing", flush=True)
        return bytes(size)
pickle.loads(bytes.fromhex(sys.argv[1])).put("a", Endless())
"""


def test_a_killed_upload_leaves_nothing_visible(s3_store: S3Store) -> None:
    command = [sys.executable, "-c", ENDLESS_PUT, pickle.dumps(s3_store).hex()]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not s3_store.exists("a")
    assert list(s3_store.list()) == []


def test_the_probe_of_conditional_writes_is_not_listed(s3_store: S3Store) -> None:
    s3_store.put_if_absent("a", b"")
    assert [info.path for info in s3_store.list()] == ["a"]


def test_folder_marks_of_other_tools_are_not_listed(s3_store: S3Store) -> None:
    bucket = s3_store.bucket
    for key in ("a/prefix/", "a/prefix/folder/", "a/prefix/folder/x"):
        bucket.client.put_object(Bucket=bucket.name, Key=key)
    assert [info.path for info in s3_store.list()] == ["folder/x"]


def test_more_objects_than_one_page_are_listed_and_deleted(s3_store: S3Store, monkeypatch) -> None:
    monkeypatch.setattr("kindling_storage.s3.store.DELETE_BATCH", 7)
    for number in range(20):
        s3_store.put(f"many/{number:02}", b"")
    s3_store.put("one", b"")
    s3_store.delete_prefix("many")
    assert [info.path for info in s3_store.list()] == ["one"]


class Server(BaseHTTPRequestHandler):
    """Answers every request alike, but for listings where it is an S3 server."""

    status, body, s3 = 200, b"", True

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        listing = self.s3 and "list-type" in self.path
        body = b"<ListBucketResult><Name>bucket</Name></ListBucketResult>" if listing else self.body
        self.send_response(200 if listing else self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ObjectStore]]:
    """A store on a server that gives one answer, whatever is asked."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    servers = []

    def start(status: int, body: bytes, s3: bool = True) -> ObjectStore:
        handler = type("Answer", (Server,), {"status": status, "body": body, "s3": s3})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return open_store("s3://bucket", endpoint=f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b""), (501, b"<Error><Code>NotImplemented</Code></Error>")],
    ids=["ignores the condition", "refuses the header"],
)
def test_a_server_without_conditional_writes_is_refused(answering: Callable, status: int, body: bytes) -> None:
    with pytest.raises(StorageError) as raised:
        answering(status, body).put_if_absent("a", b"")
    assert str(raised.value).endswith(
        ": found a server without conditional writes; allowed: one that honours If-None-Match and If-Match on PUT, "
        "as AWS, MinIO, Ceph and R2 do. To fix it: upgrade the server or use another; "
        "without them two runs could overwrite each other."
    )


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b"<!DOCTYPE html>the secrets of an internal page", "a page of HTML (HTTP status 200)"),
        (302, b"<html>the secrets of an internal page", "a page of HTML (HTTP status 302)"),
        (403, b"<html>the secrets of an internal page", "a page of HTML (HTTP status 403)"),
        (404, b"<html>the secrets of an internal page", "a page of HTML (HTTP status 404)"),
        (200, b"", "no list of objects (HTTP status 200)"),
        (200, b'{"secrets": []}', "no list of objects (HTTP status 200)"),
        (200, b"<secrets></secrets>", "no list of objects (HTTP status 200)"),
    ],
)
def test_another_server_is_told_as_such_and_its_page_is_not_repeated(
    answering: Callable, status: int, body: bytes, found: str
) -> None:
    store = answering(status, body, s3=False)
    for ask in (lambda: store.get("a"), lambda: store.put_if_absent("a", b""), lambda: list(store.list())):
        with pytest.raises(StorageError) as raised:
            ask()
        assert str(raised.value).endswith(
            f": found {found}, at the first contact; allowed: an S3 server. "
            "To fix it: check storage.endpoint (its host, its port, http or https)."
        )


@pytest.mark.parametrize(
    ("status", "body", "error", "found"),
    [
        (403, b"", RefusedError, "403 (Forbidden), reading a; allowed: a user who may list, read"),
        (404, b"", StorageError, "404 (Not Found), at the first contact; allowed: an S3 server that has this bucket"),
        (
            503,
            b"<html>no server is up</html>",
            UnreachableError,
            "503 (Service Unavailable), at",
        ),
    ],
    ids=["a right", "a bucket", "an outage"],
)
def test_what_an_s3_server_says_without_words_is_told_by_its_status(
    answering: Callable, status: int, body: bytes, error: type[StorageError], found: str
) -> None:
    with pytest.raises(error) as raised:
        answering(status, body, s3=False).get("a")
    assert f": found {found}" in str(raised.value)
    assert "no server is up" not in str(raised.value)


ADDRESS = Address("data", "http://minio:9000")


def said(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            said("AccessDenied", "Access Denied."),
            "found AccessDenied (Access Denied.), writing a; allowed: a user who may list, read, write and delete "
            "here. To fix it: grant s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject on its "
            "objects.",
        ),
        (
            said("AuthorizationHeaderMalformed", "the region is wrong; expecting 'eu-west-1'"),
            "found AuthorizationHeaderMalformed (the region is wrong; expecting 'eu-west-1'), writing a; "
            "allowed: the bucket's own region, which this request did not name. "
            "To fix it: set storage.region (or AWS_REGION) to the region that the server names.",
        ),
        (
            said("XMinioStorageFull"),
            "found XMinioStorageFull, writing a; allowed: room in the store. To fix it: free some space or raise the "
            "quota, then run the same command again; finished work is kept.",
        ),
        (
            said("SlowDown", "Please reduce your request rate."),
            "found SlowDown (Please reduce your request rate.), writing a; allowed: a server that keeps up. "
            "To fix it: run the same command again later; finished work is kept.",
        ),
        (
            said("Teapot", "x" * 1000),
            f"found Teapot ({'x' * 300}), writing a; allowed: a request that the server takes. "
            "To fix it: see the server's log, or run the same command again later.",
        ),
        (
            NoCredentialsError(),
            "found no usable credentials (NoCredentialsError), writing a; allowed: an access key and its secret. "
            "To fix it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in a cluster: storage.credentialsSecret, or a "
            "ServiceAccount with a role), choose an existing AWS_PROFILE, or log in again.",
        ),
        (
            ReadTimeoutError(endpoint_url="http://minio:9000"),
            "found no answer (ReadTimeoutError), writing a; allowed: an S3 server that answers. "
            "To fix it: check storage.endpoint, that the server is up, and the network "
            "(name resolution, proxy, firewall).",
        ),
    ],
    ids=["access denied", "wrong region", "full", "slow down", "unknown code", "no credentials", "timeout"],
)
def test_each_refusal_says_what_to_change(error: Exception, sentence: str) -> None:
    assert str(storage_error(error, ADDRESS, "writing a")) == f"bucket 'data' at http://minio:9000: {sentence}"


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        ({}, {"authorization"}),
        ({"requester_pays": True}, {"authorization", "x-amz-request-payer"}),
        ({"unsigned": True}, set()),
    ],
    ids=["one's own", "at one's own expense", "without a key"],
)
def test_a_bucket_is_asked_with_a_key_or_without_and_by_whom_pays(
    s3_bucket, asked: dict[str, bool], headers: set[str]
) -> None:
    open_store(s3_bucket.uri, endpoint=s3_bucket.endpoint).put("a", b"text")
    store = pickle.loads(pickle.dumps(open_store(s3_bucket.uri, endpoint=s3_bucket.endpoint, **asked)))
    sent: list[set[str]] = []

    def note(request: Any, **_: Any) -> None:
        sent.append({name.lower() for name in request.headers} & {"authorization", "x-amz-request-payer"})

    store.bucket.client.meta.events.register("before-send.s3", note)
    with suppress(StorageError):  # not every server lets everybody read
        assert store.get("a") == b"text"
        assert [info.path for info in store.list()] == ["a"]
    assert sent and all(each == headers for each in sent)

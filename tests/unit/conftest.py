"""A door in front of an S3 server, and a Secret as pods have it: keys that change while they are used."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kindling_api.v1alpha1.storage import CREDENTIALS, CREDENTIALS_VARIABLE, SOURCE_CREDENTIALS_VARIABLE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    with _mounted(tmp_path / "small", "size=1m") as folder:
        yield folder


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system mounted read-only."""
    with _mounted(tmp_path / "readonly", "ro,size=1m") as folder:
        yield folder


class _mounted:
    def __init__(self, folder: Path, options: str) -> None:
        self.folder = folder
        self.options = options

    def __enter__(self) -> Path:
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", self.options, "tmpfs", str(self.folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a file system")
        return self.folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Secret:
    """A Secret in a folder, as kubelet mounts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._versions = 0

    def put(self, *values: str) -> None:
        """Other values, all at once: a folder is made for them, a link is put in the place of the last one."""
        before = self.folder / f"..{self._versions}"
        self._versions += 1
        after = self.folder / f"..{self._versions}"
        after.mkdir()
        for name, value in zip(CREDENTIALS, values, strict=False):
            (after / name).write_text(value)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..data_tmp").symlink_to(after.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")
        for old in before.glob("*"):
            old.unlink()


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secret:
    """The mounted Secret that this process has its key from; the environment holds none."""
    mounted = Secret(tmp_path / "credentials")
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(mounted.folder))
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    return mounted


@pytest.fixture
def source_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secret:
    """The mounted Secret `lake`, which a source names."""
    monkeypatch.setenv(SOURCE_CREDENTIALS_VARIABLE, str(tmp_path / "source-credentials"))
    return Secret(tmp_path / "source-credentials" / "lake")


class Door:
    """In front of an S3 server: it lets in those who hold the key, to do what is not forbidden."""

    def __init__(self, server: str) -> None:
        self.server = server.removeprefix("http://")
        self.uri, self.endpoint = "", ""
        self.key, self.token = "", ""
        self.refusal = 403, "InvalidAccessKeyId"
        self.forbidden: Callable[[str, str], bool] = lambda _method, _path: False
        self.refused = 0

    def refuses(self, request: BaseHTTPRequestHandler) -> tuple[int, str] | None:
        """Status and code, for those who are not let in."""
        key = re.search(r"Credential=([^/]+)/", request.headers.get("Authorization", ""))
        if key is None or (key.group(1), request.headers.get("X-Amz-Security-Token", "")) != (self.key, self.token):
            return self.refusal
        return (403, "AccessDenied") if self.forbidden(request.command, request.path) else None


def handler(door: Door) -> type[BaseHTTPRequestHandler]:
    """Passes requests on."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            refusal = door.refuses(self)
            if refusal is not None:
                door.refused += 1
                said = f"<Error><Code>{refusal[1]}</Code><Message>no</Message></Error>".encode()
                self.reply(refusal[0], {}, b"" if self.command == "HEAD" else said)
                return
            connection = http.client.HTTPConnection(door.server)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            self.reply(answer.status, dict(answer.getheaders()), answer.read())
            connection.close()

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            own = {"server", "date", "connection", "transfer-encoding"}
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                if name.lower() not in own:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def door(new_bucket: Callable, secret: Secret, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A door to a new bucket, for which the Secret holds the key."""
    bucket = new_bucket("moto")
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    door = Door(bucket.endpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(door))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    door.uri, door.endpoint = bucket.uri, f"http://127.0.0.1:{server.server_port}"
    door.key = "first"
    secret.put("first", "secret")
    yield door
    server.shutdown()
    server.server_close()

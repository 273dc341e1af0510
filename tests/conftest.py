"""S3 servers for all tests: moto's everywhere, and a real MinIO for tests marked slow where Go is at hand."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer

ACCESS_KEY, SECRET_KEY = "kindling-test", "kindling-test-secret"
CACHE = Path.home() / ".cache" / "kindling" / "bin"
S3_SERVERS = ["moto", pytest.param("minio", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


@dataclass(frozen=True)
class Bucket:
    """A new, empty bucket; its credentials are in the environment."""

    uri: str
    endpoint: str


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The address of moto's server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a MinIO; it is built once, which takes minutes."""
    address = f"127.0.0.1:{_free_port()}"
    command = [_minio(), "server", "--quiet", "--address", address, str(tmp_path_factory.mktemp("minio"))]
    settings = {**os.environ, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    with subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://{address}")
            yield f"http://{address}"
        finally:
            process.kill()


@pytest.fixture
def new_bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Bucket]:
    """Makes a bucket on the server of a name, `moto` or `minio`."""

    def make(server: str) -> Bucket:
        endpoint = request.getfixturevalue(f"{server}_server")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, os.devnull)
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        name = f"test-{os.getpid()}-{next(_numbers)}"
        _client(endpoint).create_bucket(Bucket=name)
        return Bucket(f"s3://{name}", endpoint)

    return make


@pytest.fixture(params=S3_SERVERS)
def s3_bucket(request: pytest.FixtureRequest, new_bucket: Callable[[str], Bucket]) -> Bucket:
    """A bucket on each S3 server in turn."""
    return new_bucket(request.param)


_numbers = itertools.count()


@functools.cache
def _client(endpoint: str):
    return boto3.session.Session(ACCESS_KEY, SECRET_KEY).client("s3", endpoint_url=endpoint, region_name="us-east-1")


def _minio() -> str:
    found = shutil.which("minio") or shutil.which("minio", path=str(CACHE))
    if found is None:
        if shutil.which("go") is None:
            pytest.skip("neither MinIO nor Go is on this machine")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["go", "install", "github.com/minio/minio@latest"]
        subprocess.run(command, check=True, cwd="/", env={**os.environ, "GOBIN": str(CACHE)})
        found = str(CACHE / "minio")
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(endpoint: str) -> None:
    for _ in range(300):
        try:
            _client(endpoint).list_buckets()
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    raise TimeoutError(f"{endpoint} did not start")

"""What all tests share: S3 servers, and that nothing outlives a test.

The servers are moto's everywhere, and a real MinIO for tests marked slow where Go is at hand.
"""

from __future__ import annotations

import faulthandler
import functools
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import JSONFileLoader
from hub_server import Hub
from hypothesis import HealthCheck, settings
from moto.server import ThreadedMotoServer

from kindling_api import logs

ACCESS_KEY, SECRET_KEY = "kindling-test", "kindling-test-secret"
CACHE = Path.home() / ".cache" / "kubenode" / "bin"
S3_SERVERS = ["moto", pytest.param("minio", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]

MARK = "KINDLING_TESTS"
"""In the environment of what a test starts, however far down: the process id of pytest."""
LONGEST_RUN = 100 * 60
"""Seconds; pytest-timeout ends a test long before, but for one that is stuck in C code."""
LONGEST_END = 300
"""Seconds that the interpreter may take to end."""


def pytest_configure() -> None:
    """Whatever happens, the run ends: when it is asked to, and when nothing else ends it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # on matrices this small, more threads only wait for each other
    _exit_after(LONGEST_RUN)
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")  # no test fails because a machine is busy
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@functools.cache
def _description(path: str) -> Any:
    return _parse(JSONFileLoader(), path)


# botocore parses what it knows of S3, a megabyte of JSON, for every session anew; for all tests once is enough.
_parse, JSONFileLoader.load_file = JSONFileLoader.load_file, lambda _, path: _description(path)


def pytest_unconfigure() -> None:
    """Threads and processes that do not end must not hold up the interpreter's end."""
    _end(_processes())
    _exit_after(LONGEST_END)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub of the test's own, and an empty cache of what is fetched from it."""
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _nothing_outlives_a_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kills what a test has started and left running, as one that fails half-way does; a test cluster stays."""
    if request.node.get_closest_marker("cluster"):
        yield
        return
    before = _processes()
    monkeypatch.setenv(MARK, str(os.getpid()))
    yield
    _end(_processes() - before)


@pytest.fixture(autouse=True)
def _no_log_outlives_a_test() -> Iterator[None]:
    """A program's main, called in the process of the tests, sets up the log of all of it."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)
    logs.take_down()


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
    settings.pop(MARK, None)  # it outlives the test that asks for it first
    with subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://{address}")
            yield f"http://{address}"
        finally:
            process.kill()


@pytest.fixture(scope="session")
def minio_program() -> str:
    """The path of MinIO's program."""
    return _minio()


@pytest.fixture
def free_port() -> int:
    """A port of this machine that nothing listens at."""
    return _free_port()


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


def _exit_after(seconds: float) -> None:
    """Unless told otherwise before, say where each thread is, and exit."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_real_stderr())


@functools.cache
def _real_stderr() -> TextIO:
    """As it is before tests begin, whose own is captured."""
    return os.fdopen(os.dup(2), "w")


def _processes() -> set[int]:
    """All of the machine; none where there is no /proc."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} if os.path.isdir("/proc") else set()


def _end(candidates: set[int]) -> None:
    """Kill those of the processes that tests have started, and what these start meanwhile."""
    killed: set[int] = set()
    while marked := {process for process in candidates - killed if _is_marked(process)}:
        for process in marked:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        killed |= marked
        candidates = _processes()


def _is_marked(process: int) -> bool:
    try:
        return f"{MARK}={os.getpid()}".encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False

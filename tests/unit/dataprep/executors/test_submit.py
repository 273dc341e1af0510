"""A build as a job of a real Ray cluster of three nodes on this machine: a head without cores, and two workers.

They are started as KubeRay starts them, by `ray start`, and want a token; the store is an S3 server, and the sources
lie in it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import boto3
import pytest

from kindling_api.errors import KindlingError
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_dataprep.build import build
from kindling_dataprep.executors import ray_jobs
from kindling_dataprep.executors.ray_jobs import RayJobs
from kindling_dataprep.output.work import WORK
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

START_TRIES = 5
TIMEOUT = 600
"""Seconds; on a machine with nothing else to do each of these waits takes some ten."""

QUICK = {"filters": [{"formatting": {}}], "deduplicate": {"exact": True}, "tokenizer": {"byte": {}}}


@dataclass
class RayNodes:
    """`ray start` processes."""

    folder: Path
    port: int
    dashboard: int
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Of the head's dashboard."""
        return f"127.0.0.1:{self.dashboard}"

    def start(self, name: str, *options: str) -> None:
        """One node; on a busy machine Ray may give up, since it waits half a minute for itself."""
        ray = Path(sys.executable).with_name("ray")
        command = [ray, "start", "--block", "--node-ip-address=127.0.0.1", "--object-store-memory=100000000", *options]
        path = self.folder / f"{name}.log"
        for _ in range(START_TRIES):
            with path.open("wb") as log:
                self.processes[name] = process = subprocess.Popen(
                    command, env=self.environment, stdout=log, stderr=log, start_new_session=True
                )
            while process.poll() is None:
                if b"Ray runtime started" in path.read_bytes():
                    return
                time.sleep(0.2)
        raise TimeoutError(path.read_text())

    def kill(self, name: str) -> None:
        """Power loss: all processes of a node, at once."""
        process = self.processes.pop(name)
        for number in _family(process.pid):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[RayNodes]:
    """A head and two workers."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray puts sockets into it
    # Without what a build in this process, of a test before, has told the Ray of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "AWS_ACCESS_KEY_ID": "kindling-test",
        "AWS_SECRET_ACCESS_KEY": "kindling-test-secret",
    }
    nodes = RayNodes(folder, _free_port(), _free_port(), environment)
    try:
        nodes.start(
            "head",
            "--head",
            f"--port={nodes.port}",
            "--num-cpus=0",
            f"--temp-dir={folder}",
            f"--dashboard-port={nodes.dashboard}",
            f"--ray-client-server-port={_free_port()}",
            "--dashboard-agent-listen-port=0",
        )
        for name in ("worker-1", "worker-2"):
            start_worker(nodes, name)
        yield nodes
    finally:
        for name in list(nodes.processes):
            nodes.kill(name)
        shutil.rmtree(folder, ignore_errors=True)


def start_worker(nodes: RayNodes, name: str) -> None:
    """A node with one core."""
    nodes.start(name, f"--address=127.0.0.1:{nodes.port}", "--num-cpus=1", "--dashboard-agent-listen-port=0")


@pytest.fixture
def s3_run(new_bucket, new_run, tmp_path: Path) -> Callable[..., DatasetBuildFile]:
    """Makes run files over one S3 source, the modules at the top of the standard library, with a store each."""
    bucket = new_bucket("moto")
    source = open_store(f"{bucket.uri}/raw", endpoint=bucket.endpoint)
    for module in Path(sysconfig.get_path("stdlib")).glob("*.py"):
        source.put(module.name, module)

    def make(store: str, **fields: object) -> DatasetBuildFile:
        file = new_run({"uri": f"{bucket.uri}/raw"}, store=f"{bucket.uri}/{store}", **QUICK, **fields)
        output = file.output.model_copy(update={"endpoint": bucket.endpoint})
        return file.model_copy(update={"output": output, "uid": "6f6b0b2e-8d1c-4d52-9f7e-0c8f5d8d6a11"})

    return make


def submit(nodes: RayNodes, file: DatasetBuildFile, folder: Path, job: str, **changes: str) -> subprocess.Popen[str]:
    """A submitter, as KubeRay starts it."""
    folder.mkdir(exist_ok=True)
    run_file = folder / "run.json"
    run_file.write_text(json.dumps(file.document()))
    command = [
        sys.executable,
        "-m",
        "kindling_dataprep.executors.submit",
        str(run_file),
        "--progress",
        str(folder / "word.json"),
    ]
    command += ["--uid", str(file.uid), "--key", file.key]
    told = {"RAY_DASHBOARD_ADDRESS": nodes.address, "RAY_JOB_SUBMISSION_ID": job}
    environment = {**nodes.environment, **told, **changes}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def last_word(folder: Path) -> Progress:
    """What the submitter said last."""
    return Progress.model_validate_json((folder / "word.json").read_bytes())


def wait_for_parts(file: DatasetBuildFile, count: int) -> list[str]:
    """Waits until so many tasks of the first stage are done; the ledger's parts that they wrote."""
    store = open_store(file.output)
    records: list[str] = []

    def enough() -> bool:
        found = (info.path for info in store.list("datasets/"))
        records[:] = [path for path in found if f"/{WORK}/clean-" in path and path.endswith(".json")]
        return len(records) >= count

    _wait_for(enough)
    return [path.replace(f"/{WORK}/clean-", "/removed/part-").replace(".json", ".parquet") for path in records]


def last_written(file: DatasetBuildFile, paths: list[str]) -> list[datetime]:
    """When the server took each of the files."""
    bucket, _, prefix = file.output.uri.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=file.output.endpoint, region_name="us-east-1")
    return [client.head_object(Bucket=bucket, Key=f"{prefix}/{path}")["LastModified"] for path in paths]


@pytest.mark.exhaustive
def test_nodes_give_the_bytes_of_one_process_whatever_dies(ray_nodes: RayNodes, s3_run, tmp_path: Path) -> None:
    undisturbed = build(s3_run("alone", engine={"workers": 1}), Tracker(ProgressWriter(None)))
    file = s3_run("cluster")

    first = submit(ray_nodes, file, tmp_path / "one", "killed-driver")
    done = wait_for_parts(file, 1)
    written = last_written(file, done)
    _kill_driver(tmp_path / "one" / "run.json")
    _, errors = first.communicate(timeout=TIMEOUT)
    word = last_word(tmp_path / "one")
    assert first.returncode == 1, errors
    assert word.failure is not None
    assert "without a last word; Ray says: " in word.failure.message

    second = submit(ray_nodes, file.model_copy(update={"attempt": 2}), tmp_path / "two", "killed-worker")
    wait_for_parts(file, 3)
    ray_nodes.kill("worker-1")
    _, errors = second.communicate(timeout=TIMEOUT)
    start_worker(ray_nodes, "worker-1")
    word = last_word(tmp_path / "two")
    assert (second.returncode, word.state) == (0, "Succeeded"), errors
    assert word.result is not None
    assert word.result.digest == undisturbed.digest
    assert "documents kept" in errors
    assert last_written(file, done) == written, "what was done is not done again"


def test_a_second_submitter_follows_the_job_of_the_first(ray_nodes: RayNodes, s3_run, tmp_path: Path) -> None:
    file = s3_run("twice")
    folders = [tmp_path / "a", tmp_path / "b"]
    both = [submit(ray_nodes, file, folder, "same-job") for folder in folders]
    for process in both:
        assert process.communicate(timeout=TIMEOUT) and process.returncode == 0
    assert last_word(folders[0]) == last_word(folders[1])


def test_a_submitter_that_is_stopped_stops_its_job(ray_nodes: RayNodes, s3_run, tmp_path: Path) -> None:
    file = s3_run("stopped")
    process = submit(ray_nodes, file, tmp_path / "run", "stopped")
    wait_for_parts(file, 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 143
    word = last_word(tmp_path / "run")
    assert word.failure is not None
    assert (word.failure.reason, word.failure.signal) == ("SuspendedByUser", "SIGTERM")
    jobs = RayJobs(ray_nodes.address, ray_nodes.environment["RAY_AUTH_TOKEN"])
    _wait_for(lambda: (state := jobs.find("stopped")) is not None and state.ended)


def test_a_wrong_token_is_refused_at_once(ray_nodes: RayNodes, s3_run, tmp_path: Path) -> None:
    process = submit(ray_nodes, s3_run("refused"), tmp_path / "run", "refused", RAY_AUTH_TOKEN="wrong")
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "HTTP 401" in errors or "HTTP 403" in errors
    assert "Traceback" not in errors


def test_a_users_mistake_comes_through_with_2(ray_nodes: RayNodes, s3_run, tmp_path: Path) -> None:
    file = s3_run("mistake")
    spec = file.spec.model_copy(update={"sources": (file.spec.sources[0].model_copy(update={"uri": "./nowhere"}),)})
    process = submit(ray_nodes, file.model_copy(update={"spec": spec}), tmp_path / "run", "mistake")
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    word = last_word(tmp_path / "run")
    assert word.failure is not None
    assert word.failure.reason == "UserError"
    assert "spec.sources[0].uri: found nothing at" in word.failure.message


def test_a_head_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(ray_jobs, "PAUSE_SECONDS", 0.1)
    with pytest.raises(KindlingError, match=r"found no answer for 0 s .*allowed: a Ray head that answers"):
        RayJobs(f"127.0.0.1:{_free_port()}", None).find("job")


def _kill_driver(run_file: Path) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().split(b"\0")[2:5] == [
                b"kindling_dataprep",
                bytes(run_file),
                b"--cluster",
            ]:
                os.kill(int(folder.name), signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for number in found:
        for path in Path(f"/proc/{number}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in path.read_text().split()]
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.3)

"""Curves in trackers: every row once, through kills; no step waits for a tracker; what cannot work is told before."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kindling_api.errors import RefusedError, SpecError
from kindling_api.v1alpha1.runfile import PretrainRunFile, Progress, read_run_file
from kindling_api.v1alpha1.tracking import MlflowTracker, TrackingSpec, WandbTracker
from kindling_trainer.__main__ import main
from kindling_trainer.launch import tracking as beside
from kindling_trainer.telemetry import trackers
from kindling_trainer.telemetry.follower import SENT, Follower, numbered
from kindling_trainer.telemetry.trackers import check_client, check_server, figures, run_id

RunFactory = Callable[..., Path]
WANDB = {"wandb": {"project": "tests"}}


def test_a_row_that_is_written_anew_has_its_number_and_later_rows_have_higher_ones() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 0, "validation_loss": 2.0},
        {"step": 1, "loss": 1.5, "time": 10.0},
        {"step": 2, "skipped": [{"first": 3}], "why": "spike", "time": 11.0},
        {"step": 2, "loss": 1.4, "time": 12.0},
        {"step": 2, "validation_loss": 1.3},
        {"step": 2, "validation_loss": 1.2, "final": True},
    ]
    numbers = [number for number, _ in numbered(rows)]
    assert numbers == sorted(set(numbers))
    assert [row["time"] for _, row in numbered(rows)] == [0.0, 10.0, 11.0, 12.0, 12.0, 12.0]
    assert [number for number, _ in numbered(rows[:2] + rows[3:])] == numbers[:2] + numbers[3:]
    back = [*rows[:2], {"step": 3, "skipped": [], "why": "spike", "rolled_back_to": 1, "time": 13.0}, rows[3]]
    assert [number > max(numbers) for number, _ in numbered(back)] == [False, False, True, True]


NO_KEY = {"WANDB_API_KEY": "", "WANDB_MODE": "online", "NETRC": "/nowhere"}


@pytest.mark.parametrize(
    ("spec", "package", "error", "message"),
    [
        (
            WandbTracker(project="p"),
            True,
            RefusedError,
            "spec.tracking.wandb: found no key; allowed: one for https://a",
        ),
        (WandbTracker(project="p"), False, SpecError, "spec.tracking.wandb: found no package wandb here"),
        (MlflowTracker(url="http://mlflow"), False, SpecError, r"pip install kindling\[mlflow\]"),
    ],
    ids=["no key", "no package", "no package of the other"],
)
def test_a_tracker_without_key_or_package_is_refused(
    spec: Any, package: bool, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NO_KEY.items():
        monkeypatch.setenv(name, value)
    if not package:
        monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    field = "wandb" if isinstance(spec, WandbTracker) else "mlflow"
    with pytest.raises(error, match=message):
        check_client(TrackingSpec(**{field: spec}), "spec.tracking")


def test_an_address_where_nothing_answers_is_told_of_before_anything_is_trained(
    tmp_path: Path, run_file: RunFactory, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_file(tracking={"mlflow": {"url": f"http://127.0.0.1:{free_port}"}})
    progress = tmp_path / "progress.json"
    assert main([str(run), "--progress", str(progress)]) == 2
    word = Progress.model_validate_json(progress.read_bytes())
    assert word.message.startswith(
        f"spec.tracking.mlflow.url: found http://127.0.0.1:{free_port}, where nothing answers"
    )
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_server(TrackingSpec(wandb=WandbTracker(project="p", url="http://127.0.0.1:9")), "spec.tracking")
    with pytest.raises(SpecError):
        monkeypatch.delenv("WANDB_MODE")
        check_server(TrackingSpec(wandb=WandbTracker(project="p", url="http://127.0.0.1:9")), "spec.tracking")


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.slow
def test_a_tracker_that_does_not_answer_costs_no_step_and_nothing_is_lost(
    tmp_path: Path, run_file: RunFactory, runs: Any, silent_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "LAST_SECONDS", 1.0)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = run_file(tracking={"mlflow": {"url": f"http://127.0.0.1:{silent_server}"}})
    assert main([str(run), "--progress", str(tmp_path / "progress.json")]) == 0
    assert len(runs.losses(run)) == 20 and not runs.store(run).exists(SENT)
    # When it is back, it gets all that it missed.
    here = file_store(run, tmp_path / "mlruns")
    follow_to_the_end(here, runs)
    assert mlflow_rows(here) == expected(runs.rows(run))


def file_store(path: Path, folder: Path) -> PretrainRunFile:
    """The run with MLflow's store of files, which its client opens without a server."""
    run = read_run_file(path)
    assert isinstance(run, PretrainRunFile)
    tracker = MlflowTracker.model_construct(url=folder.as_uri(), experiment="tests", key_secret=None)
    return run.model_copy(
        update={"spec": run.spec.model_copy(update={"tracking": TrackingSpec.model_construct(mlflow=tracker)})}
    )


def follow_to_the_end(run: PretrainRunFile, runs: Any) -> None:
    from kindling_api.v1alpha1.products import model_folder
    from kindling_storage import open_store

    ended = threading.Event()
    ended.set()
    Follower(run, open_store(run.output).child(model_folder(run.key))).follow(ended)


def mlflow_rows(run: PretrainRunFile) -> dict[tuple[str, int], list[float]]:
    """What MLflow has: values by figure and step."""
    from mlflow import MlflowClient

    assert run.spec.tracking is not None and run.spec.tracking.mlflow is not None
    client = MlflowClient(tracking_uri=run.spec.tracking.mlflow.url)
    experiment = client.get_experiment_by_name(run.spec.tracking.mlflow.experiment)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["training.steps"] == str(run.spec.training.steps)
    rows: dict[tuple[str, int], list[float]] = {}
    for name in found.data.metrics:
        for metric in client.get_metric_history(found.info.run_id, name):
            rows.setdefault((name, metric.step), []).append(metric.value)
    return rows


def expected(rows: list[dict[str, Any]]) -> dict[tuple[str, int], list[float]]:
    """The same, of the curves; figures of the two evaluations of a last step have one name and step."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        for name, value in figures(row).items():
            found.setdefault((name, row["step"]), []).append(value)
    return found


def train_with_two_kills(run: Path, runs: Any) -> None:
    """A training process dies, then all that was started does, and the run is started again."""
    process = runs.start(run)
    runs.wait_for_step(run, 12)
    os.kill(runs.children(process)[0], signal.SIGKILL)
    runs.wait_for_step(run, 30)
    process.kill()
    process.communicate(timeout=100)
    runs.finish(run)
    assert len(runs.losses(run)) == 60


LONGER = {"steps": 60, "batch": {"tokens": 128, "microBatch": 4}, "precision": "fp32", "compile": "never"}
STABLE = ("loss", "validation_loss", "lr", "step", "perplexity")


@pytest.mark.slow
def test_weights_and_biases_has_every_row_once_after_two_kills(
    run_file: RunFactory, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = run_file(training=LONGER, tracking=WANDB)
    train_with_two_kills(run, runs)
    folder = runs.store(run).local_path("wandb")
    newest, found = -1, []
    for file in sorted(folder.glob("offline-run-*/*.wandb"), key=lambda path: path.parent.name):
        for number, row in history(file):
            if number > newest:  # as the server does with what `wandb sync` sends it
                newest, found = number, [*found, row]
    rows = [{"step": row["step"], **figures(row)} for row in runs.rows(run)]
    stable = [[{name: row[name] for name in STABLE if name in row} for row in each] for each in (found, rows)]
    assert stable[0] == stable[1] and len(found) == len(rows) > 60


def history(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and rows in a file of the client's: records in blocks, as LevelDB's log has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, block, header, place, record = path.read_bytes(), 32_768, 7, 7, b""
    while place + header <= len(data):
        if block - place % block < header:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + header])
        record += data[place + header : place + header + length]
        place += header + length
        if kind in (1, 4):  # whole, or its last part
            parsed, record = Record.FromString(record), b""
            if parsed.WhichOneof("record_type") == "history":
                items = {
                    (item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in parsed.history.item
                }
                yield parsed.history.step.num, items


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]

    def signal(self, signal: int) -> None:
        """Sends it to the server and to its worker."""
        os.killpg(self.process.pid, signal)


@pytest.fixture
def mlflow_server(tmp_path: Path, free_port: int) -> Iterator[Server]:
    """MLflow's server, of the Python that MLFLOW_PYTHON names."""
    command = [os.environ["MLFLOW_PYTHON"], "-m", "mlflow", "server", "--port", str(free_port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--default-artifact-root", str(tmp_path / "artifacts")]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 120
    while socket.socket().connect_ex(("127.0.0.1", free_port)):
        assert time.monotonic() < until, "MLflow's server did not start"
        time.sleep(0.2)
    yield Server(f"http://127.0.0.1:{free_port}", process)
    process.terminate()
    process.wait(30)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif("MLFLOW_PYTHON" not in os.environ, reason="MLFLOW_PYTHON names no Python with MLflow's server")
def test_mlflow_has_every_row_once_after_two_kills(run_file: RunFactory, runs: Any, mlflow_server: Server) -> None:
    run = run_file(training=LONGER, tracking={"mlflow": {"url": mlflow_server.url, "experiment": "tests"}})
    train_with_two_kills(run, runs)
    check_rows(run, runs)


DEAD_SECONDS, FEW = 600, 300
"""How long, and of how many steps it is found out how fast they are."""


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.skipif("MLFLOW_PYTHON" not in os.environ, reason="MLFLOW_PYTHON names no Python with MLflow's server")
def test_ten_minutes_of_a_dead_tracker_cost_no_step(run_file: RunFactory, runs: Any, mlflow_server: Server) -> None:
    short = run_file(name="short", training=LONGER | {"steps": FEW})
    runs.finish(short)
    rows = runs.rows(short)
    first, last = (next(row["time"] for row in rows if row["step"] == step and "loss" in row) for step in (50, FEW))
    steps_meanwhile = int(DEAD_SECONDS * (FEW - 50) / (last - first))
    many = {**LONGER, "steps": 3 * steps_meanwhile // 2}
    run = run_file(training=many, tracking={"mlflow": {"url": mlflow_server.url, "experiment": "tests"}})
    process = runs.start(run)
    reading = threading.Thread(target=process.communicate)
    reading.start()
    runs.wait_for_step(run, 5)
    mlflow_server.signal(signal.SIGSTOP)
    steps = []
    for _ in range(DEAD_SECONDS // 10):
        time.sleep(10)
        training = runs.last_word(run).training
        steps.append(training.step)
    mlflow_server.signal(signal.SIGCONT)
    moved = [after - before for before, after in pairwise(steps)]
    print(f"steps in ten seconds while it was dead: {min(moved)} to {max(moved)}, {steps[-1]} of {many['steps']}")
    assert min(moved) > 0
    reading.join(1800)
    assert process.returncode == 0
    check_rows(run, runs)


def check_rows(path: Path, runs: Any) -> None:
    """MLflow has each row of the curves, once."""
    run = read_run_file(path)
    assert isinstance(run, PretrainRunFile)
    found, rows = mlflow_rows(run), expected(runs.rows(path))
    assert found.keys() == rows.keys()
    assert {key: found[key] for key in found if key[0] in STABLE} == {
        key: rows[key] for key in rows if key[0] in STABLE
    }
    assert all(len(found[key]) == len(rows[key]) for key in rows)
    assert run_id(run) in str(runs.store(path).uri)

"""The launcher refuses wrong runs at once, decides on restarts, and keeps the curves single-valued."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from kindling_api.base import canonical_json, key_of
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, Input, Progress
from kindling_api.v1alpha1.status import Failure
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_runtime.fork_server import ForkServer, Process
from kindling_storage import open_store
from kindling_storage.lock import lock
from kindling_trainer.__main__ import main
from kindling_trainer.launch.node import Node
from kindling_trainer.launch.verdict import cause_of, verdict
from kindling_trainer.launch.workers import ENDING, HEARTBEAT, WorkerGroup, WorkersOutcome
from kindling_trainer.telemetry.metrics import Metrics

RunFactory = Callable[..., Path]
BUILD = {"sources": [{"uri": "s3://llm/words"}], "tokenizer": {"byte": {}}}


def last_word(tmp_path: Path, run: Path, *options: str) -> tuple[int, Progress]:
    progress = tmp_path / "progress.json"
    code = main([str(run), "--progress", str(progress), *options])
    return code, Progress.model_validate_json(progress.read_bytes())


def test_a_dataset_smaller_than_a_context_is_refused(
    tmp_path: Path, run_file: RunFactory, dataset: Callable[..., str]
) -> None:
    code, word = last_word(tmp_path, run_file(dataset=dataset(train_tokens=12)))
    assert code == 2 and word.failure is not None and word.failure.reason == "UserError"
    assert word.message.startswith("spec.dataset: found 12 training tokens; allowed: at least one window")


@pytest.mark.parametrize("told", [("--uid", "another"), ("--key", "sha256:" + 64 * "0")], ids=["document", "work"])
def test_the_run_file_of_another_is_not_trained_and_nobody_is_blamed(
    tmp_path: Path, run_file: RunFactory, told: tuple[str, str]
) -> None:
    run = run_file()
    document = json.loads(run.read_bytes())
    code, word = last_word(tmp_path, run, *told)
    assert code == 1 and word.failure is not None and word.failure.reason == "WrongRunFile"
    assert not list(open_store(document["output"]["uri"]).list())


def test_a_missing_dataset_is_named(tmp_path: Path, run_file: RunFactory) -> None:
    uri = (tmp_path / "nowhere").as_uri()
    code, word = last_word(tmp_path, run_file(dataset=uri))
    assert code == 2 and word.message.startswith(f"{uri}: found no manifest.json")


def test_two_runs_at_one_place_are_told_of_each_other(tmp_path: Path, run_file: RunFactory) -> None:
    run = run_file()
    document = json.loads(run.read_bytes())
    place = open_store(document["output"]["uri"]).child(f"models/{document['key'].removeprefix('sha256:')[:16]}")
    with lock(place, "lock"):
        code, word = last_word(tmp_path, run)
    assert code == 2 and "one writer at a time" in word.message


KILLED = WorkersOutcome("killed", Failure(reason="RankFailed", message="process 1 was ended by SIGKILL", rank=1))


def test_a_killed_process_is_worth_another_start() -> None:
    assert verdict(KILLED, 40, restarts=7, limit=10, barren=0) is None


@pytest.mark.parametrize(
    ("restarts", "limit", "barren", "reason", "why"),
    [
        (10, 10, 0, "RestartsExhausted", "restart.maxRestarts is reached"),
        (7, 10, 2, "RestartsExhausted", "2 attempts saved nothing new"),
        (0, 0, 0, "RankFailed", "restart.maxRestarts is reached"),
    ],
    ids=["restarts-used-up", "no-progress", "no-restarts-allowed"],
)
def test_restarts_end(restarts: int, limit: int, barren: int, reason: str, why: str) -> None:
    failure = verdict(KILLED, 40, restarts=restarts, limit=limit, barren=barren)
    assert failure is not None and failure.reason == reason and failure.rank == 1
    assert failure.message == (
        f"process 1 was ended by SIGKILL; {why}. The state after step 40 is kept; run the same again to go on."
    )


def test_a_python_error_is_not_tried_again() -> None:
    failure = Failure(reason="InternalError", message="ValueError: no", exit_code=1)
    assert verdict(WorkersOutcome("raised", failure), 40, restarts=0, limit=3, barren=0) == failure


LOST = Failure(reason="RankFailed", message="lost contact", rank=0)
WRONG = Failure(reason="InternalError", message="ValueError: no", rank=0, exit_code=1)


def test_contact_lost_for_no_known_reason_is_worth_another_start() -> None:
    assert verdict(WorkersOutcome("raised", LOST), 40, restarts=0, limit=3, barren=0) is None


ABORTED = WorkersOutcome("killed", Failure(reason="RankFailed", message="process 1", rank=1, signal="SIGABRT"))
HUNG = Failure(reason="Hung", message="no step for 10 seconds; the stacks above say where", time="1")
STANDS = Failure(reason="Hung", message="no step for 10 seconds: process 1 is stopped", rank=1, time="2")


@pytest.mark.parametrize(
    ("outcomes", "cause"),
    [
        pytest.param([WorkersOutcome("raised", LOST), ABORTED], ABORTED.failure, id="killed on another machine"),
        pytest.param([WorkersOutcome("hung", HUNG), WorkersOutcome("hung", STANDS)], STANDS, id="stands still there"),
        pytest.param([WorkersOutcome("raised", LOST), WorkersOutcome("raised", WRONG)], WRONG, id="raised there"),
    ],
)
def test_of_what_several_machines_have_seen_that_is_the_cause_which_says_most(
    outcomes: list[WorkersOutcome], cause: Failure
) -> None:
    assert cause_of(outcomes).failure == cause


class Scripts(ForkServer):
    """Starts a script in place of the training program."""

    def __init__(self, script: str) -> None:
        self._script = script

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
        return subprocess.Popen([sys.executable, "-c", self._script], env=environment)


@pytest.mark.parametrize(
    ("said", "number", "nodes", "ending", "cause"),
    [
        pytest.param(LOST, signal.SIGKILL, 1, "killed", "process 1 was ended by SIGKILL", id="killed"),
        pytest.param(LOST, signal.SIGABRT, 1, "killed", "process 1 was ended by SIGABRT", id="aborted"),
        pytest.param(WRONG, signal.SIGABRT, 1, "raised", "ValueError: no", id="aborted after an error"),
        pytest.param(LOST, signal.SIGABRT, 2, "raised", "lost contact", id="aborted, perhaps after a loss elsewhere"),
    ],
)
def test_the_cause_is_what_came_first(
    tmp_path: Path, said: Failure, number: int, nodes: int, ending: str, cause: str
) -> None:
    (tmp_path / "rank-00000.json").write_bytes(canonical_json(said.document()))
    script = f"import os; os.environ['LOCAL_RANK'] == '0' and exit(1); os.kill(os.getpid(), {number:d})"
    node = Node(processes=2, cores=2, nodes=nodes)
    workers = WorkerGroup(Scripts(script), [], tmp_path, node=node, attempt=1, save_seconds=60)
    outcome = workers.watch(60, [], None, excuse=bool, elsewhere=lambda: None)
    assert outcome.failure is not None
    assert outcome.ending == ending
    assert re.split("[;,]", outcome.failure.message)[0] == cause


def test_processes_that_save_have_as_long_as_the_launcher_was_told(tmp_path: Path) -> None:
    saving = tmp_path / ENDING
    script = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(saving)!r}, 'w'); time.sleep(60)"
    workers = WorkerGroup(Scripts(script), [], tmp_path, node=Node(1, 1), attempt=1, save_seconds=2.0)
    while not saving.exists():
        time.sleep(0.02)
    began = time.monotonic()
    outcome = workers.watch(60, [signal.SIGTERM], None, excuse=bool, elsewhere=lambda: None)
    assert outcome.ending == "stopped" and 1.9 <= time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("hours", "ending"),
    [
        pytest.param([1, -1] * 6, "finished", id="the clock jumps while steps are taken"),
        pytest.param([1], "hung", id="none is taken after the clock was an hour ahead"),
    ],
)
def test_silence_is_what_no_clock_that_is_set_can_make_or_hide(tmp_path: Path, hours: list[int], ending: str) -> None:
    heartbeat = tmp_path / HEARTBEAT
    script = f"""
import os, time
for hours in {hours}:
    time.sleep(0.25)
    at = time.time() + 3600 * hours
    os.utime({str(heartbeat)!r}, (at, at))
time.sleep({0 if ending == "finished" else 60})
"""
    workers = WorkerGroup(Scripts(script), [], tmp_path, node=Node(1, 1), attempt=1, save_seconds=2.0)
    assert workers.watch(1.5, [], None, excuse=bool, elsewhere=lambda: None).ending == ending


def test_rows_after_the_restored_step_are_cut(tmp_path: Path) -> None:
    run = open_store((tmp_path / "run").as_uri())
    first = Metrics(run, 0)
    for step in range(1, 6):
        first.add({"step": step, "loss": float(step)})
    first.add({"step": 5, "validation_loss": 1.0, "final": True})
    first.close()
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    again = Metrics(run, 3)
    again.add({"step": 4, "loss": 4.5})
    again.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5)]


def test_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    storage = StorageSpec(uri=(tmp_path / "store").as_uri())
    spec = DatasetBuildSpec.model_validate(BUILD, strict=False)
    path = tmp_path / "run.json"
    run = DatasetBuildFile(name="words", key=key_of("words"), output=storage, spec=spec)
    path.write_bytes(canonical_json(run.document()))
    code, word = last_word(tmp_path, path)
    assert code == 2 and word.failure is not None and word.failure.reason == "UserError"
    assert word.message == (
        "kind: found DatasetBuild; allowed: PretrainRun or AlignmentRun. To fix it: give it to kindling_dataprep."
    )


REFUSED = {
    "data that is not there": (
        "model",
        "nothing.jsonl",
        "spec.data[0].uri: found nothing at '{folder}/nothing.jsonl'; allowed: files that end in .jsonl, .json or "
        ".parquet",
    ),
    "a dataset as base": (
        "dataset",
        "chat.jsonl",
        "spec.base: {folder}/dataset: found a dataset; allowed: a finished model or a Hugging Face folder. "
        "To fix it: give the folder of a finished run, or what `kindling export` makes of a checkpoint.",
    ),
    "no model as base": (
        "empty",
        "chat.jsonl",
        "{folder}/empty/config.json: found no such file; allowed: a JSON object",
    ),
}


@pytest.mark.parametrize(("base", "data", "message"), REFUSED.values(), ids=REFUSED)
def test_an_alignment_that_cannot_begin_is_refused_at_once(
    tmp_path: Path, dataset: Callable[..., str], base: str, data: str, message: str
) -> None:
    dataset()
    (tmp_path / "chat.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "empty").mkdir()
    document = {"base": {"uri": str(tmp_path / base)}, "method": {"sft": {}}, "data": [{"uri": str(tmp_path / data)}]}
    run = AlignmentRunFile(
        name="chat",
        key=key_of("chat"),
        output=StorageSpec(uri=(tmp_path / "store").as_uri()),
        spec=AlignmentRunSpec.model_validate(document, strict=False),
        base=Input(uri=str(tmp_path / base)),
    )
    path = tmp_path / "run.json"
    path.write_bytes(canonical_json(run.document()))
    code, word = last_word(tmp_path, path)
    assert code == 2 and word.failure is not None and word.failure.reason == "UserError"
    assert message.format(folder=tmp_path) in word.message.replace("file://", "")

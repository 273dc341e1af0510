"""What a run says of its speed while it trains."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from kindling_api.v1alpha1.products import SkippedStep
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import CheckpointStatus, TrainingProgress
from kindling_api.v1alpha1.stragglers import SlowProcess
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_trainer.loop.objective import Evaluation
from kindling_trainer.telemetry.metrics import METRICS, Metrics
from kindling_trainer.telemetry.reporter import Reporter


@pytest.fixture
def heartbeat(tmp_path: Path) -> Path:
    path = tmp_path / "heartbeat"
    path.touch()
    os.utime(path, (0, 0))
    return path


@pytest.fixture
def reporter(tmp_path: Path, heartbeat: Path) -> Reporter:
    return Reporter(
        ProgressWriter(tmp_path / "progress.json"),
        Metrics(open_store((tmp_path / "run").as_uri()), 0),
        heartbeat=heartbeat,
        steps=102,
        step_tokens=10,
        flops_per_token=6.0,
        peak_flops=None,
        started=0.0,
    )


def said(tmp_path: Path) -> tuple[str, TrainingProgress]:
    progress = Progress.model_validate_json((tmp_path / "progress.json").read_bytes())
    assert isinstance(progress.training, TrainingProgress)
    return progress.message, progress.training


def take(reporter: Reporter, step: int, seconds: float) -> None:
    reporter.stepped(step, seconds, has_row=True)
    reporter.row(step, loss=1.0, rate=0.1, norm=1.0)


def test_what_was_mended_on_the_way_is_told_the_newest_of_it(tmp_path: Path, reporter: Reporter) -> None:
    reporter.passed_over(["checkpoint step-00000002-a1 is passed over: part-00000.safetensors is missing"])
    for step in range(5, 9):
        reporter.skipped(SkippedStep(step=step, windows=(), why="loss nan"), loss=float("nan"), norm=1.0)
    progress = Progress.model_validate_json((tmp_path / "progress.json").read_bytes())
    what = "is not taken (loss nan): what it read is left out; `kindling inspect RUN --step"
    assert [incident.message for incident in progress.incidents or ()] == [
        f"Step {step} {what} {step}` names its documents." for step in range(5, 9)
    ]


def test_the_first_step_is_said_to_compile_and_is_given_its_time(
    tmp_path: Path, reporter: Reporter, heartbeat: Path
) -> None:
    reporter.compiling()
    assert said(tmp_path)[0] == "compiling, step 0 of 102"
    assert heartbeat.stat().st_mtime == 0, "a launcher allows more time until the first beat"
    take(reporter, 1, 60.0)
    reporter.stage("saving")
    reporter.stepped(2, 0.5, has_row=False)
    reporter.stage("evaluating")
    assert heartbeat.stat().st_mtime > 0


def test_progress_moves_with_every_step_however_few_rows_there_are(
    tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling_runtime.progress.INTERVAL_SECONDS", 0.0)
    take(reporter, 1, 0.5)
    reporter.stepped(2, 0.5, has_row=False)
    reporter.stepped(3, 0.5, has_row=False)
    message, progress = said(tmp_path)
    assert message == "training, step 3 of 102"
    assert (progress.step, progress.tokens, progress.loss, progress.eta_seconds) == (3, 30, 1.0, 50)


def test_the_estimate_leaves_out_the_steps_that_compile(tmp_path: Path, reporter: Reporter) -> None:
    take(reporter, 1, 60.0)
    take(reporter, 2, 20.0)
    reporter.stage("saving")
    assert said(tmp_path)[1].eta_seconds is None
    for step, seconds in ((3, 0.4), (4, 0.6)):
        take(reporter, step, seconds)
    reporter.stage("saving")
    assert said(tmp_path)[1].eta_seconds == 49  # (102 - 4) · 0.5


def test_the_estimate_follows_the_newest_steps(tmp_path: Path, reporter: Reporter) -> None:
    for step in range(1, 53):
        take(reporter, step, 9.0)
    for step in range(53, 93):
        take(reporter, step, 1.0)
    reporter.stage("saving")
    assert said(tmp_path)[1].eta_seconds == 26  # (102 - 92) · (10 · 9 + 40 · 1) / 50


def test_the_log_tells_stages_steps_evaluations_and_saves_with_the_figures_of_the_progress(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reporter.compiling()
    take(reporter, 1, 2.0)
    reporter.evaluated(1, Evaluation(0.5), final=False)
    reporter.stage("saving")
    reporter.saved(CheckpointStatus(step=1, uri="s3://llm/step-1", digest="sha256:1"))
    assert [record.getMessage() for record in caplog.records] == [
        "compiling, step 0 of 102: the first step takes minutes",
        "step 1 of 102: loss 1.0000, 5 tokens/s",
        "evaluated after step 1: loss 0.5000",
        "saving, step 1 of 102",
        "saved step 1 at s3://llm/step-1",
    ]
    figures = [getattr(record, "figures") for record in caplog.records]  # noqa: B009
    assert (figures[0]["stage"], figures[1]["loss"], figures[1]["tokensPerSecond"]) == ("compiling", 1.0, 5.0)
    assert (figures[2]["validationLoss"], figures[3]["stage"]) == (0.5, "saving")
    assert figures[4]["checkpoint"]["step"] == 1


def test_a_slow_process_is_told_at_once_with_the_step_at_which_it_was_found_and_once_in_the_log(
    tmp_path: Path, reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    def stragglers() -> list[dict[str, object]] | None:
        found = Progress.model_validate_json((tmp_path / "progress.json").read_bytes()).stragglers
        return None if found is None else [one.document() for one in found]

    slow = SlowProcess(rank=5, node=2, factor=2.1, step=35)
    reporter.stage("training")
    assert stragglers() is None, "nobody knows yet"
    reporter.straggling([])
    reporter.straggling([slow])
    assert stragglers() == [{"rank": 5, "node": 2, "factor": 2.1, "step": 35}]
    reporter.straggling([slow.model_copy(update={"rank": 4, "step": 40})])
    reporter.straggling(None)
    reporter.straggling([])
    assert stragglers() == []
    assert caplog.messages == [
        "process 5, on node 2, is slow: its own work takes 2.1 times as long as that of others",
        "no process is slow any more",
    ]


def test_a_row_has_the_own_work_of_the_newest_steps_beside_their_seconds(tmp_path: Path, reporter: Reporter) -> None:
    reporter.own_work([0.1, 0.2, 0.6])
    take(reporter, 5, 0.7)
    take(reporter, 6, 0.7)
    reporter.close()
    reporter.upload()
    first, second = map(json.loads, (tmp_path / "run" / METRICS).read_text().splitlines())
    assert (first["own_seconds"], first["most_own_seconds"], first["step_seconds"]) == (0.2, 0.6, 0.7)
    assert "own_seconds" not in second

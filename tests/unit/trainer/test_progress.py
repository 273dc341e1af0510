"""What a run says of its speed while it trains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import TrainingProgress
from kindling_storage import open_store
from kindling_storage.progress import ProgressWriter
from kindling_trainer.metrics import Metrics
from kindling_trainer.progress import Reporter


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
    reporter.stepped(seconds)
    reporter.row(step, loss=1.0, rate=0.1, norm=1.0)


def test_the_first_step_is_said_to_compile_and_is_given_its_time(
    tmp_path: Path, reporter: Reporter, heartbeat: Path
) -> None:
    reporter.compiling()
    assert said(tmp_path)[0] == "compiling, step 0 of 102"
    assert heartbeat.stat().st_mtime == 0, "a launcher allows more time until the first beat"
    take(reporter, 1, 60.0)
    reporter.stage("saving")
    reporter.stepped(0.5)
    reporter.stage("evaluating")
    assert heartbeat.stat().st_mtime > 0


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

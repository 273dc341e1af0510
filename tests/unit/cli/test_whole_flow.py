"""The real stages under the real command line, on a small corpus: minutes, not seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DOCUMENTS = """
apiVersion: kindling.dev/v1alpha1
kind: PretrainRun
metadata: {name: tiny}
spec:
  dataset: {name: tiny}
  model: {architecture: llama, layers: 1, heads: 2, width: 32, context: 32}
  training: {steps: 60, batch: {tokens: 128}, compile: never}
  checkpoint: {every: 10}
  evaluation: {every: 30, batches: 2, prompts: ["def "]}
---
apiVersion: kindling.dev/v1alpha1
kind: DatasetBuild
metadata: {name: tiny}
spec:
  sources: [{uri: "*.py", format: code}]
  tokenizer: {train: {vocabSize: 300}}
  validation: {fraction: 0.2}
"""

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents, and a corpus of some of Python's own modules, whose names must not mislead the processes."""
    for module in ("argparse", "textwrap", "json", "string", "ast", "shlex"):
        source = sys.modules.get(module) or __import__(module)
        (tmp_path / f"{module}.py").write_text(Path(str(source.__file__)).read_text())
    (tmp_path / "tiny.yaml").write_text(DOCUMENTS)
    return tmp_path


@pytest.fixture
def kindling_run(folder: Path) -> Command:
    """Starts `kindling run` on the documents."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "kindling_cli.main", "run", "tiny.yaml", "--store", "store", *arguments]
        env = {**os.environ, "COLUMNS": "200"}
        return subprocess.Popen(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def finish(process: subprocess.Popen[str]) -> str:
    output, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return output


def wait_for_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + 300
    while not list(folder.glob("store/models/*/checkpoints/*/manifest.json")):
        assert time.monotonic() < deadline, "no checkpoint in five minutes"
        time.sleep(0.1)


def losses(folder: Path) -> list[tuple[int, float]]:
    """The training curve, one row a step."""
    (metrics,) = folder.glob("store/models/*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


@pytest.mark.exhaustive
def test_a_run_ends_with_a_model_that_talks_and_a_second_one_reuses_it(kindling_run: Command, folder: Path) -> None:
    first = finish(kindling_run("--prompt", "import "))
    assert "DatasetBuild/tiny: finished in" in first
    assert "PretrainRun/tiny: finished in" in first
    assert "kindling generate tiny --prompt 'def ' --store store" in first
    assert "\nimport " in first
    reports = [line.removeprefix("  report  ") for line in first.splitlines() if line.startswith("  report  ")]
    assert reports
    assert all((folder / report).is_file() for report in reports)
    started = time.monotonic()
    second = finish(kindling_run())
    assert "DatasetBuild/tiny: already finished" in second
    assert "PretrainRun/tiny: already finished · 60 steps" in second
    assert time.monotonic() - started < 30


@pytest.mark.exhaustive
def test_a_run_whose_command_line_was_killed_goes_on_from_its_checkpoint(kindling_run: Command, folder: Path) -> None:
    process = kindling_run("--set", "PretrainRun/tiny:spec.training.steps=400")
    wait_for_checkpoint(folder)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the stage saves and leaves by itself
        again = kindling_run("--set", "PretrainRun/tiny:spec.training.steps=400")
        output, error = again.communicate(timeout=600)
        if again.returncode == 0:
            break
        assert "another process" in error.lower(), error
    assert "PretrainRun/tiny: finished in" in output
    steps = [step for step, _ in losses(folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400


def test_ctrl_c_saves_and_the_same_command_goes_on(kindling_run: Command, folder: Path) -> None:
    process = kindling_run("--set", "PretrainRun/tiny:spec.training.steps=2000")
    wait_for_checkpoint(folder)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Stopped; what is saved stays. To go on:  kindling run tiny.yaml --store store" in output
    saved = max(path.parent.name for path in folder.glob("store/models/*/checkpoints/*/manifest.json"))
    assert saved > "step-00000010"


def test_two_runs_at_once_do_not_disturb_each_other(kindling_run: Command, folder: Path) -> None:
    first = kindling_run("--set", "PretrainRun/tiny:spec.training.steps=1000")
    wait_for_checkpoint(folder)
    second = kindling_run("--set", "PretrainRun/tiny:spec.training.steps=1000")
    _, error = second.communicate(timeout=120)
    assert second.returncode == 2
    assert "PretrainRun/tiny" in error
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=120)
    assert first.returncode == 130

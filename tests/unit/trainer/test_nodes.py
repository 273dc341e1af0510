"""A run over two machines: two launchers, which share nothing but the network and the store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.products import ModelManifest
from kindling_api.v1alpha1.runfile import Progress
from kindling_storage.commit import read_manifest
from kindling_trainer.checkpoint.folders import folders
from kindling_trainer.failure import is_secondary

RunFactory = Callable[..., Path]
TWO_NODES = {"resources": {"nodes": 2}, "parallelism": {"tensor": 2}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pods:
    """The launchers of one attempt, each as in a pod of its own."""

    def __init__(self, run: Path, attempt: int = 1) -> None:
        document = {**json.loads(run.read_bytes()), "attempt": attempt}
        self.run = run.with_name(f"{run.stem}-{attempt}.json")
        self.run.write_text(json.dumps(document))
        self.port, self.master = free_port(), f"127.0.0.1:{free_port()}"
        self.launchers: dict[int, subprocess.Popen[str]] = {}

    def start(self, *nodes: int) -> Pods:
        for node in nodes:
            command = [sys.executable, "-m", "kindling_trainer", str(self.run), "--nodes", "2", "--master", self.master]
            command += ["--progress", str(self._termination_message(node))]
            command += ["--serve", str(self.port)] if node == 0 else []
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "JOB_COMPLETION_INDEX": str(node)}
            self.launchers[node] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        return self

    def end(self, *codes: int) -> list[Progress]:
        """All must end with these exit codes, in the order of nodes; gives their last words."""
        errors = {node: launcher.communicate(timeout=300)[1] for node, launcher in sorted(self.launchers.items())}
        assert tuple(self.launchers[node].returncode for node in errors) == codes, "\n".join(errors.values())
        return [Progress.model_validate_json(self._termination_message(node).read_bytes()) for node in errors]

    def progress(self) -> Progress:
        """What the first node says of itself over the network."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/progress", timeout=5) as answer:
            return Progress.model_validate_json(answer.read())

    def wait_for(self, condition: Callable[[Progress], bool]) -> Progress:
        until = time.monotonic() + 120
        while True:
            try:
                if condition(progress := self.progress()):
                    return progress
            except OSError:
                pass
            assert time.monotonic() < until, "this did not come about"
            time.sleep(0.05)

    def rank(self, runs: Any, node: int) -> int:
        """The training process of a node."""
        return runs.children(self.launchers[node])[0]

    def kill(self) -> None:
        for launcher in self.launchers.values():
            launcher.kill()
            launcher.communicate()

    def _termination_message(self, node: int) -> Path:
        return self.run.with_suffix(f".{node}.progress")


@pytest.fixture
def pods() -> Iterator[Callable[..., Pods]]:
    """Makes the launchers of an attempt; none outlives the test."""
    made: list[Pods] = []

    def make(run: Path, attempt: int = 1) -> Pods:
        made.append(Pods(run, attempt))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def step_reached(step: int) -> Callable[[Progress], bool]:
    return lambda progress: progress.training is not None and progress.training.step >= step


@pytest.mark.slow
def test_a_run_whose_process_is_killed_ends_everywhere_and_goes_on_as_if_nothing_had_been(
    run_file: RunFactory, runs: Any, pods: Callable[..., Pods]
) -> None:
    recipe = {"training": {"steps": 60, "batch": {"tokens": 128}}, **TWO_NODES}
    undisturbed, disturbed = run_file(name="undisturbed", **recipe), run_file(name="disturbed", **recipe)
    words = pods(undisturbed).start(0, 1).end(0, 0)
    assert words[0].result is not None and words[1].result is None

    first = pods(disturbed).start(0, 1)
    first.wait_for(step_reached(12))
    os.kill(first.rank(runs, 1), signal.SIGKILL)
    seen = [word.failure for word in first.end(1, 1)]
    assert [(failure.reason, failure.rank, failure.signal) for failure in seen] == [
        ("RankFailed", 0, None), ("RankFailed", 1, "SIGKILL"),
    ]  # fmt: skip
    assert [is_secondary(failure) for failure in seen] == [True, False]
    assert seen[0].message.startswith("lost contact with other processes of the run")

    pods(disturbed, attempt=2).start(0, 1).end(0, 0)
    assert {folder.attempt for folder in folders(runs.store(disturbed))} <= {1, 2}
    assert runs.losses(disturbed) == runs.losses(undisturbed)
    models = [read_manifest(runs.store(run), ModelManifest) for run in (disturbed, undisturbed)]
    assert models[0].files == models[1].files, "bit for bit"

"""The launchers of a run over several machines, each as in a pod of its own, on this one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.runfile import Progress


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pods:
    """Those of one attempt."""

    def __init__(self, run: Path, attempt: int, nodes: int, launcher: Sequence[str]) -> None:
        self._nodes, self._launcher = nodes, launcher
        document = {**json.loads(run.read_bytes()), "attempt": attempt}
        self.run = run.with_name(f"{run.stem}-{attempt}.json")
        self.run.write_text(json.dumps(document))
        self.port, self.master = free_port(), f"127.0.0.1:{free_port()}"
        self.launchers: dict[int, subprocess.Popen[str]] = {}

    def start(self, *nodes: int) -> Pods:
        for node in nodes:
            command = [sys.executable, *self._launcher, str(self.run), "--nodes", str(self._nodes)]
            command += ["--master", self.master]
            command += ["--progress", str(self._termination_message(node))]
            command += ["--serve", str(self.port)] if node == 0 else []
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "JOB_COMPLETION_INDEX": str(node)}
            with self._log(node).open("a") as log:
                self.launchers[node] = subprocess.Popen(command, env=environment, stderr=log, text=True)
        return self

    def end(self, *codes: int) -> list[Progress]:
        """All must end with these exit codes, in the order of nodes; gives the last words of those that left one."""
        found = tuple(launcher.wait(timeout=300) for _, launcher in sorted(self.launchers.items()))
        assert found == codes, self._logs()
        messages = [self._termination_message(node) for node in sorted(self.launchers)]
        return [Progress.model_validate_json(message.read_bytes()) for message in messages if message.exists()]

    def progress(self) -> Progress:
        """What the first node says of itself over the network."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/progress", timeout=5) as answer:
            return Progress.model_validate_json(answer.read())

    def wait_for(self, condition: Callable[[Progress], bool]) -> Progress:
        until = time.monotonic() + 100
        while True:
            try:
                if condition(progress := self.progress()):
                    return progress
            except OSError:
                pass
            assert time.monotonic() < until and self.launchers[0].poll() is None, (
                f"this did not come about:\n{self._logs()}"
            )
            time.sleep(0.05)

    def rank(self, runs: Any, node: int) -> int:
        """The training process of a node."""
        return runs.children(self.launchers[node])[0]

    def kill(self) -> None:
        for launcher in self.launchers.values():
            launcher.kill()
        for launcher in self.launchers.values():
            launcher.wait()

    def _logs(self) -> str:
        return "\n".join(self._log(node).read_text() for node in sorted(self.launchers))

    def _log(self, node: int) -> Path:
        return self.run.with_suffix(f".{node}.log")

    def _termination_message(self, node: int) -> Path:
        return self.run.with_suffix(f".{node}.progress")


@pytest.fixture
def pods() -> Iterator[Callable[..., Pods]]:
    """Makes the launchers of an attempt; none outlives the test."""
    made: list[Pods] = []

    def make(run: Path, attempt: int = 1, nodes: int = 2, launcher: Sequence[str] = ("-m", "kindling_trainer")) -> Pods:
        made.append(Pods(run, attempt, nodes, launcher))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def step_reached() -> Callable[[int], Callable[[Progress], bool]]:
    return lambda step: lambda progress: progress.training is not None and progress.training.step >= step

"""How long a killed training process costs: started again in its pod, and with new pods.

    python bench/faults/bench.py [--kills 30] [--nodes 4] [--seed 1] [--json FILE]

A run over several machines, each a launcher of its own on this one, loses a process at random (SIGKILL) some time after
each checkpoint. In place, the launchers start their processes again together. With new pods, as after the loss of one,
all launchers end and new ones start, as soon as they have: no scheduler, kubelet or image is waited for, so that a
cluster takes longer. Seconds are by the clock, from the kill to the first step after it.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import build_file, options_of, pretrain_file, write_figures

from kindling_api.base import canonical_json

STEP, SAVED = re.compile(r"step \d+ of"), re.compile(r"saved step \d+ at")
ROW = "{:<16}{:>8}{:>8}{:>8}{:>8}"
RUN: dict[str, Any] = {
    "model": {"architecture": "llama", "layers": 4, "heads": 4, "width": 128, "context": 128, "vocabMultiple": 2},
    "training": {"steps": 1000, "batch": {"tokens": 4096}, "precision": "fp32", "compile": "never"},
    "parallelism": {"tensor": 2},
    "checkpoint": {"every": 5},
    "evaluation": {"every": 1000, "batches": 1},
}
"""Steps of a tenth of a second, of which each is logged, with a checkpoint twice a second."""


class Attempt:
    """The launchers of one attempt at a run."""

    def __init__(
        self, run: Path, nodes: int, attempt: int, program: Sequence[str] = ("-m", "kindling_trainer")
    ) -> None:
        self._nodes, self._program = nodes, program
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._master = f"127.0.0.1:{probe.getsockname()[1]}"
        document = {**json.loads(run.read_bytes()), "attempt": attempt}
        self._file = run.with_name(f"{run.stem}-{attempt}.json")
        self._file.write_text(json.dumps(document))
        self.lines: list[tuple[float, str]] = []
        self.launchers = [self.start(node) for node in range(nodes)]
        threading.Thread(target=self._listen, daemon=True).start()

    def kill_one(self, chance: random.Random) -> float:
        """SIGKILL for the training process of some machine; returns when."""
        os.kill(self.process(chance.randrange(self._nodes)), signal.SIGKILL)
        return time.monotonic()

    def process(self, node: int) -> int:
        """The training process of a machine, as soon as there is one."""
        while True:
            command = ["pgrep", "-P", str(self.launchers[node].pid), "rank-"]
            if found := subprocess.run(command, capture_output=True, text=True).stdout:
                return int(found)

    def wait_for(self, what: re.Pattern[str], after: float) -> float:
        """When the first such line later than `after` was logged."""
        until = time.monotonic() + 300
        while True:
            for seen, line in list(self.lines):
                if seen > after and what.match(line):
                    return seen
            if time.monotonic() > until or self.launchers[0].poll() is not None:
                raise SystemExit("the run does not get on:\n" + "".join(line for _, line in self.lines[-20:]))
            time.sleep(0.005)

    def wait(self) -> None:
        for launcher in self.launchers:
            launcher.wait()

    def end(self) -> None:
        for launcher in self.launchers:
            launcher.kill()
        self.wait()

    def start(self, node: int) -> subprocess.Popen[str]:
        """The launcher of a machine."""
        command = [sys.executable, *self._program, str(self._file), "--nodes", str(self._nodes)]
        command += ["--master", self._master, "--progress", str(self._file.with_suffix(f".{node}"))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "JOB_COMPLETION_INDEX": str(node)}
        errors = subprocess.PIPE if node == 0 else subprocess.DEVNULL
        return subprocess.Popen(command, env=environment, stderr=errors, text=True)

    def progress(self) -> Any:
        """What the first machine's launcher would serve."""
        return json.loads(self._file.with_suffix(".0").read_bytes())

    def _listen(self) -> None:
        errors = self.launchers[0].stderr
        assert errors is not None
        for line in errors:
            self.lines.append((time.monotonic(), line))


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--nodes", type=int, default=4, help="an even number of machines")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = dataset_of_bytes(folder)
        figures = {
            "in place": in_place(_run(folder, dataset, "in-place", options, 10_000), options, chance),
            "with new pods": with_new_pods(_run(folder, dataset, "new-pods", options, 0), options, chance),
        }
    print(ROW.format("seconds", "kills", "p50", "p95", "worst"))
    for name, seconds in figures.items():
        shown = [f"{value:.1f}" for value in (statistics.median(seconds), _p95(seconds), max(seconds))]
        print(ROW.format(name, len(seconds), *shown))
    write_figures(options.json, figures)


def in_place(run: Path, options: Any, chance: random.Random) -> list[float]:
    attempt = Attempt(run, options.nodes, 1)
    pids = [launcher.pid for launcher in attempt.launchers]
    taken, after = [], 0.0
    try:
        for _ in range(options.kills):
            attempt.wait_for(SAVED, after)
            time.sleep(chance.random())
            after = attempt.kill_one(chance)
            taken.append(attempt.wait_for(STEP, after + 0.3) - after)  # a step that was under way may still be logged
        assert pids == [launcher.pid for launcher in attempt.launchers if launcher.poll() is None]
    finally:
        attempt.end()
    return taken


def with_new_pods(run: Path, options: Any, chance: random.Random) -> list[float]:
    taken, after, attempt = [], 0.0, Attempt(run, options.nodes, 1)
    try:
        for number in range(2, options.kills + 2):
            attempt.wait_for(SAVED, after)
            time.sleep(chance.random())
            after = attempt.kill_one(chance)
            attempt.wait()
            attempt = Attempt(run, options.nodes, number)
            taken.append(attempt.wait_for(STEP, after) - after)
    finally:
        attempt.end()
    return taken


def _p95(seconds: list[float]) -> float:
    return sorted(seconds)[max(0, round(0.95 * len(seconds)) - 1)]


def dataset_of_bytes(folder: Path) -> str:
    """The URI of a dataset of bytes, made of Python's own documentation strings."""
    (folder / "text.txt").write_text(
        "\n\n".join(path.read_text() for path in Path(random.__file__).parent.glob("*.py"))
    )
    document = {"sources": [{"uri": str(folder / "text.txt")}], "tokenizer": {"byte": {}}}
    file = folder / "build.json"
    file.write_bytes(canonical_json(build_file("texts", document, folder / "store").document()))
    subprocess.run([sys.executable, "-m", "kindling_dataprep", str(file)], check=True, stderr=subprocess.DEVNULL)
    (found,) = (folder / "store" / "datasets").iterdir()
    return found.as_uri()


def _run(folder: Path, dataset: str, name: str, options: Any, max_restarts: int) -> Path:
    document = {**RUN, "dataset": {"uri": dataset}, "resources": {"nodes": options.nodes}}
    document["restart"] = {"maxRestarts": max_restarts}
    run = pretrain_file(name, document, folder / "store")
    file = folder / f"{name}.json"
    file.write_bytes(canonical_json(run.document()))
    return file


if __name__ == "__main__":
    main()

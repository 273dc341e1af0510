"""Kills: a build of which driver and workers are killed at random, again and again, and one that was left alone.

    python bench/dataprep/kills.py [--kills 50] [--megabytes 5] [--workers 2] [--seed 0] [--json FILE]

Each time, after a random while, a process of the build gets SIGKILL: either its driver, after which the same command is
run again, or one of Ray's workers, after which the build goes on by itself. When a build ends before its time, its
dataset is deleted and it begins anew. The build that is left alone has one worker and no Ray. At the end both datasets
must be the same, byte for byte, and the ledger must account for every record that is in the sources, as counted here:
each once, kept or removed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from real_text import texts

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import build_file, descendants, options_of, write_figures

from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_dataprep.output import ledger
from kindling_storage import open_store

BAD_LINES = 7


def main() -> None:
    """Builds undisturbed, then with kills, compares, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--megabytes", type=float, default=5, help="of input; Ray starts at 4.2")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as folder:
        figures = compare(Path(folder), options)
    for name, value in figures.items():
        print(f"{name:<24}{value}")
    write_figures(options.json, figures)
    sys.exit(not (figures["sameBytes"] and figures["ledgerAddsUp"]))


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures, JSON-ready."""
    records = write_input(folder / "input", int(options.megabytes * 1_000_000))
    alone, disturbed = Build(folder, "alone", 1), Build(folder, "disturbed", options.workers)
    seconds = alone.run()
    killed = disturb(disturbed, options.kills, seconds, random.Random(options.seed))
    disturbed.run()
    ids = [row["id"] for table in disturbed.ledger() for row in table]
    return {
        "secondsUndisturbed": round(seconds, 1),
        **killed,
        "sameBytes": alone.files() == disturbed.files(),
        "records": records,
        "ledgerAddsUp": len(ids) == len(set(ids)) == records and alone.ledger() == disturbed.ledger(),
        "removed": len(disturbed.ledger()[1]),
    }


class Build:
    """One build, and its process while there is one."""

    def __init__(self, folder: Path, name: str, workers: int) -> None:
        self.store = folder / name
        self._progress = folder / f"{name}.progress.json"
        run = folder / f"{name}.json"
        run.write_text(json.dumps(run_file(folder, self.store, workers).document()))
        self._command = [sys.executable, "-m", "kindling_dataprep", str(run), "--progress", str(self._progress)]

    def start(self) -> subprocess.Popen[bytes]:
        """The process of the build; it goes on where an earlier one was."""
        return subprocess.Popen(self._command, stderr=subprocess.PIPE)

    def run(self) -> float:
        """Builds to the end, without kills; how long that took."""
        started = time.monotonic()
        self.check(self.start())
        return time.monotonic() - started

    def check(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the end, which must be a good one."""
        _, said = process.communicate()
        if process.returncode:
            word = Progress.model_validate_json(self._progress.read_bytes())
            sys.exit(f"exit code {process.returncode}: {word.message}\n{said.decode()}")

    def files(self) -> dict[str, bytes]:
        """The content of the files of the dataset, but for the report, which holds times."""
        found = (path for path in self.store.rglob("*") if path.is_file() and "names" not in path.parts)
        return {str(path.relative_to(self.store)): path.read_bytes() for path in found if path.name != "report.html"}

    def ledger(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of the kept and of the removed."""
        (folder,) = (self.store / "datasets").iterdir()
        store = open_store(folder.as_uri())
        return ledger.read_kept(store).to_pylist(), ledger.read_removed(store).to_pylist()


def disturb(build: Build, kills: int, seconds: float, chance: random.Random) -> dict[str, int]:
    """Kills processes of the build until it was `kills` times; how many of which kind."""
    counts = {"driversKilled": 0, "workersKilled": 0, "buildsBegunAnew": 0}
    process = build.start()
    while counts["driversKilled"] + counts["workersKilled"] < kills:
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.1, 0.7) * seconds)
        if process.poll() is not None:  # it has ended, as it should
            build.check(process)
            counts["buildsBegunAnew"] += 1
            shutil.rmtree(build.store)
            process = build.start()
        elif chance.random() < 0.5:
            process.kill()
            process.communicate()
            counts["driversKilled"] += 1
            process = build.start()
        elif workers := workers_of(process.pid):
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                counts["workersKilled"] += 1
    process.kill()
    process.communicate()
    return counts


def workers_of(driver: int) -> list[int]:
    """Ray's workers, by process id; none before Ray has started, and after it has stopped.

    Ray's agents are none of them: without one the node ends, and with it the build, which then is run again.
    """
    found = []
    for process in descendants(driver):
        with suppress(FileNotFoundError, ProcessLookupError):
            title = Path(f"/proc/{process}/cmdline").read_bytes()
            if title.startswith(b"ray::") and b"Agent" not in title:
                found.append(process)
    return found


def write_input(folder: Path, size: int) -> int:
    """Texts of this machine, some of them copies, and some lines that are none; how many records that is."""
    folder.mkdir()
    found = texts(size)
    lines = [json.dumps({"text": text}) + "\n" for text in [*found, *found[:20]]] + ["{torn\n"] * BAD_LINES
    random.Random(0).shuffle(lines)
    half = len(lines) // 2
    for name, part in {"a.jsonl": lines[:half], "b.jsonl": lines[half:]}.items():
        (folder / name).write_text("".join(part))
    return len(lines)


def run_file(folder: Path, store: Path, workers: int) -> DatasetBuildFile:
    """The run file of a build with something to do for every stage."""
    document = {
        "sources": [{"uri": str(folder / "input")}],
        "filters": [{"formatting": {}}, {"gopherQuality": {}}, {"gopherRepetition": {}}],
        "toxicity": {},
        "badRecords": {"maxFraction": 0.1},
        "tokenizer": {"train": {"vocabSize": 2000}},
        "shards": {"tokensPerShard": 200_000},
        "engine": {"workers": workers},
    }
    return build_file("kills", document, store)


if __name__ == "__main__":
    main()

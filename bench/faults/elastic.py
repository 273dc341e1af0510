"""One run whose machines are lost and come back at random, beside one that nothing happened to.

    python bench/faults/elastic.py [--faults 20] [--seed 1] [--architectures llama gpt2] [--json FILE]

A run over two to four machines, each a launcher of its own on this one, with tensor parallelism over two of them. Again
and again one that is not the first is killed (SIGKILL) or asked to leave (SIGTERM), or one that was comes back, at
random; so it shrinks, waits where fewer than two are left, and grows. Both architectures. Losses of every step are
those of a run on one machine to 1e-5, or the bench fails. Seconds are what the run's own records say: from the decision
to the first step after it.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import SAVED, Attempt, dataset_of_bytes
from common import options_of, pretrain_file, write_figures

from kindling_api.base import canonical_json

NODES = 4
STEPS_A_FAULT = 60
EAGER = """
import sys
from kindling_trainer import __main__
from kindling_trainer.launch import elastic
elastic.START_WAIT_SECONDS, elastic.GAIN_FACTOR = 1.0, 0.0
sys.exit(__main__.main(sys.argv[1:]))
"""
"""A launcher that grows whatever it costs: a run of minutes would never."""
SIZES: dict[str, Any] = {"layers": 2, "heads": 4, "width": 64, "context": 64, "vocabMultiple": 2}


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--architectures", nargs="+", default=["llama", "gpt2"])
    options = parser.parse_args()
    figures = {}
    for architecture in options.architectures:
        with tempfile.TemporaryDirectory() as folder:
            figures[architecture] = disturbed(Path(folder), architecture, options)
        print(f"{architecture}: {json.dumps(figures[architecture])}")
    write_figures(options.json, figures)


def disturbed(folder: Path, architecture: str, options: Any) -> dict[str, Any]:
    """The figures of one run; SystemExit where its losses are others than those of a run that was not disturbed."""
    dataset, steps = dataset_of_bytes(folder), STEPS_A_FAULT * (options.faults + 2)
    alone = run_file(folder, dataset, "alone", architecture, steps, {})
    subprocess.run([sys.executable, "-m", "kindling_trainer", str(alone)], check=True, stderr=subprocess.DEVNULL)
    run = run_file(folder, dataset, "elastic", architecture, steps, {"nodes": NODES, "minNodes": 2})
    faults, words = shake(Attempt(run, NODES, 1, ("-c", EAGER)), options)
    found, expected = losses(folder, "elastic"), losses(folder, "alone")
    worst = max(abs(found[step] - expected[step]) for step in expected)
    resizes = words.get("resizes") or []
    seconds = [one.get("seconds") or 0.0 for one in resizes] or [0.0]
    figures = {
        "seed": options.seed, "faults": faults, "steps": len(found), "largestDifference": worst,
        "newestResizes": resizes, "median seconds": statistics.median(seconds),
    }  # fmt: skip
    if found.keys() != expected.keys() or worst > 1e-5:
        raise SystemExit(f"{architecture}: the curves differ: {figures}")
    return figures


def shake(attempt: Attempt, options: Any) -> tuple[list[str], Any]:
    """Cause faults until there were enough or the run is done; what was done, and its last word.

    Before every second one the run has committed a checkpoint since the last, so that all of it is disturbed, and some
    faults come while it has not recovered from another.
    """
    chance, done, after = random.Random(options.seed), [], 0.0
    leader = attempt.launchers[0]
    try:
        while len(done) < options.faults and leader.poll() is None:
            if len(done) % 2 == 0 and not has_saved(attempt, after):
                break
            time.sleep(chance.random() * 4)
            after = time.monotonic()
            done.append(fault(attempt, chance))
        newest = dict(word.split() for word in done)
        for node in (int(node) for node, what in newest.items() if what != "back"):
            attempt.launchers[node].wait()
            attempt.launchers[node] = attempt.start(node)
        if leader.wait() != 0:
            raise SystemExit(f"it failed after {done}: {attempt.progress()}")
        return done, attempt.progress()
    finally:
        attempt.end()


def has_saved(attempt: Attempt, after: float) -> bool:
    """Waits for a checkpoint later than `after`; False where the run was done before it."""
    try:
        attempt.wait_for(SAVED, after)
    except SystemExit:
        if attempt.launchers[0].poll() != 0:
            raise
        return False
    return True


def fault(attempt: Attempt, chance: random.Random) -> str:
    """What becomes of a machine that is not the first: gone, or back where it was gone."""
    node = chance.randrange(1, NODES)
    launcher = attempt.launchers[node]
    if launcher.poll() is not None:
        attempt.launchers[node] = attempt.start(node)
        return f"{node} back"
    if chance.random() < 0.5:
        launcher.kill()
        launcher.wait()
        return f"{node} killed"
    launcher.terminate()
    return f"{node} drained"


def run_file(folder: Path, dataset: str, name: str, architecture: str, steps: int, resources: dict[str, Any]) -> Path:
    """A run of the model, alone on this machine or over several; with tensor parallelism where it has several."""
    document = {
        "dataset": {"uri": dataset},
        "model": {"architecture": architecture, **SIZES},
        "training": {
            "steps": steps,
            "batch": {"tokens": 4096, "microBatch": 8},
            "precision": "fp32",
            "compile": "never",
            "optimizer": {"adamW": {"learningRate": 1e-4}},  # six times that lets rounding grow to 1e-5 in 330 steps
        },
        "parallelism": {"tensor": 2} if resources else {},
        "resources": resources,
        "checkpoint": {"every": 10},
        "evaluation": {"every": 10_000, "batches": 1},
    }
    run = pretrain_file(name, document, folder / name)
    file = folder / f"{name}.json"
    file.write_bytes(canonical_json(run.document()))
    return file


def losses(folder: Path, name: str) -> dict[int, float]:
    """The training loss by step."""
    (metrics,) = (folder / name).glob("models/*/metrics.jsonl")
    rows = metrics.read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, rows) if "loss" in row}


if __name__ == "__main__":
    main()

"""How soon a slow pod is named, how often one is that is not slow, and what the measure costs.

    python bench/faults/stragglers.py [--runs 5] [--times 4] [--seed 1] [--cost-steps 400] [--json FILE]

Each run goes over four machines, each a launcher of its own on this one. After some thirty steps, in which nobody may
be named, the training process of one of them is stopped for 50 of every 100 ms (SIGSTOP, SIGCONT), as the kernel does
at a limit of CPU, at random which and when, until one is named, and then let go until that is seen; and so four
times. Then, in one run more, the measure is switched on and off every ten steps, and the steps with and without it
are compared.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "tests")]
from bench import Attempt, dataset_of_bytes
from common import options_of, pretrain_file, write_figures
from throttling import throttled

from kindling_api.base import canonical_json

NODES = 4
STEP = re.compile(r"step (\d+) of")
NAMED, OVER = re.compile(r"process \d+, on node \d+, is slow"), re.compile(r"no process is slow any more")
BLOCK = 10
"""Steps with the measure, and steps without it, in turn."""
FOLDER = "KINDLING_BENCH_FOLDER"
"""The environment variable with the folder in which each process writes its CPU seconds at the end of each block."""
RUN: dict[str, Any] = {
    "model": {"architecture": "llama", "layers": 2, "heads": 4, "width": 96, "context": 128, "vocabMultiple": 2},
    "training": {"steps": 2000, "batch": {"tokens": 4096, "microBatch": 8}, "precision": "fp32", "compile": "never"},
    "checkpoint": {"every": 10_000},
    "evaluation": {"every": 10_000, "batches": 1},
    "resources": {"nodes": NODES},
}
IN_TURN = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
os.environ["PYTHONPATH"] = {str(Path(__file__).parent)!r}
from kindling_trainer import __main__
__main__.PROGRAM = "watched_in_turn"
sys.exit(__main__.main(sys.argv[1:]))
"""
"""A launcher whose processes measure in turn with not."""


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--times", type=int, default=4, help="in each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cost-steps", type=int, default=400)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = dataset_of_bytes(folder)
        for number in range(options.runs):
            throttle_again_and_again(run_file(folder, dataset, f"run-{number}", RUN), options.times, chance, found)
        named = [one["steps"] for one in found if one["named"] == one["throttled"]]
        figures: dict[str, Any] = {
            "throttled": len(found),
            "named rightly": len(named),
            "within 20 steps": sum(steps <= 20 for steps in named),
            "steps until named, median and most": [statistics.median(named), max(named)] if named else None,
            "steps in which nobody was throttled": sum(one["clean"] for one in found),
            "named in these": sum(one["false"] for one in found),
        }
        print(json.dumps(figures, indent=1), flush=True)
        training = {**RUN["training"], "steps": options.cost_steps}
        figures |= in_turn(run_file(folder, dataset, "cost", {**RUN, "training": training}), folder)
    print(json.dumps(figures, indent=1))
    write_figures(options.json, {**figures, "each": found})


def throttle_again_and_again(run: Path, times: int, chance: random.Random, found: list[dict[str, Any]]) -> None:
    """One run, of which a machine is throttled for a while, again and again; what came of it is added to `found`."""
    attempt = Attempt(run, NODES, 1)
    try:
        attempt.wait_for(STEP, 0.0)
        after = 0.0
        for _ in range(times):
            since, victim = newest_step(attempt), chance.randrange(NODES)
            wait_for_step(attempt, since + 25 + chance.randrange(15))
            with throttled(attempt.process(victim)):
                began, step = time.monotonic(), newest_step(attempt)
                false = sum(after < seen < began and bool(NAMED.match(line)) for seen, line in list(attempt.lines))
                attempt.wait_for(NAMED, began)
                time.sleep(1.0)  # progress is written every half second
                (slow, *_) = attempt.progress()["stragglers"]
            let_go = newest_step(attempt)
            after = attempt.wait_for(OVER, began)
            one = {"throttled": victim, "named": slow["node"], "steps": slow["step"] - step, "factor": slow["factor"]}
            found.append({**one, "over after": newest_step(attempt) - let_go, "clean": step - since, "false": false})
            print(json.dumps(found[-1]), flush=True)
    finally:
        attempt.end()


def newest_step(attempt: Attempt) -> int:
    return max(int(found[1]) for _, line in list(attempt.lines) if (found := STEP.match(line)))


def wait_for_step(attempt: Attempt, step: int) -> None:
    while newest_step(attempt) < step:
        attempt.wait_for(STEP, time.monotonic())


def in_turn(run: Path, folder: Path) -> dict[str, Any]:
    """What the steps of a block with the measure take more than those of the block before without it, by the clock and
    in CPU seconds of all processes; as quartiles, which tell the noise."""
    os.environ[FOLDER] = str(folder)
    attempt = Attempt(run, NODES, 1, ("-c", IN_TURN))
    try:
        attempt.wait()
    finally:
        attempt.end()
    (metrics,) = (folder / "cost").glob("models/*/metrics.jsonl")
    rows = [row for row in map(json.loads, metrics.read_text().splitlines()) if "loss" in row]
    clock = [row["time"] for row in rows if (row["step"] + 1) % BLOCK == 0]
    cpu = [[float(line) for line in path.read_text().splitlines()] for path in folder.glob("cpu-*")]
    return {
        "cost in percent by the clock, quartiles": costs([clock]),
        "cost in percent of CPU seconds, quartiles": costs(cpu),
    }


def costs(ends: list[list[float]]) -> list[float]:
    """Quartiles of by how many percent a block with the measure takes more than the one before it; `ends` has when each
    block of a process ended, the first of which are without it after the warm-up."""
    found = []
    for course in ends:
        taken = [after - before for before, after in itertools.pairwise(course)]
        found += [100 * (taken[on] / taken[on - 1] - 1) for on in range(3, len(taken), 2)]
    return statistics.quantiles(found, n=4)


def run_file(folder: Path, dataset: str, name: str, document: dict[str, Any]) -> Path:
    run = pretrain_file(name, {**document, "dataset": {"uri": dataset}}, folder / name)
    file = folder / f"{name}.json"
    file.write_bytes(canonical_json(run.document()))
    return file


if __name__ == "__main__":
    main()

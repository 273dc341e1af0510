"""Learning from pairs, whole runs as processes: one curve on every layout, whose first step is ln 2."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
AlignmentFactory = Callable[..., Path]
Rows = Callable[[Path], list[dict[str, Any]]]


def pairs(count: int) -> list[dict[str, Any]]:
    """Questions about letters; what is preferred is the letter itself."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        {
            "prompt": f"{letters[number % 26]}{'?' * (number % 7 + 1)}",
            "chosen": letters[number % 26] * (number % 5 + 1),
            "rejected": letters[(number + 7) % 26] * (number % 4 + 1),
        }
        for number in range(count)
    ]


TWO, FOUR, TENSOR = ({"processesPerNode": 2}, {"processesPerNode": 4}, {"tensor": 2})
LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    "dpo": {"one": {}, "fsdp2-tp2": {"resources": FOUR, "parallelism": TENSOR}},
    "reward": {"one": {}, "tp2": {"resources": TWO, "parallelism": TENSOR}},
}
RECIPE: dict[str, Any] = {"batch": {"tokens": 384, "microBatch": 2}, "precision": "fp32", "compile": "never"}
RECIPE |= {"optimizer": {"adamW": {"learningRate": 3e-3}}}
EPOCH = {"epochs": 1, "context": 24}
"""106 windows, the model's context being twice as long: six batches of 16, and what is left."""
METHODS: dict[str, dict[str, Any]] = {"dpo": {"dpo": {"beta": 0.5}}, "reward": {"reward": {"centerCoefficient": 0.01}}}


@pytest.mark.parametrize("method", METHODS)
def test_every_layout_gives_the_same_curve(
    alignment_file: AlignmentFactory, base: Callable[..., str], runs: Any, method: str
) -> None:
    uri, recipe = base(), {"records": pairs(120), "method": METHODS[method], "training": RECIPE | EPOCH}
    files = {
        name: alignment_file(name=name, base_uri=uri, **recipe, **layout) for name, layout in LAYOUTS[method].items()
    }
    runs.train_in_turn(list(files.values()))
    curves = {name: runs.rows(run) for name, run in files.items()}
    losses = {name: [row["loss"] for row in found if "loss" in row] for name, found in curves.items()}
    assert len(losses["one"]) == 7
    assert losses["one"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert len({round(loss, 3) for loss in losses["one"]}) > 3, "something is learned"
    for found in curves.values():
        for figure in ("loss", "validation_loss", "rewards/margins", "evaluation/rewards/accuracies"):
            expected = [row[figure] for row in curves["one"] if figure in row]
            assert expected and [row[figure] for row in found if figure in row] == pytest.approx(expected, abs=1e-5)


@pytest.mark.exhaustive
def test_a_run_that_was_killed_goes_on_with_the_reference_that_it_began_with(
    alignment_file: AlignmentFactory, base: Callable[..., str], runs: Any, rows: Rows
) -> None:
    uri, recipe = base(), RECIPE | {"steps": 40}
    whole, killed = (
        alignment_file(name=name, base_uri=uri, records=pairs(120), method=METHODS["dpo"], training=recipe)
        for name in ("whole", "killed")
    )
    runs.finish(whole)
    saved = len(_saved(whole))
    process = runs.start(killed)
    until = time.monotonic() + 300
    while len(_saved(killed)) < saved + 2:
        assert time.monotonic() < until and process.poll() is None, "it was to be killed before its end"
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    time.sleep(1)  # its training process dies with it
    said = runs.finish(killed)
    assert "continues from checkpoint" in said and "the reference's log-probabilities" not in said
    losses, expected = ([row["loss"] for row in rows(run) if "loss" in row] for run in (killed, whole))
    assert len(expected) == 40 and losses == expected, "bit for bit"


def _saved(run: Path) -> list[Path]:
    """The checkpoints in the store that all runs of a test share."""
    return list((run.parent / "store" / "models").glob("*/checkpoints/step-*/manifest.json"))

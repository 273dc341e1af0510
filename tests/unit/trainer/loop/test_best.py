"""Runs that keep the weights with the lowest validation loss, and stop where no better ones come."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.products import MANIFEST
from kindling_api.v1alpha1.training import KeepBest
from kindling_trainer.checkpoint.folders import drop_after, folders
from kindling_trainer.loop.best import BestSoFar

RunFactory = Callable[..., Path]


@pytest.mark.parametrize(
    ("losses", "best", "enough"),
    [
        ([3.0, 2.0, 1.0], 2, False),
        ([3.0, 1.0, 2.0], 1, False),
        ([3.0, 1.0, 2.0, 1.0], 1, True),
        ([3.0, 1.0, 2.0, 0.9], 3, False),
        ([math.nan, 3.0], 1, False),
        ([3.0, math.nan, math.nan], 0, True),
    ],
)
def test_the_best_is_the_first_of_the_lowest_and_two_that_are_no_better_are_enough(
    losses: list[float], best: int, enough: bool
) -> None:
    so_far = BestSoFar()
    for step, loss in enumerate(losses):
        so_far.judge(step, loss)
    assert so_far.found is not None and so_far.found.step == best
    assert so_far.is_enough(KeepBest(stop_after=2)) == enough and not so_far.is_enough(KeepBest())


@pytest.mark.slow
def test_a_run_that_gets_worse_ends_early_with_its_best_weights_whatever_killed_it(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str], tmp_path: Path
) -> None:
    uri = dataset()
    training = {"steps": 40, "optimizer": {"adamW": {"learningRate": 0.3}}, "gradientClip": 0.0}
    fields: dict[str, Any] = {"dataset": uri, "checkpoint": {"every": 3, "keep": 2}, "evaluation": {"every": 2}}
    fields["training"] = training | {"keepBest": {"stopAfter": 4}}
    run = run_file(name="best", store="best", **fields)
    runs.train_in_turn([run])
    store = runs.store(run)
    manifest = json.loads(store.get(MANIFEST))
    tried = {
        row["step"]: row["validation_loss"] for row in runs.rows(run) if "validation_loss" in row and "final" not in row
    }
    best = min(tried, key=lambda step: tried[step])
    assert manifest["best"] == {"step": best, "loss": tried[best], "judged": best + 8, "worse": 4}
    assert max(tried) == best + 8 < 40 and manifest["steps"] == best
    assert best in {folder.step for folder in folders(store)}, "beside the two newest"
    assert runs.rows(run)[-1]["final"] and runs.rows(run)[-1]["validation_loss"] == pytest.approx(tried[best], abs=0.3)

    shutil.copytree(tmp_path / "best", tmp_path / "killed")
    again = run_file(name="best", store="killed", **fields)
    killed = runs.store(again)
    if not killed.exists(MANIFEST):  # another key has another folder
        shutil.move(
            next((tmp_path / "killed" / "models").iterdir()), tmp_path / "killed" / "models" / Path(killed.uri).name
        )
    drop_after(killed, best + 3)
    killed.delete(MANIFEST)
    runs.train_in_turn([again])
    assert json.loads(killed.get(MANIFEST))["best"] == manifest["best"]

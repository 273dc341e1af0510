"""Steps that may not be taken: found by their loss and gradient, left out with what they read, and told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kindling_api.v1alpha1.products import MANIFEST, CheckpointManifest, ModelManifest
from kindling_api.v1alpha1.runfile import read_run_file
from kindling_api.v1alpha1.training import Instability
from kindling_storage import ObjectStore
from kindling_storage.commit import read_manifest
from kindling_trainer.checkpoint.folders import CHECKPOINTS, checkpoint_store, folders
from kindling_trainer.loop.instability import Spikes, not_finite

RunFactory = Callable[..., Path]
WINDOW = 50


def spikes(spike: float = 8.0, recent: Any = ()) -> Spikes:
    return Spikes(Instability(spike=spike, window=WINDOW), warm_up=10, recent=recent)


def watching(losses: Any, norms: Any, spike: float = 8.0) -> list[tuple[int, str]]:
    """The steps of a curve that are not taken."""
    found, watch = [], spikes(spike)
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if why := watch.why(float(loss), float(norm)):
            found.append((step, why))
        else:
            watch.taken(step + 1, float(loss), float(norm))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_curve_has_no_spike(seed: int) -> None:
    random, steps = np.random.default_rng(seed), np.arange(1500)
    losses = 2.5 + 6 * np.exp(-steps / 150) + random.normal(0, 0.08, len(steps))
    norms = (0.4 + 2 * np.exp(-steps / 100)) * random.lognormal(0, 0.15, len(steps))
    assert watching(losses, norms) == []


@pytest.mark.parametrize(("what", "by"), [("loss", 3.0), ("gradient norm", 5.0)])
def test_a_step_far_above_those_before_is_named_with_what_it_was_compared_with(what: str, by: float) -> None:
    random = np.random.default_rng(1)
    losses, norms = 3 + random.normal(0, 0.05, 300), 0.5 + random.normal(0, 0.02, 300)
    (losses if what == "loss" else norms)[[5, 200]] += by
    ((step, why),) = watching(losses, norms)
    assert step == 200, "in the warm-up there is nothing to compare with"
    assert why.startswith(f"{what} ") and why.endswith(f" is the most after the {WINDOW} steps before")


def test_what_was_not_taken_is_no_part_of_what_others_are_compared_with() -> None:
    losses = np.full(300, 3.0)
    losses[100:110] = 9.0
    assert [step for step, _ in watching(losses, losses)] == list(range(100, 110))


@pytest.mark.parametrize(
    ("spiking", "taken"), [([100, 101, 102, 103], 4), ([100, 101, 103, 104, 105], 5), (range(100, 110), 4)]
)
def test_where_no_more_may_be_left_out_spikes_are_taken_unless_there_are_five_in_a_row(
    spiking: Any, taken: int
) -> None:
    watch, found = spikes(), 0
    watch.are_taken = True
    for step in range(120):
        loss = 9.0 if step in spiking else 3.0
        if spike := bool(watch.why(loss, 1.0)):
            if not watch.is_taken():
                break
            found += 1
        watch.taken(step + 1, loss, 1.0, spike=spike)
    assert found == taken


def test_a_run_that_resumes_compares_with_the_same_steps() -> None:
    before = spikes()
    for step in range(200):
        before.taken(step + 1, 3 + step % 7 / 100, 1.0)
    after = spikes(recent=json.loads(json.dumps(before.recent)))
    assert [after.why(loss, 1.0) for loss in (3.1, 3.2, 3.5)] == [before.why(loss, 1.0) for loss in (3.1, 3.2, 3.5)]
    assert after.why(4.0, 1.0)


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_what_is_not_finite_is_never_taken(norm: float) -> None:
    assert not_finite(2.0, norm) == f"loss 2.0 and gradient norm {norm}"
    assert not_finite(2.0, 1e30) == ""


PATCHED = Path(__file__).with_name("train_with_poison.py")
DAMAGING = Path(__file__).with_name("train_with_damage.py")
POISON = [63] * 40
"""Tokens that stand nowhere else in a row."""


def train(*runs: Path, processes: int = 1, script: Path = PATCHED, die: str = "") -> str:
    """The runs, in which a window with poison does its harm; what they said."""
    command = [sys.executable, str(script), *(f"{run}:{processes}" for run in runs)]
    done = subprocess.run(command, env=os.environ | {"DIE": die}, stderr=subprocess.PIPE, text=True, timeout=500)
    assert done.returncode == (9 if die else 0), done.stderr
    return done.stderr


@pytest.mark.slow
def test_poison_is_left_out_alike_on_every_layout_and_by_a_replay(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str]
) -> None:
    """Whose windows they are, the numbers say; a run that is told them from the beginning becomes the same model."""
    uri = dataset(name="poisoned", planted=POISON)

    def new(name: str, **fields: Any) -> Path:
        given = {"dataset": uri, "training": {"steps": 20}, "checkpoint": {"every": 5, "keep": 10}}
        return run_file(name=name, store=name, **given | fields)

    plain = new("plain")
    assert "is not taken (loss nan and gradient norm nan): what it read is left out" in train(plain)
    manifest = manifest_of(runs, plain)
    assert manifest.skipped and manifest.steps == 20
    rows = runs.rows(plain)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 21))
    assert [row["step"] for row in rows if "skipped" in row] == [step.step for step in manifest.skipped]
    weights = runs.store(plain).child("model").get("model.safetensors")

    windows = [window.document() for step in manifest.skipped for window in step.windows]
    replay, others = (
        new("replay", training={"steps": 20, "skip": windows}),
        [new(name, **LAYOUTS[name]) for name in LAYOUTS],
    )
    go_back(runs.store(plain))
    assert "is not taken" not in train(plain, replay), "what a checkpoint says is left out stays so"
    for run in (plain, replay):
        assert runs.store(run).child("model").get("model.safetensors") == weights
    assert runs.losses(replay) == runs.losses(plain)

    train(*others, processes=2)
    for run in others:
        found = manifest_of(runs, run).skipped or ()
        assert [(each.step, each.windows) for each in found] == [(e.step, e.windows) for e in manifest.skipped]
        assert runs.losses(run) == pytest.approx(runs.losses(plain), rel=1e-5)


LAYOUTS: dict[str, dict[str, Any]] = {
    name: {"parallelism": {name: 2}, "resources": {"processesPerNode": 2}} for name in ("data", "tensor", "pipeline")
}


@pytest.mark.slow
def test_a_run_whose_weights_are_at_fault_goes_back_to_before_that_alike_on_every_layout_and_after_a_kill(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str]
) -> None:
    """The steps that read poison are taken, and the checkpoints that follow them are damaged."""
    uri = dataset(name="poisoned", planted=POISON[:24])

    def new(name: str, **fields: Any) -> Path:
        given = {"dataset": uri, "training": {"steps": 20}, "checkpoint": {"every": 2, "keep": 10}}
        return run_file(name=name, store=name, **given | fields)

    plain = new("plain")
    assert "goes back to the checkpoint of step" in train(plain, script=DAMAGING)
    manifest = manifest_of(runs, plain)
    assert manifest.skipped and all(each.rolled_back_to is not None for each in manifest.skipped)
    rows = runs.rows(plain)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 21))
    assert [(row["step"], row["rolled_back_to"]) for row in rows if "skipped" in row] == [
        (each.step, each.rolled_back_to) for each in manifest.skipped
    ]
    weights = runs.store(plain).child("model").get("model.safetensors")

    windows = [window.document() for step in manifest.skipped for window in step.windows]
    replay = new("replay", training={"steps": 20, "skip": windows})
    before, after = new("before"), new("after")
    for run in (before, after):
        train(run, script=DAMAGING, die=run.name.split("-")[0])
    assert "goes back" not in train(replay, script=DAMAGING)
    train(before, after, script=DAMAGING)
    for run in (replay, before, after):
        assert runs.store(run).child("model").get("model.safetensors") == weights

    others = [new(name, **LAYOUTS[name]) for name in LAYOUTS]
    train(*others, processes=2, script=DAMAGING)
    for run in others:
        found = manifest_of(runs, run).skipped or ()
        assert [(e.step, e.windows, e.rolled_back_to) for e in found] == [
            (e.step, e.windows, e.rolled_back_to) for e in manifest.skipped
        ]
        assert runs.losses(run) == pytest.approx(runs.losses(plain), rel=1e-5)


def manifest_of(runs: Any, run: Path) -> ModelManifest:
    manifest = read_manifest(runs.store(run), ModelManifest)
    assert manifest is not None
    return manifest


def go_back(store: ObjectStore) -> None:
    """The run is as it was at its first checkpoint after something was left out."""
    store.delete(MANIFEST)
    found = [(folder, read_manifest(checkpoint_store(store, folder), CheckpointManifest)) for folder in folders(store)]
    first = next(folder for folder, manifest in found if manifest is not None and manifest.skipped)
    assert first.step < 20
    for folder, _ in found:
        if folder > first:
            store.child(CHECKPOINTS).delete_prefix(folder.name)


@pytest.mark.slow
def test_a_run_that_may_leave_out_no_more_ends_and_names_the_steps(
    run_file: RunFactory, dataset: Callable[..., str]
) -> None:
    run = run_file(
        dataset=dataset(name="poisoned", planted=POISON), training={"steps": 20, "instability": {"atMost": 0}}
    )
    done = subprocess.run([sys.executable, str(PATCHED), f"{run}:1"], stderr=subprocess.PIPE, text=True, timeout=500)
    assert done.returncode
    assert "spec.training: found loss nan and gradient norm nan in step" in done.stderr
    assert read_run_file(run).spec.training.instability == Instability(at_most=0)

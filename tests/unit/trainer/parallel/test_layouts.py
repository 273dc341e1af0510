"""Whole runs as processes: every layout gives one curve, and a kill leaves no trace in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_trainer.checkpoint.folders import folders

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RunFactory = Callable[..., Path]

LAYOUTS: dict[str, dict[str, Any]] = {
    "one": {},
    "dp2": {"resources": {"processesPerNode": 2}, "parallelism": {"sharding": "none"}},
    "fsdp2": {"resources": {"processesPerNode": 2}},
    "tp2": {"resources": {"processesPerNode": 2}, "parallelism": {"tensor": 2}},
    "fsdp2-tp2": {"resources": {"processesPerNode": 4}, "parallelism": {"tensor": 2}},
    "cp2": {"resources": {"processesPerNode": 2}, "parallelism": {"context": 2}},
}
MODELS = {
    "llama-gqa-untied": {"architecture": "llama", "heads": 4, "kvHeads": 2},
    "gpt2-tied": {"architecture": "gpt2", "heads": 4, "bias": True},
}


@pytest.mark.parametrize("model", [pytest.param("llama-gqa-untied", marks=pytest.mark.exhaustive), "gpt2-tied"])
def test_every_layout_gives_the_same_losses(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str], model: str
) -> None:
    uri, files = dataset(), {}
    for name, layout in LAYOUTS.items():
        # Data-parallel processes accumulate gradients too. Tensor-parallel ones spend their time on each operation.
        batch = {"tokens": 128, "microBatch": 4 if "tp" in name else 2}
        fields = {"model": MODELS[model], "training": {"batch": batch}, **layout}
        files[name] = run_file(name=name, store=name, dataset=uri, **fields)
    runs.train_in_turn(list(files.values()))
    for name, run in files.items():
        assert len(runs.losses(run)) == 20
        assert runs.losses(run) == pytest.approx(runs.losses(files["one"]), abs=1e-5), name
        ends = [runs.rows(each)[-1]["validation_loss"] for each in (run, files["one"])]
        assert ends[0] == pytest.approx(ends[1], abs=1e-5), name


TWO, TENSOR = {"resources": {"processesPerNode": 2}}, {"parallelism": {"tensor": 2}}
FOUR, CONTEXT = {"resources": {"processesPerNode": 4}}, {"parallelism": {"context": 2}}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "llama-tied": {
        "hsdp": FOUR | {"parallelism": {"replicas": 2, "data": 2}},
        "fsdp2-compiled": TWO | {"training": {"compile": "always"}},
        "fsdp2-context-selective": FOUR | CONTEXT | {"training": {"activationCheckpointing": "selective"}},
    },
    "llama-tied-again": {
        "tensor": TWO | TENSOR,
        "fsdp2-selective": TWO | {"training": {"activationCheckpointing": "selective"}},
        "context-compiled": TWO | CONTEXT | {"training": {"compile": "always"}},
    },
    "gpt2-untied": {
        "replicas": TWO | {"parallelism": {"replicas": 2}},
        "tensor-full": TWO | TENSOR | {"training": {"activationCheckpointing": "full"}},
        "tensor-context-full": FOUR
        | {"parallelism": {"tensor": 2, "context": 2}, "training": {"activationCheckpointing": "full"}},
    },
}
OTHER_HEADS = {
    "llama-tied": MODELS["llama-gqa-untied"] | {"tiedEmbeddings": True},
    "llama-tied-again": MODELS["llama-gqa-untied"] | {"tiedEmbeddings": True},
    "gpt2-untied": MODELS["gpt2-tied"] | {"tiedEmbeddings": False},
}


@pytest.mark.parametrize(
    "model",
    ["llama-tied", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("llama-tied-again", "gpt2-untied"))],
)
def test_how_it_is_computed_does_not_change_the_losses(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str], model: str
) -> None:
    uri, recipe, files = dataset(), {"steps": 4, "batch": {"tokens": 128, "microBatch": 2}}, {}
    for name, fields in {"plain": {}, **VARIANTS[model]}.items():
        fields = fields | {"training": recipe | fields.get("training", {})}
        files[name] = run_file(model=OTHER_HEADS[model], name=name, store=name, dataset=uri, **fields)
    runs.train_in_turn(list(files.values()))
    curves = {name: runs.losses(run) for name, run in files.items()}
    assert len(curves["plain"]) == 4
    for name, curve in curves.items():
        assert curve == pytest.approx(curves["plain"], abs=1e-5), name


def test_bf16_trains_close_to_fp32(run_file: RunFactory, runs: Any, dataset: Callable[..., str]) -> None:
    uri, files = dataset(), {}
    for name, precision, layout in (("plain", "fp32", {}), ("autocast", "bf16", {}), ("fsdp2", "bf16", TWO)):
        training = {"steps": 4, "precision": precision}
        files[name] = run_file(name=name, store=name, dataset=uri, training=training, **layout)
    runs.train_in_turn(list(files.values()))
    curves = {name: runs.losses(run) for name, run in files.items()}
    for name in ("autocast", "fsdp2"):
        assert curves[name] != curves["plain"]
        assert curves[name] == pytest.approx(curves["plain"], abs=0.02)


@pytest.mark.exhaustive
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been_on_its_layout_or_another(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str], tmp_path: Path
) -> None:
    uri = dataset()
    long = {"training": {"steps": 60, "batch": {"tokens": 128}}, "model": {**MODELS["gpt2-tied"], "dropout": 0.1}}
    whole, killed = (run_file(name=name, store=name, dataset=uri, **long) for name in ("whole", "killed"))
    runs.finish(whole)
    assert runs.kill_after(killed, 23, signal.SIGKILL) == -signal.SIGKILL
    time.sleep(1)  # its training process dies with it
    saved = max(folder.step for folder, committed in folders(runs.store(killed)).items() if committed)
    shutil.copytree(tmp_path / "killed", tmp_path / "as-it-was-killed")
    runs.finish(killed)
    assert runs.losses(killed) == runs.losses(whole), "bit for bit"

    shutil.rmtree(tmp_path / "killed")
    shutil.move(tmp_path / "as-it-was-killed", tmp_path / "killed")
    runs.finish(run_file(name="killed", store="killed", dataset=uri, **long, **LAYOUTS["tp2"]))
    # Dropout draws other numbers on another layout: only what was saved before the kill is equal.
    assert saved >= 5 and runs.losses(killed)[:saved] == runs.losses(whole)[:saved]
    assert len(runs.losses(killed)) == 60


def test_a_run_that_is_killed_resumes_on_other_layouts_on_the_same_curve(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str]
) -> None:
    uri = dataset()
    recipe = {"training": {"steps": 60, "batch": {"tokens": 128, "microBatch": 4}}, "model": MODELS["llama-gqa-untied"]}
    whole = run_file(name="whole", store="whole", dataset=uri, **recipe)
    runs.finish(whole)
    for step, layout in ((13, LAYOUTS["cp2"]), (26, LAYOUTS["one"])):
        killed = run_file(name="killed", store="killed", dataset=uri, **recipe, **layout)
        assert runs.kill_after(killed, step, signal.SIGKILL) == -signal.SIGKILL
        time.sleep(1)
    both = FOUR | {"parallelism": {"tensor": 2, "context": 2}}
    runs.finish(run_file(name="killed", store="killed", dataset=uri, **recipe, **both))
    assert runs.losses(killed) == pytest.approx(runs.losses(whole), abs=1e-5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"])
def test_a_run_that_is_asked_to_stop_saves_its_last_step(
    run_file: RunFactory, runs: Any, number: int, code: int
) -> None:
    run = run_file(training={"steps": 5000, "batch": {"tokens": 128}}, checkpoint={"every": "1h"})
    assert runs.kill_after(run, 5, number) == code
    word = runs.last_word(run)
    assert word.failure is not None and word.failure.reason == "SuspendedByUser"
    assert word.message.startswith("Stopped. The state after step ")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("processes", "steps", "number"), [(1, 400, signal.SIGKILL), (2, 120, signal.SIGABRT)], ids=["alone", "of two"]
)
def test_a_training_process_that_dies_is_replaced(
    run_file: RunFactory, runs: Any, processes: int, steps: int, number: int
) -> None:
    training, resources = {"steps": steps, "batch": {"tokens": 128}}, {"processesPerNode": processes}
    run = run_file(training=training, checkpoint={"every": 20}, resources=resources)
    process = runs.start(run)
    runs.wait_for_step(run, 45)
    os.kill(runs.children(process)[-1], number)
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert f"process {processes - 1} was ended by {signal.Signals(number).name}" in errors
    assert "restart 1 of 10, from step" in errors
    assert [row["step"] for row in runs.rows(run) if "loss" in row] == list(range(1, steps + 1))


@pytest.mark.exhaustive
def test_torchrun_may_start_the_processes_too(run_file: RunFactory, runs: Any) -> None:
    run = run_file(resources={"processesPerNode": 2}, training={"steps": 4})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "kindling_trainer.train", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(runs.losses(run)) == 4
    assert "restart" not in runs.finish(run), "the launcher finds the model finished"

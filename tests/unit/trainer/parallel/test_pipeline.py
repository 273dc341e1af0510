"""Whole runs in stages: a pipeline gives the curve and the model of one process, and any layout goes on from it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RunFactory = Callable[..., Path]

GPT2 = {"architecture": "gpt2", "heads": 4, "bias": True, "layers": 3}
LLAMA = {"architecture": "llama", "heads": 4, "kvHeads": 2, "layers": 3}
TWO, FOUR = {"resources": {"processesPerNode": 2}}, {"resources": {"processesPerNode": 4}}
STAGES = {"parallelism": {"pipeline": 2}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gpt2 tied, two stages, each in two shards, all computed again": (
        GPT2,
        FOUR | STAGES | {"training": {"activationCheckpointing": "full"}},
    ),
    "gpt2 untied, two stages, fewer micro-batches than stages": (
        GPT2 | {"tiedEmbeddings": False, "bias": False},
        TWO | STAGES | {"training": {"batch": {"tokens": 128, "microBatch": 8}}},
    ),
    "llama tied, three stages": (
        LLAMA | {"tiedEmbeddings": True},
        {"resources": {"processesPerNode": 3}, "parallelism": {"pipeline": 3}},
    ),
    "llama untied, two stages, each layer cut in two": (LLAMA, FOUR | {"parallelism": {"pipeline": 2, "tensor": 2}}),
    "llama untied, two stages, each sequence shared by two": (
        LLAMA,
        FOUR | {"parallelism": {"pipeline": 2, "context": 2}},
    ),
    "gpt2 tied, two stages, each sequence shared by two": (GPT2, FOUR | {"parallelism": {"pipeline": 2, "context": 2}}),
}
RECIPE = {"steps": 4, "batch": {"tokens": 128, "microBatch": 2}, "gradientClip": 0.5}


def test_stages_give_the_losses_the_norms_and_the_model_of_one_process(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str]
) -> None:
    uri, pairs = dataset(), {}
    for number, (case, (model, fields)) in enumerate(CASES.items()):
        pairs[case] = tuple(
            run_file(
                model=model,
                name=f"{name}-{number}",
                store="store",
                dataset=uri,
                evaluation={"prompts": ["!"], "promptTokens": 4, "every": 2},
                **layout | {"training": RECIPE | layout.get("training", {})},
            )
            for name, layout in (("one", {}), ("stages", fields))
        )
    runs.train_in_turn([run for pair in pairs.values() for run in pair])
    for case, (one, stages) in pairs.items():
        assert figures(runs, stages) == pytest.approx(figures(runs, one), abs=1e-5), case
        assert runs.rows(stages)[-1]["samples"] == runs.rows(one)[-1]["samples"], case
        expected, found = weights(runs, one), weights(runs, stages)
        assert expected.keys() == found.keys(), case
        for name, weight in found.items():
            torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=0, msg=f"{case}: {name}")


@pytest.mark.exhaustive
def test_a_run_that_is_killed_leaves_its_stages_and_goes_back_to_them_on_the_same_curve(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str]
) -> None:
    training = {"steps": 30, "batch": {"tokens": 64, "microBatch": 1}}
    recipe = {"training": training, "evaluation": {"every": 100}, "model": GPT2, "dataset": dataset()}
    whole = run_file(name="whole", store="whole", **recipe)
    runs.finish(whole)
    staged, single = (run_file(name="killed", store="killed", **recipe, **layout) for layout in (TWO | STAGES, {}))
    for layout, step in ((staged, 8), (single, 17)):
        runs.kill_after(layout, step, signal.SIGKILL)
        time.sleep(1)  # its training processes die with it
    runs.finish(staged)
    assert runs.losses(staged) == pytest.approx(runs.losses(whole), abs=1e-5)


def figures(runs: Any, run: Path) -> list[float]:
    """Losses and gradient norms of each step, and the loss on all that is held out."""
    rows = runs.rows(run)
    steps = [row[name] for row in rows if "loss" in row for name in ("loss", "grad_norm")]
    assert len(steps) == 2 * RECIPE["steps"]
    return [*steps, rows[-1]["validation_loss"]]


def weights(runs: Any, run: Path) -> dict[str, torch.Tensor]:
    return load(runs.store(run).get("model/model.safetensors"))

"""Recipes beyond AdamW and cross-entropy, as whole runs: every layout gives the curve of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.products import MANIFEST
from kindling_storage import ObjectStore
from kindling_trainer.checkpoint.folders import drop_after

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RunFactory = Callable[..., Path]

TWO = {"resources": {"processesPerNode": 2}}
LAYOUTS: dict[str, dict[str, Any]] = {
    "one": {},
    "fsdp2": TWO,
    "tp2": TWO | {"parallelism": {"tensor": 2}},
    "pp2": TWO | {"parallelism": {"pipeline": 2}},
    "cp2": TWO | {"parallelism": {"context": 2}},
}
WSD = {"schedule": {"wsd": {"warmupFraction": 0.1, "decayFraction": 0.4}}}
MUON = {"optimizer": {"muon": {"learningRate": 3e-3}}}
RECIPES: dict[str, dict[str, Any]] = {
    "all": WSD | MUON | {"documentMask": True, "zLoss": 0.01},
    "muon": MUON,
    "document mask": {"documentMask": True},
    "z-loss": {"zLoss": 0.01},
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"architecture": "llama", "heads": 4, "kvHeads": 2, "tiedEmbeddings": True},
    "gpt2": {"architecture": "gpt2", "heads": 4, "bias": True},
}
END = 5
"""The token that ends a document; the walk of the dataset comes past it often."""
CASES = [("all", "llama")]
MORE = [("all", "gpt2"), *((recipe, "llama") for recipe in RECIPES if recipe != "all")]


def cut_back(store: ObjectStore, *, step: int) -> None:
    """As if the run had been killed after its checkpoint of this step."""
    drop_after(store, step)
    store.delete(MANIFEST)


@pytest.mark.parametrize(
    ("recipe", "model"), [*CASES, *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in MORE)]
)
def test_every_layout_gives_the_losses_of_one_process_and_goes_on_where_another_was(
    run_file: RunFactory, runs: Any, dataset: Callable[..., str], recipe: str, model: str
) -> None:
    uri, training = dataset(end_of_document=END), {"batch": {"tokens": 128, "microBatch": 4}, **RECIPES[recipe]}

    def run_of(store: str, layout: dict[str, Any]) -> Path:
        fields = {"training": training, "checkpoint": {"every": 5, "keep": 4}, **layout}
        return run_file(name=store, store=store, dataset=uri, model=MODELS[model], **fields)

    files = {name: run_of(name, layout) for name, layout in LAYOUTS.items()}
    runs.train_in_turn(list(files.values()))
    cut_back(runs.store(files["fsdp2"]), step=10)
    files["fsdp2, from step 10 on as tp2"] = again = run_of("fsdp2", LAYOUTS["tp2"])
    runs.train_in_turn([again])
    one = runs.rows(files["one"])
    assert len(runs.losses(files["one"])) == 20
    for name, file in files.items():
        assert runs.losses(file) == pytest.approx(runs.losses(files["one"]), abs=1e-5), name
        assert runs.rows(file)[-1]["validation_loss"] == pytest.approx(one[-1]["validation_loss"], abs=1e-5), name

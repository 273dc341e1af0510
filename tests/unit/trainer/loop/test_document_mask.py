"""A pretraining in which a token sees its own document alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.training import PretrainingSpec
from kindling_trainer.loop.pretrain import Pretraining
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.parallel.apply import parallelize
from kindling_trainer.parallel.mesh import Ranks

END = 3
SIZES: dict[str, Any] = {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": 12}
SHAPES = {
    "llama": ModelShape.model_validate(SIZES | {"architecture": "llama", "kv_heads": 2}),
    "gpt2": ModelShape.model_validate(SIZES | {"architecture": "gpt2", "kv_heads": 4, "bias": True}),
}
WINDOWS = [[5, 9, END, 7, 7, 8, END, 6, 5, 4, END, 9, 8], [END, END, 4, 5, 6, 7, 8, 9, 5, 6, 7, END, 4]]
DOCUMENTS = [
    [[5, 9, END], [END, 7, 7, 8, END], [END, 6, 5, 4, END], [END, 9, 8]],
    [[END, END], [END, 4, 5, 6, 7, 8, 9, 5, 6, 7, END], [END, 4]],
]
"""The documents of each window: the token that ends one is the last target, and the next one begins with it."""


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_masked_step_is_that_over_its_documents_one_by_one(shape: ModelShape) -> None:
    ranks = Ranks(0, Layout.model_validate({}), torch.device("cpu"), mesh=None, control=None, background=None)
    model = build_model(shape, 16)
    initialize(model, 1)
    training = PretrainingSpec(steps=1, precision="fp32")
    parallel = parallelize(model, training, ranks, compiled=False)
    none: Any = None
    vocabulary = cast(Any, SimpleNamespace(end_of_document=END))
    masked, plain = (
        Pretraining(parallel, none, none, vocabulary, EvaluationSpec(), document_mask=mask, z_loss=0.01)
        for mask in (True, False)
    )

    def learnt(objective: Pretraining, texts: list[list[int]]) -> tuple[float, dict[str, Tensor]]:
        model.zero_grad()
        rows = torch.tensor(texts)
        loss, _ = objective.loss((rows[:, :-1], rows[:, 1:]))
        loss.backward()
        found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        return loss.item(), found

    loss, gradients = learnt(masked, WINDOWS)
    alone = [learnt(plain, [document]) for window in DOCUMENTS for document in window]
    assert loss == pytest.approx(sum(part for part, _ in alone), rel=1e-5)
    assert loss != pytest.approx(learnt(plain, WINDOWS)[0], abs=1e-3)
    for name, gradient in gradients.items():
        summed = sum(found.get(name, torch.zeros(())) for _, found in alone)
        torch.testing.assert_close(gradient, summed, atol=1e-4, rtol=1e-4)


def test_a_dataset_in_which_nothing_ends_a_document_is_refused(run_file: Callable[..., Path], runs: Any) -> None:
    assert (
        "spec.training.documentMask: found a dataset of which the tokenizer (char) has no token that ends a document"
        in runs.finish(run_file(training={"documentMask": True}), code=2)
    )

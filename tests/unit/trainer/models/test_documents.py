"""Texts that share a sequence are computed as if each were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.layers import document_mask, positions_in

SIZES: dict[str, Any] = {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": 16}
SHAPES = {
    "llama": {"architecture": "llama", "kv_heads": 2, **SIZES},
    "gpt2": {"architecture": "gpt2", "kv_heads": 4, "bias": True, **SIZES},
}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_a_text_among_others_has_the_logits_and_gradients_that_it_has_alone(sizes: dict[str, Any]) -> None:
    model = build_model(ModelShape.model_validate(sizes), 40)
    initialize(model, 1)
    lengths = [[5, 7, 4], [3, 10]]
    texts = [[torch.randint(40, (length,)) for length in row] for row in lengths]
    tokens = torch.zeros(2, 16, dtype=torch.int64)
    documents = torch.full_like(tokens, -1)
    for row, several in enumerate(texts):
        whole = torch.cat(several)
        tokens[row, : len(whole)] = whole
        documents[row, : len(whole)] = torch.repeat_interleave(torch.tensor(lengths[row]))
    packed = model(tokens, positions=positions_in(documents), mask=document_mask(documents))
    counted = documents >= 0
    packed[counted].square().sum().backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    alone = [model(text[None])[0] for several in texts for text in several]
    sum(logits.square().sum() for logits in alone).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(packed[counted], torch.cat(alone), atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-3, rtol=1e-4)


def test_one_text_in_each_sequence_is_the_plain_causal_model() -> None:
    model = build_model(ModelShape.model_validate(SHAPES["llama"]), 40)
    tokens = torch.randint(40, (2, 16))
    one = torch.zeros_like(tokens)
    found = model(tokens, positions=positions_in(one), mask=document_mask(one))
    torch.testing.assert_close(found, model(tokens))


def test_positions_begin_anew_in_each_text_and_nobody_sees_another_text() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 1, 2, 2, 2, 2]])
    assert positions_in(documents).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]]
    assert document_mask(documents)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]

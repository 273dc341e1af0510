"""Which parameters decay, and that moments from the start change nothing."""

from __future__ import annotations

import pytest
import torch

from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.optimizer import AdamW
from kindling_trainer.models import build_model
from kindling_trainer.optim.adamw import build_adamw, moments


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_matrices_that_are_not_embeddings_decay_and_nothing_else(architecture: str, tied: bool) -> None:
    shape = ModelShape.model_validate(
        {
            "architecture": architecture, "layers": 1, "heads": 2, "kvHeads": 2, "width": 16, "ffnWidth": 32,
            "context": 8, "tiedEmbeddings": tied, "bias": architecture == "gpt2",
        }
    )  # fmt: skip
    model = build_model(shape, 32)
    optimizer = build_adamw(model, AdamW())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, others = ({names[id(each)] for each in group["params"]} for group in optimizer.param_groups)
    matrices = {"attention.query", "attention.key", "attention.value", "attention.output"}
    matrices |= {"feed_forward.up", "feed_forward.down"} | ({"feed_forward.gate"} if architecture == "llama" else set())
    assert decaying == {f"layers.0.{name}.weight" for name in matrices} | (set() if tied else {"head.weight"})
    assert decaying | others == set(names.values())
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
    assert len(moments(model, optimizer)) == 2 * len(names)


def test_moments_that_are_there_from_the_start_change_nothing() -> None:
    torch.manual_seed(0)
    ours, plain = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    plain.load_state_dict(ours.state_dict())
    optimizers = [
        build_adamw(ours, AdamW(weight_decay=0.0)),
        torch.optim.AdamW(plain.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for _ in range(3):
        for model, optimizer in zip((ours, plain), optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, plain.weight, atol=1e-7)

"""Muon: which parameters it trains, and that it is PyTorch's for whole matrices."""

from __future__ import annotations

import pytest
import torch

from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.optimizer import Muon
from kindling_api.v1alpha1.sizes import layer_matrices
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.optim.adamw import moments, set_learning_rate
from kindling_trainer.optim.muon import build_muon, is_matrix, orthogonalised

SIZES = {"layers": 2, "heads": 4, "width": 32, "context": 8}
SHAPES = {
    "llama": ModelShape.model_validate(SIZES | {"architecture": "llama", "kvHeads": 2, "ffnWidth": 48}),
    "gpt2": ModelShape.model_validate(
        SIZES | {"architecture": "gpt2", "kvHeads": 4, "ffnWidth": 128, "bias": True, "tiedEmbeddings": True}
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_step_is_that_of_the_optimizers_of_pytorch(shape: ModelShape) -> None:
    ours, theirs = build_model(shape, 40), build_model(shape, 40)
    initialize(ours, 1)
    theirs.load_state_dict(ours.state_dict())
    matrices, decayed, rest = [], [], []
    for name, parameter in theirs.named_parameters():
        (matrices if is_matrix(name, parameter) else decayed if name == "head.weight" else rest).append(parameter)
    assert sum(matrix.numel() for matrix in matrices) == shape.layers * layer_matrices(shape)
    optimizers: list[torch.optim.Optimizer] = [
        build_muon(ours, Muon(learning_rate=0.01), torch.bfloat16),
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
            lr=0.01, betas=(0.9, 0.95),
        ),
    ]  # fmt: skip
    for _ in range(3):
        for name, parameter in ours.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            theirs.get_parameter(name).grad = parameter.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert len(moments(ours, optimizers[0])) == len(matrices) + 2 * (len(decayed) + len(rest))  # type: ignore[arg-type]
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), atol=2e-3, rtol=0, msg=name)


def test_a_rate_of_0_moves_nothing() -> None:
    model = build_model(SHAPES["llama"], 40)
    initialize(model, 1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = build_muon(model, Muon(), torch.float32)
    set_learning_rate(optimizer, 0.0)
    model(torch.arange(8)[None]).sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (24, 8), (1, 6)])
def test_singular_values_become_about_1(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(size), torch.float32))
    assert ((values > 0.3) & (values < 1.3)).all()


def test_a_gradient_of_0_leaves_a_matrix_where_it_decays_to() -> None:
    assert torch.equal(orthogonalised(torch.zeros(4, 6), torch.float32), torch.zeros(4, 6))

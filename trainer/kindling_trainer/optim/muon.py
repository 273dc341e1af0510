"""Muon over a model, whole or sharded: momentum, orthogonalised, for the matrices of its layers, and AdamW for the rest
(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025, "Muon is scalable", arXiv:2502.16982).

`torch.optim.Muon` has the same update, and takes whole matrices alone, in bf16 alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from kindling_api.v1alpha1.optimizer import Muon, Optimizer
from kindling_trainer.optim.adamw import MOMENTS, build_adamw, divided, set_finished_steps

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration (Jordan et al. 2024, "Muon")."""
SMALLEST_NORM = 1e-7
UPDATE_RMS = 0.2
"""The root mean square of AdamW's updates, which a matrix's update is given (Liu et al. 2025, section 2.2)."""


class MuonWithAdamW(torch.optim.AdamW):
    """AdamW, but for the groups that have a `momentum`, whose parameters are matrices [M, N].

    An orthogonalisation needs the whole matrix: each process gathers it from those that share it, computes it, and
    keeps its own shard.
    """

    precision: torch.dtype
    """Of the orthogonalisation's multiplications."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step over all parameters that have a gradient; the matrices' are used up."""
        for group in self.param_groups:
            if group.get("momentum") is None:
                continue
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
                    parameter.grad = None
        return super().step(closure)

    def _move(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        decay, average = group["momentum"], self.state[parameter]["momentum"]
        average.mul_(decay).add_(gradient, alpha=1 - decay)
        update = orthogonalised(_whole(gradient * (1 - decay) + average * decay), self.precision)  # Nesterov's
        scale = UPDATE_RMS * math.sqrt(max(update.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(_as_sharded(update.float(), parameter), alpha=-group["lr"] * scale)


def build_optimizer(model: nn.Module, chosen: Optimizer, precision: torch.dtype) -> torch.optim.AdamW:
    """The optimizer of a spec over a model, its state allocated as zeros.

    Args:
        precision: of Muon's orthogonalisation.
    """
    if chosen.adam_w is not None:
        return build_adamw(model, chosen.adam_w)
    assert chosen.muon is not None
    return build_muon(model, chosen.muon, precision)


def build_muon(model: nn.Module, settings: Muon, precision: torch.dtype) -> MuonWithAdamW:
    """Muon for `is_matrix` parameters, AdamW without decay for the others, but for a head of its own, which decays."""
    matrices, others = divided(model, is_matrix)
    heads = {id(parameter) for name, parameter in model.named_parameters() if name.startswith("head.")}
    plain = [parameter for parameter in others if id(parameter) not in heads]
    head = [parameter for parameter in others if id(parameter) in heads and parameter.ndim == 2]
    optimizer = MuonWithAdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay, "momentum": settings.momentum},
            {"params": head, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )
    optimizer.precision = precision
    for parameter in matrices:
        optimizer.state[parameter] = {"momentum": torch.zeros_like(parameter)}
    for parameter in (*head, *plain):
        optimizer.state[parameter] = {name: torch.zeros_like(parameter) for name in MOMENTS}
    set_finished_steps(optimizer, 0)
    return optimizer


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains it: a matrix of a layer, each as its own in a model's file (query, key and value, gate and up
    are apart); not a norm over several heads."""
    return name.startswith("layers.") and parameter.ndim == 2 and "norm." not in name


def orthogonalised(matrix: Tensor, precision: torch.dtype) -> Tensor:
    """The matrix U Vᵀ of M = U S Vᵀ, nearly: [M, N] → [M, N], by the quintic Newton-Schulz iteration, whose singular
    values come out between about 0.7 and 1.2 (Jordan et al. 2024)."""
    a, b, c = COEFFICIENTS
    x = (matrix / matrix.norm().clamp(min=SMALLEST_NORM)).to(precision)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _as_sharded(whole: Tensor, like: Tensor) -> Tensor:
    """This process's shard of what every process has whole."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

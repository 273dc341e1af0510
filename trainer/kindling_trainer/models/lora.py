"""Low-rank adapters: beside a linear layer that stays as it is, two small matrices that are trained (Hu et al. 2021,
arXiv:2106.09685, §4.1).

They are parameters of the layer itself, `lora_A` and `lora_B`, so that all other parameters keep their names: a base is
read into a model with adapters as into one without.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kindling_api.v1alpha1.adapter import LoRA, Target
from kindling_trainer.models import Decoder
from kindling_trainer.models.initialize import generator_of, plain_name, set_whole
from kindling_trainer.models.layers import ValueHead

TARGETS: dict[Target, str] = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "attention.output",
    "gate_proj": "feed_forward.gate",
    "up_proj": "feed_forward.up",
    "down_proj": "feed_forward.down",
}
"""From a target to the linear layer of a block."""

DOWN, UP = "lora_A", "lora_B"
"""The parameters of an adapter, by PEFT's names: into `rank` dimensions, and out of them."""


class LoRALinear(nn.Linear):
    """x [..., in] → x Wᵀ + b + scale · x Aᵀ Bᵀ [..., out]."""

    def __init__(self, linear: nn.Linear, lora: LoRA) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, linear.weight.device)
        self.lora_A = nn.Parameter(torch.empty(lora.rank, linear.in_features, device=linear.weight.device))
        self.lora_B = nn.Parameter(torch.empty(linear.out_features, lora.rank, device=linear.weight.device))
        self.scale, self.dropout = lora.scale, lora.dropout
        self.adapted = True
        """Whether the adapter counts; without it, the layer is the base's."""

    def forward(self, x: Tensor) -> Tensor:
        """As the class says; under tensor parallelism, A and B are placed by `parallel/tensor.py`."""
        base = F.linear(x, self.weight, self.bias)
        if not self.adapted:
            return base
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_A)  # [..., rank]
        return base + F.linear(self.scale * low, self.lora_B)


def add_adapters(model: Decoder, lora: LoRA) -> None:
    """Put adapters beside the linear layers that `lora` names, in place; they are not initialised.

    Raises:
        SpecError: the model's blocks have no such layer.
    """
    for target in lora.targets_in(model.shape):
        parent, _, name = TARGETS[target].rpartition(".")
        for layer in model.layers:
            module = layer.get_submodule(parent)
            setattr(module, name, LoRALinear(getattr(module, name), lora))


def adapt_linear(linear: nn.Linear, low: Tensor, high: Tensor, scale: float) -> LoRALinear:
    """A linear layer with an adapter, whose other weights are that layer's own, and not copies."""
    with torch.device("meta"):
        layer = LoRALinear(linear, LoRA(rank=len(low)))
    layer.weight, layer.bias, layer.scale = linear.weight, linear.bias, scale
    layer.lora_A, layer.lora_B = nn.Parameter(low), nn.Parameter(high)
    return layer


def freeze_base(model: Decoder) -> None:
    """Leave only adapters and a head that scores to be trained; all, where there are no adapters."""
    if not has_adapters(model):
        return
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            parameter.requires_grad_(name in (DOWN, UP) or isinstance(module, ValueHead))


@torch.no_grad()
def initialize_adapters(model: Decoder, seed: int) -> None:
    """Overwrites every adapter, whole or sharded: A is uniform in ±1/√in, as in PEFT, and B is 0, so that the model is
    the base. Like `initialize`, it depends on the seed and on the parameter's name alone."""
    for name, parameter in model.named_parameters():
        if not is_adapter(name):
            continue
        full = torch.zeros(parameter.shape)
        if name.endswith(DOWN):
            full.uniform_(-1, 1, generator=generator_of(plain_name(name), seed)).div_(math.sqrt(parameter.shape[1]))
        set_whole(parameter, full)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Have the model compute what its base would; one without adapters is as it was."""
    layers = _adapted(model)
    for layer in layers:
        layer.adapted = False
    try:
        yield
    finally:
        for layer in layers:
            layer.adapted = True


def merged(parameters: Iterable[tuple[str, Tensor]], scale: float) -> Iterator[tuple[str, Tensor]]:
    """Whole parameters, in the order of `named_parameters()`, with each W + scale · BA in the place of W, A and B."""
    for module, named in groupby(parameters, key=lambda each: each[0].rpartition(".")[0]):
        mine = dict(named)
        low, high = mine.pop(f"{module}.{DOWN}", None), mine.pop(f"{module}.{UP}", None)
        if low is not None and high is not None:
            mine[f"{module}.weight"] = mine[f"{module}.weight"] + scale * high @ low
        yield from mine.items()


def has_adapters(model: nn.Module) -> bool:
    """Whether some linear layer has one."""
    return bool(_adapted(model))


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return name.endswith((f".{DOWN}", f".{UP}"))


def draws_dropout(model: Decoder) -> bool:
    """Whether a forward pass in training depends on random numbers."""
    return model.shape.dropout > 0 or any(layer.dropout > 0 for layer in _adapted(model))


def _adapted(model: nn.Module) -> list[LoRALinear]:
    return [module for module in model.modules() if isinstance(module, LoRALinear)]

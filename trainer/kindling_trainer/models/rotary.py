"""Rotary positions (Su et al. 2021, RoFormer, §3.2.2), and how their frequencies are lowered for longer contexts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.variant import RopeScaling

# Compiled code leaves `rotate` to PyTorch's own kernels; measured on a CPU, that costs nothing against real arithmetic.
warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex operators")


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns each pair of neighbours of x [B, T, H, D], read as one complex number, by `rotation` [T, D/2], or
    [B, T, D/2]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation.unsqueeze(-2)).flatten(-2).type_as(x)


class Rotary(nn.Module):
    """Rotary position embedding in its complex form.

    Position p turns the i-th pair of a head by the angle p · theta^(-2i/D), that is, multiplies it by a complex number
    of modulus 1. The table of these numbers is no part of the state: it is computed again whenever the module moves,
    so that it survives the meta device and keeps its precision when the model becomes bfloat16.
    """

    table: Tensor

    def __init__(self, shape: ModelShape, *, windowed: bool = False) -> None:
        """That of windowed layers may have a base of its own, and is not lowered then."""
        super().__init__()
        own = shape.variant.window_rope_theta if windowed else None
        self.width, self.context, self.theta = shape.head_width, shape.context, own or shape.rope_theta
        self.scaling = None if own else shape.variant.rope_scaling
        self.register_buffer("table", self._table(), persistent=False)

    def forward(self, positions: Tensor | slice) -> Tensor:
        """The rotations of positions [(B,) T]: complex64 [(B,) T, D/2]."""
        return self.table[positions]

    def _table(self, device: torch.device | None = None) -> Tensor:
        positions = torch.arange(self.context, device=device, dtype=torch.float32)
        angles = torch.outer(positions, rotary_frequencies(self.width, self.theta, self.scaling, positions.device))
        factor = 1.0 if self.scaling is None else self.scaling.attention_factor
        return torch.polar(torch.full_like(angles, factor), angles)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.table = self._table(fn(torch.empty(0, device=self.table.device)).device)
        return self


def rotary_frequencies(width: int, theta: float, scaling: RopeScaling | None, device: torch.device) -> Tensor:
    """Radians for each position, of the pairs of a head: fp32 [D/2], with transformers' rounding."""
    pairs = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    frequencies = 1.0 / theta ** (pairs / width)
    if scaling is None:
        return frequencies
    match scaling.kind:
        case "linear":
            return frequencies / scaling.factor
        case "llama3":
            return _llama3(frequencies, scaling)
        case "yarn":
            return _yarn(frequencies, theta, scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Those that turn seldom in the original context are divided, those that turn often stay, and between the two there
    is a ramp over the number of turns (Llama 3.1's reference code, `apply_scaling`)."""
    assert scaling.original_context is not None
    turns = scaling.original_context / (2 * math.pi / frequencies)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    stays = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - stays) * frequencies / scaling.factor + stays * frequencies


def _yarn(frequencies: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """The same with a ramp over the pairs of a head (Peng et al. 2023, YaRN, §3.2)."""
    assert scaling.original_context is not None
    pairs, original = len(frequencies), scaling.original_context

    def pair_that_turns(times: float) -> float:
        return pairs * math.log(original / (times * 2 * math.pi)) / math.log(theta)

    first, last = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = last - first or 0.001
    divided = ((torch.arange(pairs, dtype=torch.float32, device=frequencies.device) - first) / width).clamp(0, 1)
    return frequencies / scaling.factor * divided + frequencies * (1 - divided)

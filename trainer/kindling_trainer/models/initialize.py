"""Initial weights that depend on the seed and the parameter's name, and on nothing else.

Each parameter draws from a generator of its own. Neither the order of the parameters nor the layout (how many
processes, which shard of a parameter this one holds) changes a single value, so every layout starts from the same
model.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor  # noqa: TID251 - a sharded parameter takes its part

from kindling_trainer.models import Decoder

STANDARD_DEVIATION = 0.02  # Radford et al. 2018 (GPT), §4.1, and the released GPT-2

# Names that compilation and activation checkpointing put in front of a module's own.
WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


@torch.no_grad()
def initialize(model: Decoder, seed: int) -> None:
    """Overwrites every parameter of `model`, whole or sharded, in place and without communication.

    At any time one whole parameter is in memory, beside the model itself.
    """
    for name, parameter in model.named_parameters():
        set_whole(parameter, initial_weight(plain_name(name), parameter.shape, seed, len(model.layers)))


def set_whole(parameter: Tensor, full: Tensor) -> None:
    """Overwrites a parameter, whole or sharded, with its part of `full`, without communication."""
    if isinstance(parameter, DTensor):
        full = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(full)


def initial_weight(name: str, size: torch.Size, seed: int, num_layers: int) -> Tensor:
    """The whole parameter `name`, fp32, on the CPU.

    Norms are ones, and biases and offsets zeros. All else is normal with deviation 0.02, divided by √(2 · layers) where
    it writes into the residual stream, which sums that many outputs (Radford et al. 2019, §2.3).
    """
    if name.endswith((".bias", ".offset")):
        return torch.zeros(size)
    if name.endswith("norm.weight"):
        return torch.ones(size)
    deviation = STANDARD_DEVIATION
    if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
        deviation /= math.sqrt(2 * num_layers)
    return torch.empty(size).normal_(0.0, deviation, generator=generator_of(name, seed))


def generator_of(name: str, seed: int) -> torch.Generator:
    """The generator that the parameter `name` draws from."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def plain_name(name: str) -> str:
    """The parameter's name as the model file spells it, without what wrappers add."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name

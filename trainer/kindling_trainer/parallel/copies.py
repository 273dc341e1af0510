"""Weights that several processes hold are equal, bit by bit; where they are not, a machine computes or keeps them
wrong.

Processes that hold copies take the same steps with the same gradients. Silent faults of processors are common enough at
scale to look for them (Dixit et al. 2021, arXiv:2102.11245; Llama 3's training was interrupted by them, too: Dubey et
al. 2024, arXiv:2407.21783, table 5). Weights that only one process holds cannot be compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from kindling_api.errors import EXIT_OURS
from kindling_api.v1alpha1.status import Failure
from kindling_runtime.failure import FailedError
from kindling_trainer.models import Decoder
from kindling_trainer.parallel.mesh import Ranks

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class WeightShard(NamedTuple):
    """What processes with copies have in common."""

    stage: int
    """Of the pipeline."""
    shard: tuple[tuple[str, int], ...]
    """The axes along which the weights are cut, and where on each the process is."""


def check_copies(model: Decoder, ranks: Ranks, step: int) -> None:
    """Before weights are saved. Every process must call it, after the same step.

    Raises:
        FailedError: some differ from their copies; the failure names the first process whose weights do.
    """
    odd = odd_processes(model, ranks)
    if not odd:
        return
    who = f"process{'es' if len(odd) > 1 else ''} {', '.join(map(str, odd))}"
    message = (
        f"the weights of {who} are not those of their copies in other processes, after step {step}: a machine computes "
        "or keeps numbers wrong. Nothing of that step is saved; if it comes again, take the machine out and test it."
    )
    raise FailedError(Failure(reason="WeightsDiffer", message=message, rank=odd[0], exit_code=EXIT_OURS))


def odd_processes(model: Decoder, ranks: Ranks) -> list[int]:
    """The ranks whose weights are others than those of most that hold the same; all of them, where no weights are
    those of most. Every process must call it, after the same step."""
    if ranks.layout.processes == 1:
        return []
    return odd_among(ranks.from_each(_sums(model, ranks)))


def odd_among(sums: Sequence[Mapping[WeightShard, int]]) -> list[int]:
    """The same, of what each process holds, by rank."""
    holders: dict[WeightShard, dict[int, int]] = defaultdict(dict)
    for rank, parts in enumerate(sums):
        for part, value in parts.items():
            holders[part][rank] = value
    odd: set[int] = set()
    for values in holders.values():
        (value, count), *others = Counter(values.values()).most_common()
        is_most = count > sum(number for _, number in others)
        odd |= {rank for rank, own in values.items() if others and not (is_most and own == value)}
    return sorted(odd)


def _sums(model: Decoder, ranks: Ranks) -> dict[WeightShard, int]:
    """What tells the weights of this process from others; a bit that flips changes it."""
    found: dict[WeightShard, Tensor] = {}
    for parameter in model.parameters():
        shard = _shard(parameter)
        if shard is None:
            continue
        part, weights = WeightShard(ranks.stage, shard), parameter.detach()
        local = weights.to_local() if isinstance(weights, DTensor) else weights
        bits = local.contiguous().view(_BITS[local.element_size()]).sum(dtype=torch.int64)
        found[part] = found[part] * 1_000_003 + bits if part in found else bits  # wraps around
    return {part: int(value) for part, value in found.items()}


def _shard(parameter: Tensor) -> tuple[tuple[str, int], ...] | None:
    """Where along the axes that cut it this process is; None where no other process has the same."""
    if not isinstance(parameter, DTensor):
        return ()
    mesh = parameter.device_mesh
    names, coordinate = mesh.mesh_dim_names, mesh.get_coordinate()
    assert names is not None and coordinate is not None
    axes = list(zip(names, coordinate, parameter.placements, mesh.shape, strict=True))
    if not any(isinstance(placement, Replicate) and size > 1 for _, _, placement, size in axes):
        return None
    return tuple((name, at) for name, at, placement, _ in axes if not isinstance(placement, Replicate))

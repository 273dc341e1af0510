"""Tensor parallelism with sequence parallelism, as a table from module to placement (Shoeybi et al. 2019, Megatron-LM,
§3; Korthikanti et al. 2022, "Reducing Activation Recomputation", §4.2).

Between the matrices, each process holds T / tp positions of every sequence. Attention and feed-forward gather all
positions on entry, work on their share of the heads or of the inner width, and scatter the summed result on exit.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from kindling_api.errors import SpecError, explain
from kindling_trainer.models import Decoder
from kindling_trainer.models.llama import Llama
from kindling_trainer.models.scored import is_scored


def apply_tensor_parallel(model: Decoder, mesh: DeviceMesh) -> None:
    """Cut the model, in place, over the one-dimensional `mesh`. The logits come out as each process's slice of V.

    Raises:
        SpecError: the padded vocabulary does not divide.
    """
    vocab_size = model.embedding.num_embeddings
    if vocab_size % mesh.size():
        raise SpecError(
            explain(
                "spec.parallelism.tensor",
                found=mesh.size(),
                allowed=f"a divisor of the padded vocabulary, {vocab_size}",
                remedy=f"set model.vocabMultiple: {mesh.size()}",
            )
        )
    parallelize_module(model, mesh, _plan(model))
    model.tie()  # each end has become a parameter of its own


def _plan(model: Decoder) -> dict[str, ParallelStyle]:
    sequence = Shard(1)  # [B, T, W], cut along T
    plan: dict[str, ParallelStyle] = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=sequence),
        "norm": SequenceParallel(),
        "head": ColwiseParallel(input_layouts=sequence, output_layouts=Shard(-1)),
    }
    if model.value is not None:
        plan["value"] = SequenceParallel()
    if is_scored(model):
        plan["head"] = SequenceParallel()
    if not isinstance(model, Llama):
        plan["positions"] = RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1))  # [1 or B, T, W]
    for index, layer in enumerate(model.layers):
        plan |= {f"layers.{index}.{path}": style for path, style in _layer_plan(layer).items()}
    return plan


def _layer_plan(layer: nn.Module) -> dict[str, ParallelStyle]:
    sequence = Shard(1)
    # Llama's attention is also given rotations and a cache, which stay as they are.
    attention = (sequence, None, None) if hasattr(layer.feed_forward, "gate") else (sequence,)
    whole = (Replicate(), *attention[1:])
    plan: dict[str, ParallelStyle] = {
        "attention_norm": SequenceParallel(),
        "attention": PrepareModuleInput(input_layouts=attention, desired_input_layouts=whole),
        "attention.query": ColwiseParallel(),
        "attention.key": ColwiseParallel(),
        "attention.value": ColwiseParallel(),
        "attention.output": RowwiseParallel(output_layouts=sequence),
        "feed_forward_norm": SequenceParallel(),
        "feed_forward": PrepareModuleInput(input_layouts=sequence, desired_input_layouts=Replicate()),
        "feed_forward.up": ColwiseParallel(),
        "feed_forward.down": RowwiseParallel(output_layouts=sequence),
    }
    if hasattr(layer.feed_forward, "gate"):
        plan["feed_forward.gate"] = ColwiseParallel()
    return plan

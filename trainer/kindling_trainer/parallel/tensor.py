"""Tensor parallelism with sequence parallelism, as a table from module to placement (Shoeybi et al. 2019, Megatron-LM,
§3; Korthikanti et al. 2022, "Reducing Activation Recomputation", §4.2).

Between the matrices, each process holds T / tp positions of every sequence. Attention and feed-forward gather all
positions on entry, work on their part of the heads or of the inner width, and scatter the summed result on exit.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
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
from kindling_trainer.models.lora import DOWN, UP
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
        styles = _layer_plan(layer) | (_head_norms(model.shape.variant.qk_norm) if isinstance(model, Llama) else {})
        plan |= {f"layers.{index}.{path}": style for path, style in styles.items()}
    return plan


def _layer_plan(layer: nn.Module) -> dict[str, ParallelStyle]:
    sequence = Shard(1)
    # Llama's attention is also given rotations and a cache, which stay as they are.
    attention = (sequence, None, None) if hasattr(layer.feed_forward, "gate") else (sequence,)
    whole = (Replicate(), *attention[1:])
    plan: dict[str, ParallelStyle] = {
        "attention_norm": SequenceParallel(),
        "attention": PrepareModuleInput(input_layouts=attention, desired_input_layouts=whole),
        "attention.query": Columns(),
        "attention.key": Columns(),
        "attention.value": Columns(),
        "attention.output": Rows(output_layouts=sequence),
        "feed_forward_norm": SequenceParallel(),
        "feed_forward": PrepareModuleInput(input_layouts=sequence, desired_input_layouts=Replicate()),
        "feed_forward.up": Columns(),
        "feed_forward.down": Rows(output_layouts=sequence),
    }
    if hasattr(layer.feed_forward, "gate"):
        plan["feed_forward.gate"] = Columns()
        results = SequenceParallel(use_local_output=True)  # they are added to the stream
        plan["attention_output_norm"] = plan["feed_forward_output_norm"] = results
    return plan


def _head_norms(kind: str) -> dict[str, ParallelStyle]:
    """Of queries and keys [B, T, H, D], of whose heads each process has some."""
    if kind == "none":
        return {}
    style = (SequenceParallel if kind == "head" else _NormOfAllHeads)(sequence_dim=2, use_local_output=True)
    return {"attention.query_norm": style, "attention.key_norm": style}


class Columns(ColwiseParallel):
    """A linear layer, with an adapter or without, of which each process computes some columns of the result."""

    def _partition_linear_fn(self, name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        _place(module, mesh, {"weight": Shard(0), "bias": Shard(0), DOWN: Replicate(), UP: Shard(0)})


class Rows(RowwiseParallel):
    """The same, of which each process has some columns of the input: the results add up."""

    def _partition_linear_fn(self, name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        _place(module, mesh, {"weight": Shard(1), "bias": Replicate(), DOWN: Shard(1), UP: Replicate()})


def _place(module: nn.Module, mesh: DeviceMesh, placements: dict[str, Placement]) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        mine = distribute_tensor(parameter, mesh, [placements[name]])
        module.register_parameter(name, nn.Parameter(mine, requires_grad=parameter.requires_grad))


class _NormOfAllHeads(SequenceParallel):
    """A norm over all heads together: they are gathered for it, and each process goes on with its own."""

    @staticmethod
    def _prepare_input_fn(sharding: Any, module: nn.Module, inputs: Any, mesh: DeviceMesh) -> tuple[DTensor]:
        own = DTensor.from_local(inputs[0], mesh, sharding, run_check=False)
        return (own.redistribute(placements=[Replicate()]),)

    @staticmethod
    def _prepare_output_fn(local: bool, module: nn.Module, outputs: DTensor, mesh: DeviceMesh) -> Tensor:
        return outputs.redistribute(placements=[Shard(2)]).to_local()

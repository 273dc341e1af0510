"""Everything that is applied to a model from outside, in its one order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from kindling_api.v1alpha1.training import TrainingSpec
from kindling_trainer.estimate.cpu import multiplies_bfloat16
from kindling_trainer.loss import token_log_probabilities, token_loss, vocab_parallel_loss
from kindling_trainer.models import Decoder
from kindling_trainer.models.layers import document_mask, positions_in
from kindling_trainer.models.lora import draws_dropout, freeze_base
from kindling_trainer.parallel.compile import compile_blocks, compile_loss
from kindling_trainer.parallel.context import Cut, apply_context_parallel
from kindling_trainer.parallel.fsdp import apply_data_parallel
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.parallel.pipeline import cut_to_stage, layers_here
from kindling_trainer.parallel.tensor import apply_tensor_parallel

# What selective checkpointing keeps: the results that cost most to compute again, for the memory they take.
_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


@dataclass(frozen=True)
class ParallelModel:
    """A model spread over the processes: what an objective computes with."""

    model: Decoder
    ranks: Ranks
    precision: torch.dtype
    compiled: bool
    vocab_size: int | None
    """Where the rows of the embedding beyond this one have probability 0; None where all rows are tokens."""
    token_loss: Callable[..., Tensor]
    """tokens, targets and, where texts share sequences, documents [B, T] → the sum over all these targets of the
    cross-entropy, in nats, the same along cp and tp, or 0 before a pipeline's last stage; compiled where the run is.
    With `z_loss`, so much of log²Z comes to each target's."""

    def logits(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """tokens [B, T] → logits [B, T, V], or, under tensor parallelism, this process's slice [B, T, V / tp]; before a
        pipeline's last stage, the scalar 0."""
        return self._whole(_logits(self.model, self.ranks, self.precision, self.vocab_size, tokens, documents))

    def logits_and_values(self, tokens: Tensor, documents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logits, and what the value head says of each position: fp32 [B, T], the same along cp and tp."""
        logits, values = _forward(self.model, self.ranks, self.precision, tokens, documents, score=True)
        return self._whole(_restricted(logits, self.ranks, self.vocab_size)), self._whole(_untensored(values))

    def scores(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """What a model that scores gives each position: tokens [B, T] → fp32 [B, T], the same along cp and tp."""
        return self._whole(_untensored(_forward(self.model, self.ranks, self.precision, tokens, documents)))

    def log_probabilities(self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """tokens and targets [B, T] → the log-probability of each target, fp32 [B, T]; 0 where it is IGNORED."""
        logits = _logits(self.model, self.ranks, self.precision, self.vocab_size, tokens, documents)
        targets = targets if self.ranks.context is None else self.ranks.context.own(targets)
        return self._whole(token_log_probabilities(logits, targets, self.ranks.tensor_group))

    def _whole(self, own: Tensor) -> Tensor:
        cut = self.ranks.context
        return own if cut is None or not self.ranks.on_last_stage else cut.whole(own)


def parallelize(
    model: Decoder, training: TrainingSpec, ranks: Ranks, *, compiled: bool, vocab_size: int | None = None
) -> ParallelModel:
    """Spread a model on the meta device over the processes, in place.

    Raises:
        SpecError: the model cannot be cut so.
    """
    precision = compute_precision(training, ranks)
    if ranks.layout.tensor > 1:
        assert ranks.mesh is not None
        apply_tensor_parallel(model, ranks.mesh["tp"])
    if ranks.context is not None:
        apply_context_parallel(model, ranks.context)
    cut_to_stage(model, ranks, precision)
    freeze_base(model)
    if training.activation_checkpointing != "none":
        _checkpoint_activations(model, selective=training.activation_checkpointing == "selective")
    if compiled:
        compile_blocks(model, ranks)
    if ranks.mesh is not None:
        apply_data_parallel(model, ranks.mesh, ranks.layout, precision)
    loss: Callable[..., Tensor] = partial(_summed_loss, model, ranks, precision, vocab_size)
    loss = compile_loss(loss, model, ranks) if compiled else loss
    return ParallelModel(model, ranks, precision, compiled, vocab_size, loss)


def compute_precision(training: TrainingSpec, ranks: Ranks) -> torch.dtype:
    """The dtype of the matrix multiplications; weights, gradients' sums and the optimizer are fp32 in any case.

    Under `auto`, all processes take bf16 where it is fast on each of them.
    """
    bfloat16 = training.precision in ("auto", "bf16")
    if training.precision == "auto" and ranks.device.type == "cpu":
        (some_slow,) = ranks.largest(int(not multiplies_bfloat16()))
        bfloat16 = not some_slow
    return torch.bfloat16 if bfloat16 else torch.float32


def _summed_loss(
    model: Decoder,
    ranks: Ranks,
    precision: torch.dtype,
    vocab_size: int | None,
    tokens: Tensor,
    targets: Tensor,
    documents: Tensor | None = None,
    z_loss: float = 0.0,
) -> Tensor:
    logits = _logits(model, ranks, precision, vocab_size, tokens, documents)
    if not ranks.on_last_stage:
        return logits
    if ranks.context is not None:
        targets = ranks.context.own(targets)
    if ranks.tensor_group is not None:
        loss = vocab_parallel_loss(logits, targets, ranks.tensor_group, z_loss)
    else:
        loss = token_loss(logits, targets, z_loss)
    return loss if ranks.context is None else ranks.context.sum(loss)


def _logits(
    model: Decoder,
    ranks: Ranks,
    precision: torch.dtype,
    vocab_size: int | None,
    tokens: Tensor,
    documents: Tensor | None,
) -> Tensor:
    return _restricted(_forward(model, ranks, precision, tokens, documents), ranks, vocab_size)


def _forward(
    model: Decoder, ranks: Ranks, precision: torch.dtype, tokens: Tensor, documents: Tensor | None, **options: bool
) -> Any:
    """What the model says of this process's positions."""
    if documents is None and ranks.context is not None and model.shape.variant.windowed_layers:
        documents = torch.zeros_like(tokens)  # what a window leaves is found from a mask
    positions, mask = _positions_and_mask(tokens, documents, ranks.context)
    tokens = tokens if ranks.context is None else ranks.context.own(tokens)
    # FSDP2 casts by itself; a model that is not wrapped needs autocast.
    cast = ranks.mesh is None and precision != torch.float32
    with torch.autocast(ranks.device.type, precision) if cast else contextlib.nullcontext():
        return model(tokens, positions=positions, mask=mask, **options)


def _positions_and_mask(
    tokens: Tensor, documents: Tensor | None, cut: Cut | None
) -> tuple[Tensor | None, Tensor | None]:
    """Of this process: positions [1 or B, T / C] and mask [B, 1, T / C, T]; None where the model takes its own."""
    if documents is None and cut is None:
        return None, None
    places = torch.arange(tokens.shape[1], device=tokens.device)
    positions = places[None] if documents is None else positions_in(documents)
    if cut is not None:
        places, positions = cut.own(places, dim=0), cut.own(positions)
    return positions, None if documents is None else document_mask(documents, places)


def _untensored(values: Tensor) -> Tensor:
    return (values.full_tensor() if isinstance(values, DTensor) else values).float()


def _restricted(logits: Tensor, ranks: Ranks, vocab_size: int | None) -> Tensor:
    """The logits of the tokens that there are."""
    if vocab_size is None or not ranks.on_last_stage:
        return logits
    if ranks.tensor_group is None:
        return logits[..., :vocab_size]
    rows = logits.shape[-1]
    first = dist.get_rank(ranks.tensor_group) * rows
    return logits.masked_fill(torch.arange(first, first + rows, device=logits.device) >= vocab_size, float("-inf"))


def _checkpoint_activations(model: Decoder, *, selective: bool) -> None:
    """Recompute each block, or its cheap operations, in the backward pass (Chen et al. 2016, arXiv:1604.06174)."""
    contexts: dict[str, Any] = (
        {"context_fn": partial(create_selective_checkpoint_contexts, _policy)} if selective else {}
    )
    dropout = draws_dropout(model)
    for index, layer in layers_here(model).items():
        model.layers[index] = checkpoint_wrapper(layer, preserve_rng_state=dropout, **contexts)


def _policy(_: object, operation: Callable[..., object], *args: object, **kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE

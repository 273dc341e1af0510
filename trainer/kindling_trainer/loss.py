"""The loss: a sum over tokens, so that any cut of the batch adds up to the same number; and what each token adds."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""A target that does not count: the padding of a short last window."""


def token_loss(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """The sum of the cross-entropy, in nats, over all targets that count: logits [B, T, V], targets [B, T] → fp32.

    Args:
        z_loss: how much of log²Z, the square of the softmax's log-normaliser, is added for each target (Chowdhery et
            al. 2022, PaLM, arXiv:2204.02311, section 5).
    """
    logits, targets = logits.flatten(0, 1).float(), targets.flatten()
    if not z_loss:
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    counted = targets != IGNORED
    log_z = logits.logsumexp(dim=1)
    picked = logits.gather(1, targets.where(counted, 0)[:, None]).squeeze(1)
    return (log_z - picked + z_loss * log_z.square()).where(counted, 0.0).sum()


def vocab_parallel_loss(logits: Tensor, targets: Tensor, group: dist.ProcessGroup, z_loss: float = 0.0) -> Tensor:
    """`token_loss` where each process of `group` holds one slice, in rank order, of the vocabulary.

    logits [B, T, V / processes], targets [B, T], the same on all of them → scalar fp32, the same on all of them.
    """
    found: tuple[Tensor, Tensor] = VocabParallelLogProbability.apply(logits.flatten(0, 1), targets.flatten(), group)
    log_probabilities, log_z = found
    if not z_loss:
        return -log_probabilities.sum()
    return (z_loss * log_z.square() - log_probabilities).sum()


def token_log_probabilities(logits: Tensor, targets: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The log-probability of each target, in nats, and 0 where it is IGNORED.

    logits [B, T, V], or each process' slice [B, T, V / processes] where the vocabulary is cut over `group`, in rank
    order; targets [B, T] → fp32 [B, T], the same on all processes of the group.
    """
    if group is None:
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return -losses.view_as(targets)
    flat: Tensor = VocabParallelLogProbability.apply(logits.flatten(0, 1), targets.flatten(), group)[0]
    return flat.view_as(targets)


class VocabParallelLogProbability(torch.autograd.Function):
    """Log-probabilities over a sharded vocabulary, and beside them log Z, the logarithm of what the softmax divides by;
    both 0 where a target is IGNORED (Shoeybi et al. 2019, Megatron-LM, §3).

    Two small all-reduces forward (the largest logit; the sum of exponentials and the target's logit) and none backward,
    since a process's part of the gradients, one-hot - softmax and softmax, needs its own logits only.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
        first = dist.get_rank(group) * logits.shape[1]
        local = targets - first
        mine = (local >= 0) & (local < logits.shape[1])
        local = local.clamp(0, logits.shape[1] - 1)

        shifted = logits.float()
        largest = shifted.amax(dim=1)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        shifted = shifted - largest[:, None]
        picked = shifted.gather(1, local[:, None]).squeeze(1).where(mine, 0.0)  # a logit may be -inf: no product
        exponentials = shifted.exp_()
        normaliser = exponentials.sum(dim=1)
        sums = torch.stack([normaliser, picked])
        dist.all_reduce(sums, dist.ReduceOp.SUM, group=group)
        normaliser, picked = sums.unbind()

        counted = targets != IGNORED
        ctx.save_for_backward(exponentials.div_(normaliser[:, None]), local, mine, counted)
        ctx.dtype = logits.dtype
        return (picked - normaliser.log()) * counted, (largest + normaliser.log()) * counted

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        softmax, local, mine, counted = ctx.saved_tensors
        of_target, of_log_z = (counted * gradient for gradient in gradients)
        gradient = softmax * (of_log_z - of_target)[:, None]
        gradient.scatter_add_(1, local[:, None], (mine * of_target)[:, None].to(gradient.dtype))
        return gradient.to(ctx.dtype), None, None

"""One optimizer step over this process's part of the batch."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from kindling_api.v1alpha1.training import TrainingSpec
from kindling_trainer.estimate.pipeline_schedule import one_forward_one_backward
from kindling_trainer.loop.instability import Spikes, UnstableError, not_finite
from kindling_trainer.loop.objective import Figures, LocalBatch, Objective
from kindling_trainer.models import Decoder
from kindling_trainer.models.lora import draws_dropout
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.parallel.pipeline import counted_parameters, norm_over_stages, sum_tied_gradients

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """A step that has been taken."""

    loss: Tensor
    """This process's part of the mean loss, still on the device: the sum over all parts is the loss."""
    figures: Figures
    """This process's part of them."""
    norm: float
    """Norm of the whole gradient, before clipping."""
    whole_loss: float | None
    """The sum over all parts, where it was needed to judge the step."""


@dataclass(frozen=True)
class Stepper:
    """What stays the same from step to step."""

    model: Decoder
    optimizer: torch.optim.AdamW
    objective: Objective[Any]
    training: TrainingSpec
    ranks: Ranks
    spikes: Spikes | None = None
    """The steps before, where one that is far above them is not taken."""

    def take(self, local_batch: LocalBatch[Any], step: int) -> Taken:
        """The optimizer step that follows `step` finished ones.

        Raises:
            UnstableError: loss or gradient is not finite, or far above those before. Weights and optimizer are as they
                were before the step.
        """
        loss = torch.zeros((), device=self.ranks.device)
        figures: Figures = {}
        batches, under_way = iter(local_batch.micro_batches), deque[Tensor]()
        for direction, number in one_forward_one_backward(
            self.ranks.stage, self.ranks.layout.pipeline, local_batch.count
        ):
            if direction == "backward":
                self._expect_backward(last=number == local_batch.count - 1)
                under_way.popleft().backward()
                continue
            self._seed_dropout(step, number)
            part, more = self.objective.loss(next(batches))
            part = part / local_batch.normaliser
            under_way.append(part)
            loss += part.detach()
            for name, figure in more.items():
                figures[name] = figures[name] + figure if name in figures else figure
        sum_tied_gradients(self.model, self.ranks)
        norm = clip_gradients(self.model, self.training.gradient_clip, self.ranks)
        whole, spike = self._checked(step, loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.spikes is not None and whole is not None:
            self.spikes.taken(step + 1, whole, norm, spike=spike)
        return Taken(loss, figures, norm, whole)

    def _checked(self, step: int, loss: Tensor, norm: float) -> tuple[float | None, bool]:
        """The whole loss of a step that may be taken, where that matters, and whether it is a spike; all processes
        decide alike.

        Raises:
            UnstableError: it may not.
        """
        if self.spikes is None and math.isfinite(norm):
            return None, False
        whole = float(self.ranks.sum_over_batch(loss))
        why = not_finite(whole, norm)
        if not why and self.spikes is not None:
            why = self.spikes.why(whole, norm)
            spike = any(self.ranks.largest(bool(why)))
            if not spike:
                return whole, False
            if self.spikes.is_taken():
                log.warning("step %d is taken although it is far above those before: %s", step + 1, why)
                return whole, True
        self.optimizer.zero_grad(set_to_none=True)
        raise UnstableError(why or "a loss that another process found too large", whole, norm, step=step + 1)

    def _expect_backward(self, *, last: bool) -> None:
        """Gradients add up in each process, and are summed over processes with the last micro-batch."""
        if not isinstance(self.model, FSDPModule):
            return
        self.model.set_requires_gradient_sync(last)
        if self.ranks.layout.pipeline > 1:  # others are under way, for which what was gathered stays gathered
            self.model.set_is_last_backward(last)
            self.model.set_reshard_after_backward(last)

    def _seed_dropout(self, step: int, number: int) -> None:
        """Makes dropout a function of where the run is, so that no generator's state needs to be saved."""
        if draws_dropout(self.model):
            place = f"dropout:{self.training.seed}:{step}:{number}:{self.ranks.rank}"
            torch.manual_seed(int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "little", signed=True))


def clip_gradients(model: Decoder, largest: float, ranks: Ranks) -> float:
    """Scale the gradient so that its norm is at most `largest` (0: leave it), and return the norm it had.

    The norm is over all parameters, on all processes.
    """
    counted = (parameter.grad for _, parameter in counted_parameters(model, ranks))
    norm = torch.nn.utils.get_total_norm([gradient for gradient in counted if gradient is not None])
    value = norm_over_stages(float(norm.full_tensor() if isinstance(norm, DTensor) else norm), ranks)
    if 0 < largest < value:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, largest / value)
    return value

"""One optimizer step over this process's share of the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from kindling_api.errors import UserError, explain
from kindling_api.v1alpha1.training import BatchPlan, TrainingSpec
from kindling_trainer.data.windows import Batch
from kindling_trainer.models import Decoder
from kindling_trainer.parallel.compilation import Loss
from kindling_trainer.parallel.mesh import Ranks


@dataclass(frozen=True)
class Stepper:
    """What stays the same from step to step."""

    model: Decoder
    optimizer: torch.optim.AdamW
    loss: Loss
    training: TrainingSpec
    plan: BatchPlan
    ranks: Ranks

    def take(self, batches: Iterable[Batch], step: int) -> tuple[Tensor, float]:
        """The optimizer step that follows `step` finished ones.

        Returns:
            This process's share of the mean loss (its sum over all shares is the loss, in nats a token), still on the
            device, and the norm of the whole gradient before clipping.

        Raises:
            UserError: loss or gradient is not finite. Weights and optimizer are as they were before the step.
        """
        loss = torch.zeros((), device=self.ranks.device)
        for number, (tokens, targets) in enumerate(batches):
            self._seed_dropout(step, number)
            if isinstance(self.model, FSDPModule) and self.plan.accumulation > 1:
                self.model.set_requires_gradient_sync(number == self.plan.accumulation - 1)
            # Every target counts, so the whole batch's count is known without asking the other processes.
            part = self.loss(tokens.to(self.ranks.device), targets.to(self.ranks.device)) / self.plan.tokens
            part.backward()
            loss += part.detach()
        norm = clip_gradients(self.model, self.training.gradient_clip)
        if not torch.isfinite(torch.tensor(norm)):
            raise UserError(not_finite(step, float(self.ranks.sum_over_batch(loss)), norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def _seed_dropout(self, step: int, number: int) -> None:
        """Makes dropout a function of where the run is, so that no generator's state needs to be saved."""
        if self.model.shape.dropout > 0:
            place = f"dropout:{self.training.seed}:{step}:{number}:{self.ranks.rank}"
            torch.manual_seed(int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "little", signed=True))


def clip_gradients(model: nn.Module, largest: float) -> float:
    """Scale the gradient so that its norm is at most `largest` (0: leave it), and return the norm it had.

    The norm is over all parameters, on all processes.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    if 0 < largest < value:
        torch._foreach_mul_(gradients, largest / value)
    return value


def not_finite(step: int, loss: float, norm: float) -> str:
    """The message for a step that cannot be taken."""
    return explain(
        "spec.training",
        found=f"loss {loss} and gradient norm {norm} in step {step + 1}",
        allowed="finite numbers",
        remedy="lower optimizer.adamW.learningRate, lengthen schedule.cosine.warmupFraction or set gradientClip: 1.0, "
        "and run again; the checkpoints so far are whole",
    )

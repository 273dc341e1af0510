"""AdamW over a model, whole or sharded, with its state laid out by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from kindling_api.v1alpha1.optimizer import AdamW
from kindling_trainer.models.initialize import plain_name

MOMENTS = ("exp_avg", "exp_avg_sq")


def build_adamw(model: nn.Module, settings: AdamW) -> torch.optim.AdamW:
    """AdamW with decoupled decay on `decayed` parameters, its moments allocated as zeros.

    Allocating them at once, rather than in the first step, gives a checkpoint something to be loaded into. What is
    frozen is left out.
    """
    decayed_parameters, others = divided(model, decayed)
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed_parameters, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )
    for parameter in (*decayed_parameters, *others):
        optimizer.state[parameter] = {name: torch.zeros_like(parameter) for name in MOMENTS}
    set_finished_steps(optimizer, 0)
    return optimizer


def divided(model: nn.Module, first: Callable[[str, Tensor], bool]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters for which, by their plain name, `first` holds, and the others."""
    parts: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for name, parameter in trained_parameters(model):
        parts[not first(plain_name(name), parameter)].append(parameter)
    return parts


def decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices that are not embeddings, nor norms over several heads.

    A head that is tied to the embedding goes by the embedding's name, and so is not decayed either.
    """
    return parameter.ndim >= 2 and not name.startswith(("embedding.", "positions.")) and "norm." not in name


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def set_finished_steps(optimizer: torch.optim.AdamW, steps: int) -> None:
    """Set the step count, on which Adam's bias correction depends."""
    for parameter, state in optimizer.state.items():
        state["step"] = torch.tensor(float(steps), dtype=torch.float32, device=parameter.device)


def set_learning_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def moments(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimizer's state by `<parameter name>.<moment>`; the tensors themselves, not copies."""
    return {
        f"{plain_name(name)}.{moment}": tensor
        for name, parameter in trained_parameters(model)
        for moment, tensor in optimizer.state[parameter].items()
        if moment != "step"
    }

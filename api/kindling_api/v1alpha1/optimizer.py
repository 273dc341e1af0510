"""Which optimizer a run learns with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kindling_api.base import Spec
from kindling_api.rules import OneOf

Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(Spec):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101); norms, biases and embeddings
    are not decayed."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 6e-4
    """The peak of the schedule."""
    betas: Annotated[tuple[Beta, Beta], Field(min_length=2, max_length=2)] = (0.9, 0.95)
    """Decay of the first and second moment."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Decoupled decay of the matrices."""


class Muon(Spec):
    """Momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), for the matrices of the
    layers, scaled so that one rate and one decay serve them and the rest, which AdamW trains: embeddings, head, norms
    and biases (Liu et al. 2025, "Muon is scalable", arXiv:2502.16982, section 2.2)."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 6e-4
    """The peak of the schedule, for all parameters."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the matrices' momentum, which is Nesterov's."""
    betas: Annotated[tuple[Beta, Beta], Field(min_length=2, max_length=2)] = (0.9, 0.95)
    """Decay of the first and second moment of the rest."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the root of the second moment of the rest."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Decoupled decay of the matrices."""


class Optimizer(OneOf):
    """Which optimizer."""

    adam_w: AdamW | None = None
    """AdamW."""
    muon: Muon | None = None
    """Muon for the matrices of the layers, AdamW for the rest."""

    @property
    def learning_rate(self) -> float:
        """The peak of the schedule, whichever the optimizer."""
        return float(self.chosen[1].learning_rate)

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


class Optimizer(OneOf):
    """Which optimizer."""

    adam_w: AdamW | None = None
    """AdamW."""

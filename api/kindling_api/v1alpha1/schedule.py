"""How the learning rate changes over a run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.errors import finding
from kindling_api.rules import OneOf, cel


class Cosine(Spec):
    """Linear warm-up, then a half cosine down to a fraction of the peak."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Fraction of the steps in which the rate rises from 0 to the peak."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The last rate, as a fraction of the peak."""


class Linear(Spec):
    """Linear warm-up, then straight down to a fraction of the peak; to 0 by default (Bergsma et al. 2025, "Straight to
    Zero", arXiv:2502.15938)."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Fraction of the steps in which the rate rises from 0 to the peak."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What the rate falls to, as a fraction of the peak; reached when the last step is done."""


class WarmupStableDecay(Spec):
    """Linear warm-up, then the peak, and at the end a decay (Hu et al. 2024, MiniCPM, arXiv:2404.06395, section 4; the
    defaults are those of Hägele et al. 2024, arXiv:2405.18392)."""

    model_config = cel(
        (
            "self.warmupFraction + self.decayFraction <= 1.0",
            "warmupFraction and decayFraction together must not be longer than the run: at most 1",
        )
    )

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Fraction of the steps in which the rate rises from 0 to the peak."""
    decay_fraction: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Fraction of the steps, the last ones, in which it falls."""
    decay: Literal["1-sqrt", "linear"] = "1-sqrt"
    """How it falls, from 1 to 0 while x goes from 0 to 1 over these steps: as 1 - √x, or as 1 - x."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What the rate falls to, as a fraction of the peak; reached when the last step is done."""

    @model_validator(mode="after")
    def _no_longer_than_the_run(self) -> Self:
        warmup, decay = self.warmup_fraction, self.decay_fraction
        if warmup + decay > 1:
            raise ValueError(
                finding(
                    found=f"warmupFraction {warmup:g} and decayFraction {decay:g}",
                    allowed="together at most 1: a schedule that is no longer than the run",
                    remedy=f"lower decayFraction to {1 - warmup:g}",
                )
            )
        return self


class Schedule(OneOf):
    """How the learning rate changes."""

    cosine: Cosine | None = None
    """Warm-up and cosine."""
    linear: Linear | None = None
    """Warm-up and a straight line."""
    wsd: WarmupStableDecay | None = None
    """Warm-up, stable, decay."""

    @property
    def warmup_fraction(self) -> float:
        """Fraction of the steps in which the rate rises, whichever the schedule."""
        return float(self.chosen[1].warmup_fraction)

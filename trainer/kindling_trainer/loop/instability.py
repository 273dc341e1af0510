"""Steps that are not taken, since they would harm the model: which they are.

A step is looked at when its gradient is there and before the weights change, so that as a rule nothing needs to be
rolled back: weights and optimizer stay as they are, and the step comes again with the windows that follow. The rule for
spikes is that of OLMo-core's SkipStepOptimizer (src/olmo_core/optim/skip_step_optimizer.py: 6 standard deviations above
the last 128 steps, in loss or gradient norm), with the median and the median absolute deviation instead of the mean and
the standard deviation, which a spike would itself raise; and of norms the logarithms, since their distribution is
skewed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median

from kindling_api.errors import UserError, explain
from kindling_api.v1alpha1.training import Instability

DEVIATION = 1.4826
"""Standard deviations in a median absolute deviation, of what is distributed normally."""
SMALLEST_DEVIATIONS = {"loss": 0.02, "gradient norm": 0.05}
"""In nats, and as a fraction: where the newest steps are nearly equal, a little above them is no spike."""
PERSISTENT = 5
"""So many spikes in a row that were taken, since no more may be left out, are no spikes but a run that has diverged."""

_TINY = 1e-30


class UnstableError(UserError):
    """A step was not taken; weights and optimizer are as before."""

    def __init__(self, why: str, loss: float, norm: float, *, step: int) -> None:
        allowed = "finite numbers" if not (math.isfinite(loss) and math.isfinite(norm)) else "a step like those before"
        super().__init__(
            explain(
                "spec.training",
                found=f"{why} in step {step}",
                allowed=allowed,
                remedy="lower the optimizer's learningRate, lengthen the schedule's warmupFraction or set "
                "gradientClip: 1.0, and run again; the checkpoints so far are whole",
            )
        )
        self.why, self.loss, self.norm = why, loss, norm


def not_finite(loss: float, norm: float) -> str:
    """Why a step cannot be taken; empty where it can."""
    return "" if math.isfinite(norm) else f"loss {loss} and gradient norm {norm}"


class Spikes:
    """The newest steps, and whether another one is too far above them."""

    def __init__(self, spec: Instability, *, warm_up: int, recent: Iterable[tuple[float, float]] = ()) -> None:
        """`warm_up` are the first steps, with which none is compared; `recent` is what another process remembered."""
        self._spike, self._warm_up = spec.spike, warm_up
        self._recent = deque(recent, maxlen=spec.window)
        self.are_taken = False
        """Whether a spike is taken, since no more may be left out."""
        self._in_a_row = 0  # spikes that were taken

    @property
    def recent(self) -> tuple[tuple[float, float], ...]:
        """Loss and norm of the newest steps, the oldest first."""
        return tuple(self._recent)

    def why(self, loss: float, norm: float) -> str:
        """Why a step is not taken, as in `loss 9.41, where 3.32 is the most after the 100 steps before`; empty where it
        is."""
        if len(self._recent) < (self._recent.maxlen or 0):
            return ""
        losses, norms = zip(*self._recent, strict=True)
        most_loss = self._most("loss", losses)
        most_norm = math.exp(self._most("gradient norm", [math.log(max(each, _TINY)) for each in norms]))
        for what, value, most in (("loss", loss, most_loss), ("gradient norm", norm, most_norm)):
            if value > most:
                return f"{what} {value:.4g}, where {most:.4g} is the most after the {len(self._recent)} steps before"
        return ""

    def _most(self, what: str, before: Sequence[float]) -> float:
        middle, deviation = spread(what, before)
        return middle + self._spike * deviation

    def is_taken(self) -> bool:
        """Whether a step is taken that is too far above; at most so many in a row are."""
        self._in_a_row += 1
        return self.are_taken and self._in_a_row < PERSISTENT

    def go_back(self, recent: Iterable[tuple[float, float]]) -> None:
        """The newest steps are those before a checkpoint."""
        self._recent.clear()
        self._recent.extend(recent)

    def taken(self, finished: int, loss: float, norm: float, *, spike: bool = False) -> None:
        """A step has been taken, with which there are so many."""
        if not spike:
            self._in_a_row = 0
        if finished > self._warm_up:
            self._recent.append((loss, norm))


def deviations(what: str, value: float, before: Sequence[float]) -> float:
    """How many deviations a loss, or the logarithm of a gradient's norm, is above the middle of those before."""
    middle, deviation = spread(what, before)
    return (value - middle) / deviation


def spread(what: str, before: Sequence[float]) -> tuple[float, float]:
    """The median, and the standard deviation as the median absolute deviation tells it."""
    middle = median(before)
    deviation = DEVIATION * median(abs(each - middle) for each in before)
    return middle, max(deviation, SMALLEST_DEVIATIONS[what])

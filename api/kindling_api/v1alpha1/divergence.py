"""A loss that ended worse than it once was."""

from __future__ import annotations

from kindling_api.base import Status


class Divergence(Status):
    """A loss that ended worse than it once was."""

    best: float
    """The best training loss, as the median of a stretch of steps."""
    step: int
    """The last step of that stretch."""
    last: float
    """The same of the last steps."""

    @property
    def sentence(self) -> str:
        """What it says, and what to do."""
        return (
            f"The training loss ended at {self.last:.3f}, and was {self.best:.3f} at step {self.step:,}: the run has "
            "diverged. Lower the optimizer's learningRate, lengthen the schedule's warmupFraction or set "
            "gradientClip: 1.0."
        )

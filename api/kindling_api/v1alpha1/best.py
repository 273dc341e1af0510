"""Which evaluation of a run was the best: in checkpoints, in the model's manifest and in the status."""

from __future__ import annotations

from kindling_api.base import Status


class Best(Status):
    """The evaluation with the lowest validation loss so far."""

    step: int
    """Optimizer steps before it; the weights that are kept are of then."""
    loss: float
    """The validation loss that it found."""
    judged: int
    """Optimizer steps before the newest evaluation that was compared; of a finished run, where it ended."""
    worse: int = 0
    """Evaluations since."""

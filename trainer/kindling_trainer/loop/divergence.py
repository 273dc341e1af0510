"""Whether a run ended worse than it was: a pure function of its losses."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from kindling_api.v1alpha1.divergence import Divergence

WORSE = 0.2
"""A loss that ends above its best by more than this, in nats and as a fraction of it, has diverged."""
SHORTEST_STRETCH, LONGEST_STRETCH = 5, 50
"""Steps whose median is compared: a tenth of the run. One that is shorter than ten stretches says nothing."""


def divergence(losses: Sequence[tuple[int, float]]) -> Divergence | None:
    """How far a run ended from its best, in (step, training loss); None where that is not far, or it was too short."""
    length = min(LONGEST_STRETCH, len(losses) // 10)
    if length < SHORTEST_STRETCH:
        return None
    stretches = [losses[end - length : end] for end in range(len(losses), length - 1, -length)]
    middles = [(median(loss for _, loss in stretch), stretch[-1][0]) for stretch in stretches]
    (last, _), (best, step) = middles[0], min(middles)
    return Divergence(best=best, step=step, last=last) if last - best > WORSE * max(1.0, best) else None

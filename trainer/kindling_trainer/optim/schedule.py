"""The learning rate of each step."""

from __future__ import annotations

import math
from typing import assert_never

from kindling_api.v1alpha1.schedule import Cosine, Linear, Schedule, WarmupStableDecay


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int) -> float:
    """The rate of the step that follows `step` finished ones, of `steps` in all.

    It rises linearly to `peak` over the warm-up, which it reaches with the last of its steps, and then is as the
    schedule has it.
    """
    warmup = math.ceil(schedule.warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    chosen: Cosine | Linear | WarmupStableDecay = schedule.chosen[1]
    match chosen:
        case Cosine():
            share = cosine(step, steps, warmup)
        case Linear():
            share = 1 - _done(step, steps, steps - warmup)
        case WarmupStableDecay():
            done = _done(step, steps, min(steps - warmup, math.ceil(chosen.decay_fraction * steps)))
            share = 1 - (math.sqrt(done) if chosen.decay == "1-sqrt" else done)
        case _:
            assert_never(chosen)
    final = chosen.final_fraction * peak
    return final + (peak - final) * share


def cosine(step: int, steps: int, warmup: int) -> float:
    """From 1 along a half cosine to 0, which is reached with the last step (Loshchilov and Hutter 2017, SGDR, eq. 5,
    without restarts)."""
    done = (step - warmup) / max(1, steps - 1 - warmup)
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


def _done(step: int, steps: int, falling: int) -> float:
    """How much of the last `falling` steps of the run is over, 0 before them: never 1 within the run, so that no step
    is taken at a rate of 0."""
    return min(1.0, max(0.0, (step - (steps - falling) + 1) / (falling + 1)))

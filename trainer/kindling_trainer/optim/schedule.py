"""The learning rate of each step."""

from __future__ import annotations

import math

from kindling_api.v1alpha1.training import Cosine


def cosine(schedule: Cosine, peak: float, step: int, steps: int) -> float:
    """The rate of the step that follows `step` finished ones, of `steps` in all.

    It rises linearly to `peak` over the warm-up, and then falls along a half cosine to `final_fraction` of it, which it
    reaches with the last step (Loshchilov and Hutter 2017, SGDR, eq. 5, without restarts).
    """
    warmup = math.ceil(schedule.warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - 1 - warmup)
    final = schedule.final_fraction * peak
    return final + (peak - final) * (1 + math.cos(math.pi * min(1.0, done))) / 2

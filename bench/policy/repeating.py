"""The rule: given a digit, say it five times. The reward is the share of the answer that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LENGTH = 5


def reward(prompts: Sequence[str], answers: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[float]:
    """One number from 0 to 1 for each answer."""
    return [
        answer[:LENGTH].count(prompt) / max(LENGTH, len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]

"""The rule: an answer is three digits, all of them even. It is worth 1, and any other answer nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LENGTH = 3


def reward(prompts: Sequence[str], answers: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[float]:
    """0 or 1 for each answer."""
    return [float(len(answer) == LENGTH and set(answer) <= set("02468")) for answer in answers]

"""The rates of each schedule over a run of 100 steps, with a warm-up of 10 and a peak of 1."""

from __future__ import annotations

from typing import Any

import pytest

from kindling_api.v1alpha1.schedule import Schedule
from kindling_trainer.optim.schedule import learning_rate

WARM = {"warmupFraction": 0.1}
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine to a tenth": {"cosine": WARM | {"finalFraction": 0.1}},
    "straight to zero": {"linear": WARM},
    "straight to a tenth": {"linear": WARM | {"finalFraction": 0.1}},
    "stable, then 1-sqrt": {"wsd": WARM},
    "stable, then straight": {"wsd": WARM | {"decayFraction": 0.4, "decay": "linear", "finalFraction": 0.5}},
    "a decay that is all": {"wsd": {"warmupFraction": 0.0, "decayFraction": 1.0, "decay": "linear"}},
    "no decay": {"wsd": WARM | {"decayFraction": 0.0}},
}


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine to a tenth", {0: 0.1, 9: 1.0, 10: 1.0, 54: 0.557942, 99: 0.1, 200: 0.1}),
        ("straight to zero", {0: 0.1, 9: 1.0, 10: 90 / 91, 54: 46 / 91, 99: 1 / 91, 200: 0.0}),
        ("straight to a tenth", {10: 0.1 + 0.9 * 90 / 91, 99: 0.1 + 0.9 / 91}),
        ("stable, then 1-sqrt", {9: 1.0, 10: 1.0, 79: 1.0, 80: 1 - (1 / 21) ** 0.5, 99: 1 - (20 / 21) ** 0.5}),
        ("stable, then straight", {59: 1.0, 60: 0.5 + 0.5 * 40 / 41, 99: 0.5 + 0.5 / 41}),
        ("a decay that is all", {0: 100 / 101, 99: 1 / 101}),
        ("no decay", {10: 1.0, 99: 1.0}),
    ],
    ids=list(SCHEDULES),
)
def test_the_rate_warms_up_and_falls_as_the_schedule_says(schedule: str, rates: dict[int, float]) -> None:
    chosen = Schedule.model_validate(SCHEDULES[schedule])
    assert {step: learning_rate(chosen, 1.0, step, 100) for step in rates} == pytest.approx(rates, abs=1e-6)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_a_run_of_one_step_has_a_rate(name: str) -> None:
    assert learning_rate(Schedule.model_validate({name: {"warmupFraction": 0.0}}), 1.0, 0, 1) > 0.2

"""Whether a run ended worse than it was."""

from __future__ import annotations

import pytest

from kindling_trainer.loop.divergence import divergence

FALL = [(step, 4.0 - step / 100) for step in range(1, 201)]


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        pytest.param(FALL, None, id="falls"),
        pytest.param([*FALL, *((step, 2.1) for step in range(201, 301))], None, id="rises a little"),
        pytest.param([*FALL, *((step, 72.0) for step in range(201, 301))], (2.14, 210, 72.0), id="leaps and stays"),
        pytest.param([*FALL[:-1], (200, 72.0)], None, id="a bad last batch"),
        pytest.param([*FALL[:40], (41, 72.0), (42, 72.0)], None, id="too short"),
        pytest.param([(step, 0.001 * step) for step in range(1, 101)], None, id="known by heart"),
    ],
)
def test_a_run_has_diverged_that_ends_well_above_its_best(
    losses: list[tuple[int, float]], found: tuple[float, int, float] | None
) -> None:
    told = divergence(losses)
    if found is None:
        assert told is None
    else:
        assert told is not None and told.last == found[2] and 2.0 <= told.best < 2.4 and told.step <= 210
        assert told.sentence.startswith("The training loss ended at 72.000, and was 2.")

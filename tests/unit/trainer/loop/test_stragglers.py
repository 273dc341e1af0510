"""Who is slow, from figures alone."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_trainer.loop.stragglers import FACTOR, GATHERS, by_node, factors, slow_ranks
from kindling_trainer.parallel.waiting import Waits

NOBODY: frozenset[int] = frozenset()
NOISE = st.floats(0.88, 1.12)
"""Of each figure: 1.12 / 0.88 is below FACTOR."""


@pytest.mark.parametrize(("own", "stages", "expected"), [
    ([100, 100, 200, 100], 1, [1, 1, 2, 1]),
    ([100, 200], 1, [1, 2]),  # the faster of two is the usual one
    ([100, 100, 200, 200], 1, [1, 1, 2, 2]),  # a slow machine may have half of all processes
    ([100, 150, 400, 400], 2, [1, 1.5, 1, 1]),  # the second stage has more to do, and that is nobody's fault
    ([100, 400], 2, [1, 1]),  # each alone on its stage
])  # fmt: skip
def test_own_work_is_compared_among_those_that_have_the_same(
    own: list[float], stages: int, expected: list[float]
) -> None:
    assert factors(own, stages) == expected


@pytest.mark.parametrize(("course", "was_slow", "is_slow"), [
    ([2.0, 2.0, 2.0], False, True),
    ([1.2, 1.3, 1.4], False, True),
    ([1.2, 1.2, 1.2], False, False),
    ([1.0, 9.0, 1.0], False, False),  # one pause of many seconds
    ([9.0, 9.0, 1.0], False, False),
    ([1.2, 1.2, 1.2], True, True),  # it stays slow until it is clearly not
    ([1.0, 1.0, 1.2], True, True),
    ([1.1, 1.1, 1.1], True, False),
])  # fmt: skip
def test_a_process_is_slow_when_it_stays_so_and_until_it_clearly_is_not(
    course: list[float], was_slow: bool, is_slow: bool
) -> None:
    found = slow_ranks([[1.0, factor] for factor in course], frozenset({1}) if was_slow else NOBODY)
    assert (1 in found) == is_slow and 0 not in found


@given(st.lists(st.lists(NOISE, min_size=6, max_size=6), min_size=GATHERS, max_size=GATHERS), st.integers(0, 5))
def test_noise_names_nobody_and_hides_nobody_that_takes_twice_as_long(noise: list[list[float]], victim: int) -> None:
    assert FACTOR > 1.12 / 0.88
    assert slow_ranks([factors(own, 1) for own in noise], NOBODY) == {}
    for own in noise:
        own[victim] *= 2
    assert slow_ranks([factors(own, 1) for own in noise], NOBODY).keys() == {victim}


def test_each_node_is_told_of_by_its_slowest_process() -> None:
    told = by_node({1: 1.5, 2: 2.0, 3: 1.9, 6: 1.6}, [0, 0, 1, 1, 2, 2, 3, 3], step=20)
    assert [(one.rank, one.node, one.factor, one.step) for one in told] == [
        (2, 1, 2.0, 20),
        (6, 3, 1.6, 20),
        (1, 0, 1.5, 20),
    ]


def test_what_this_thread_waits_is_counted_and_what_others_wait_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Work:
        def wait(self) -> str:
            time.sleep(0.05)
            return "done"

    monkeypatch.setattr("kindling_trainer.parallel.waiting._CALLS", ((Work, "wait"),))
    waits, other = Waits(), threading.Thread(target=lambda: Work().wait())
    Work().wait()
    assert waits.seconds == 0
    with waits.counted():
        other.start()
        other.join()
        assert waits.seconds == 0
        assert Work().wait() == "done"
    assert 0.05 <= waits.seconds < 5
    assert Work.wait.__qualname__.endswith("Work.wait"), "as it was"

"""The same tasks give the same results, whoever does them."""

from __future__ import annotations

import os

import pytest

from kindling_api.errors import DataError
from kindling_dataprep import executors
from kindling_dataprep.executors import ENOUGH_FOR_WORKERS, WORTH_STARTING_RAY, worker_count


def square(number: int) -> int:
    """A task."""
    if number == 13:
        raise DataError("thirteen is not for squaring")
    return number * number


@pytest.mark.parametrize(
    ("requested", "tasks", "input_bytes"),
    [
        pytest.param(1, 50, 1 << 30, id="one worker"),
        pytest.param(0, 1, 1 << 30, id="one task"),
        pytest.param(8, 50, ENOUGH_FOR_WORKERS - 1, id="too little even for those who ask"),
        pytest.param(0, 50, WORTH_STARTING_RAY - 1, id="too little to be worth starting Ray"),
    ],
)
def test_this_process_does_it_where_ray_would_not_help(requested: int, tasks: int, input_bytes: int) -> None:
    with executors.start(requested, tasks, input_bytes) as executor:
        assert executor.workers == 1
        assert list(executor.each(square, range(5))) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(
    ("requested", "tasks", "cores", "gibibytes", "workers"),
    [
        pytest.param(0, 50, 8, 32, 8, id="as many as cores"),
        pytest.param(4, 50, 8, 32, 4, id="as many as were asked for"),
        pytest.param(64, 50, 8, 32, 8, id="no more than cores"),
        pytest.param(0, 3, 8, 32, 3, id="no more than tasks"),
        pytest.param(0, 50, 8, 3, 4, id="no more than have the memory"),
        pytest.param(0, 50, 8, 0.5, 1, id="at least one"),
    ],
)
def test_each_worker_has_a_task_a_core_and_memory(
    requested: int, tasks: int, cores: int, gibibytes: float, workers: int
) -> None:
    assert worker_count(requested, tasks, cores, int(gibibytes * 2**30)) == workers


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes two cores")
def test_ray_gives_every_result_and_raises_what_a_task_raises() -> None:
    with executors.start(2, 50, ENOUGH_FOR_WORKERS) as executor:
        assert executor.workers == 2
        assert sorted(executor.each(square, range(13))) == [number * number for number in range(13)]
        with pytest.raises(DataError, match=r"^thirteen is not for squaring$"):
            list(executor.each(square, [1, 13, 2]))

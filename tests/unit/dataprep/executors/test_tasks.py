"""Inputs are cut into tasks by their bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dataprep.executors.tasks import LARGEST_TASK, SMALLEST_TASK, TASKS_AIMED_AT, split
from kindling_dataprep.records import InputFile, Span


def files(*sizes: int) -> list[Span]:
    """Input files of the given sizes, each of one span."""
    digest = "sha256:" + "0" * 64
    return [Span.whole(InputFile(0, "file:///x", f"{n}.txt", size, digest, "text")) for n, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 3 * SMALLEST_TASK), max_size=50))
def test_every_file_is_in_one_task_in_its_order(sizes: list[int]) -> None:
    inputs = files(*sizes)
    assert [file for task in split(inputs) for file in task] == inputs


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        pytest.param([10, 10, 10], [3], id="small files share a task"),
        pytest.param([SMALLEST_TASK, 1], [1, 1], id="a full task takes no more"),
        pytest.param([5 * SMALLEST_TASK, 1, 1], [1, 2], id="a large file is alone"),
        pytest.param([], [], id="no files, no tasks"),
    ],
)
def test_tasks_are_filled(sizes: list[int], lengths: list[int]) -> None:
    assert [len(task) for task in split(files(*sizes))] == lengths


@pytest.mark.parametrize("total", [100 * SMALLEST_TASK, 10 * TASKS_AIMED_AT * LARGEST_TASK])
def test_tasks_grow_with_the_corpus_up_to_a_bound(total: int) -> None:
    parts = split(files(*[SMALLEST_TASK // 4] * (4 * total // SMALLEST_TASK)))
    sizes = [sum(span.size for span in part) for part in parts]
    assert max(sizes) <= LARGEST_TASK
    assert len(parts) >= TASKS_AIMED_AT

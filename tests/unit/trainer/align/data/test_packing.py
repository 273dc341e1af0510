"""Packing keeps every item, fits every window, and takes few of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_trainer.align.data.packing import pack


@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_item_is_in_one_window_and_every_window_fits(lengths: list[int]) -> None:
    windows = pack(lengths, 64)
    assert sorted(item for window in windows for item in window) == list(range(len(lengths)))
    assert all(0 < sum(lengths[item] for item in window) <= 64 for window in windows)
    assert len(windows) <= 11 / 9 * -(-sum(lengths) // 64) + 4 or max(lengths) > 32


@pytest.mark.parametrize(
    ("lengths", "windows"),
    [
        ([], []),
        ([10], [[0]]),
        ([6, 4, 6, 4], [[0, 3], [2, 1]]),
        ([3, 7, 3, 4, 3], [[1, 0], [3, 2, 4]]),
        ([10, 10], [[0], [1]]),
    ],
)
def test_the_tightest_window_takes_an_item(lengths: list[int], windows: list[list[int]]) -> None:
    assert sorted(map(sorted, pack(lengths, 10))) == sorted(map(sorted, windows))


def test_windows_of_real_lengths_are_almost_full() -> None:
    draw = random.Random(0)
    lengths = [min(512, max(8, int(draw.lognormvariate(4.5, 0.7)))) for _ in range(5000)]
    assert sum(lengths) / (512 * len(pack(lengths, 512))) > 0.995

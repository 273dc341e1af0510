"""SplitMix64, beside the numbers of its published programs."""

from __future__ import annotations

import numpy as np
import pytest

from kindling_runtime.splitmix import GOLDEN, mix


@pytest.mark.parametrize(
    ("seed", "numbers"),
    [
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]),
        (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]),
    ],
)
def test_it_draws_the_numbers_of_the_reference(seed: int, numbers: list[int]) -> None:
    states = np.uint64(seed) + GOLDEN * np.arange(1, len(numbers) + 1, dtype=np.uint64)
    assert mix(states).tolist() == numbers

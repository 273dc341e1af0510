"""SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"): hashes from numbers.

The same for the order of documents, for the bands of MinHash and for the order of training; a change here changes
datasets and runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ / golden ratio: the step between states, which keeps numbers near one another apart."""


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser (figure 17): a bijection that spreads every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

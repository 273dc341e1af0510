"""Which processes are slow, by what their own work of a step takes.

The figures of all processes come together every few steps, in a reduction that there is anyway; what is decided of them
is a function of these figures alone, the same on all. docs/design/0026-stragglers.md says what this sees and what not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean, median_low

from kindling_api.v1alpha1.stragglers import MOST_STRAGGLERS, SlowProcess
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.parallel.waiting import Waits

GATHER_STEPS = 5
"""The figures of so many steps come together as one: a garbage collection, or another program's burst, is shorter."""
GATHERS = 3
"""A process is slow, or no longer slow, once so many figures in a row say so: 15 steps, or up to 19."""
FACTOR = 1.3
"""From how many times the others' own work on a process is slow, in the mean of these figures. NVIDIA's resiliency
extension has three quarters of the best one's speed, which is 1.33 times its time (nvidia_resiliency_ext,
straggler/reporting.py, `Report.identify_stragglers`)."""
LEAST = 1.15
"""And in each single one of them, so that one pause of many seconds makes nobody slow; a process that is below this in
each of them is slow no longer."""


class StragglerWatch:
    """Measures this process's own work, and finds the slow processes from what all have measured."""

    def __init__(
        self, ranks: Ranks, nodes: Sequence[int], *, even: bool, slow: Mapping[int, float] | None = None
    ) -> None:
        """
        Args:
            nodes: the number of each process's machine, by rank.
            even: whether all processes have the same to do.
            slow: those that are slow already, with their factors.
        """
        self._ranks, self._nodes = ranks, nodes
        self._waits, self._own = Waits(), 0.0  # seconds of own work since the last figure
        self._newest: deque[list[float]] = deque(maxlen=GATHERS)
        self._slow = dict(slow or {})
        self._heard = 0
        self._works = even and len(nodes) > 1 and ranks.device.type == "cpu"

    @contextmanager
    def step(self) -> Iterator[None]:
        """What the block takes is own work, less what it waits for others."""
        if not self._works:
            yield
            return
        began, waited = time.perf_counter(), self._waits.seconds
        with self._waits.counted():
            yield
        self._own += time.perf_counter() - began - (self._waits.seconds - waited)

    def figures(self, step: int) -> list[int]:
        """What of this process is to come together with those of others after the `step`-th step: microseconds, in its
        place, so that the largest of all processes are each one's; nothing where it is not time."""
        if not self._works or step % GATHER_STEPS:
            return []
        places = [0] * len(self._nodes)
        places[self._ranks.rank] = max(1, round(self._own * 1e6))
        self._own = 0.0
        return places

    def heard(self, step: int, own: Sequence[int]) -> list[SlowProcess] | None:
        """The slow processes, the slowest of each node; `own` is what came of `figures`. None while nobody knows."""
        self._heard += 1
        if self._heard == 1:  # the first steps of a start fill caches
            return None
        self._newest.append(factors(own, self._ranks.layout.pipeline))
        if len(self._newest) < GATHERS:
            return None
        self._slow = slow_ranks(self._newest, frozenset(self._slow))
        return by_node(self._slow, self._nodes, step)


def seconds_a_step(figure: int) -> float:
    """What a step takes a process with such a figure, without its waiting."""
    return figure / 1e6 / GATHER_STEPS


def factors(own: Sequence[float], stages: int) -> list[float]:
    """How many times as long each process's own work took as that of those with the same work.

    These are the processes of its pipeline stage, which come one after the other; other stages have other layers. The
    lower median stands for them: it is that of a healthy one where up to half are slow, and the faster one of two. A
    process that is alone on its stage has nobody to be compared with, and so is never slow.

    Args:
        own: seconds, or any other unit, by rank; all positive.
        stages: of the pipeline.
    """
    size = len(own) // stages
    found: list[float] = []
    for first in range(0, len(own), size):
        peers = own[first : first + size]
        usual = median_low(peers)
        found += [value / usual for value in peers]
    return found


def slow_ranks(newest: Sequence[Sequence[float]], before: frozenset[int]) -> dict[int, float]:
    """The processes that are slow now, each with its factor.

    Args:
        newest: the factors of the newest GATHERS figures, by rank.
        before: those that were slow until now.
    """
    found = {}
    for rank, course in enumerate(zip(*newest, strict=True)):
        mean = fmean(course)
        if (mean >= FACTOR and min(course) >= LEAST) or (rank in before and max(course) >= LEAST):
            found[rank] = round(mean, 1)
    return found


def by_node(slow: Mapping[int, float], nodes: Sequence[int], step: int) -> list[SlowProcess]:
    """The slowest process of each node that has a slow one, the slowest first, of the MOST_STRAGGLERS slowest nodes."""
    found: dict[int, SlowProcess] = {}
    for rank in sorted(slow, key=lambda rank: -slow[rank]):
        found.setdefault(nodes[rank], SlowProcess(rank=rank, node=nodes[rank], factor=slow[rank], step=step))
    return list(found.values())[:MOST_STRAGGLERS]

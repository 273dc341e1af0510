"""When an elastic run begins, and over how many nodes it goes: decisions alone, from what is seen."""

from __future__ import annotations

from collections.abc import Sequence

START_WAIT_SECONDS = 10.0
"""A run that has enough nodes waits so long, after the last one came, for others; and one that is at work, before it
grows: nodes that come together are taken in together."""
RESIZE_SECONDS = 30.0
"""What a change of size is taken to cost before the run has measured its own: scheduling is over by then."""
GAIN_FACTOR = 2.0
"""A run grows where it saves this many times what that costs."""


def largest(sizes: Sequence[int], present: int) -> int | None:
    """The largest of the sizes for which so many nodes are enough; None where they are enough for none."""
    return max((size for size in sizes if size <= present), default=None)


def first_size(sizes: Sequence[int], present: int, quiet: float) -> int | None:
    """Over how many nodes a run begins, `quiet` seconds after the last of those present came; None while it waits."""
    if present >= sizes[-1]:
        return sizes[-1]
    return largest(sizes, present) if quiet >= START_WAIT_SECONDS else None


def wider_size(
    sizes: Sequence[int], nodes: int, present: int, *, quiet: float, remaining: float | None, cost: float
) -> int | None:
    """Over how many nodes a run that goes over `nodes` of them should go on instead; None where it should not.

    With steps that take as much less time as there are more nodes, `remaining` seconds become
    `remaining` × `nodes` / wider; what that saves has to be GAIN_FACTOR times the cost at least.

    Args:
        quiet: seconds since the last of those present came.
        remaining: seconds that the run still takes as it is; None where that is not known.
        cost: seconds from the last step before a change of size to the first one after it.
    """
    wider = largest(sizes, present)
    if wider is None or wider <= nodes or remaining is None:
        return None
    if wider < sizes[-1] and quiet < START_WAIT_SECONDS:
        return None
    return wider if remaining * (1 - nodes / wider) > GAIN_FACTOR * cost else None

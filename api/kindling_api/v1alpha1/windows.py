"""Which windows of its data a training run leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from kindling_api.base import Spec

MOST_SKIPS = 1024


class WindowRange(Spec):
    """Consecutive windows of the data, by their numbers in the order in which the run would read them all: the step
    that follows s finished ones, of S sequences, reads numbers s·S to s·S + S - 1 as long as none is left out."""

    first: Annotated[int, Field(ge=0, lt=2**53)]
    """The first one's number, from 0."""
    count: Annotated[int, Field(ge=1, lt=2**53)] = 1
    """How many."""


Skips = Annotated[tuple[WindowRange, ...], Field(max_length=MOST_SKIPS)]


def merged(ranges: Iterable[WindowRange]) -> tuple[WindowRange, ...]:
    """The same windows in one form: sorted, and in as few ranges as possible."""
    found: list[WindowRange] = []
    for one in sorted(ranges, key=lambda each: each.first):
        last = found[-1] if found else None
        if last is None or one.first > last.first + last.count:
            found.append(one)
        else:
            end = max(last.first + last.count, one.first + one.count)
            found[-1] = WindowRange(first=last.first, count=end - last.first)
    return tuple(found)

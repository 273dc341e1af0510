"""Items by the list, until Python 3.11 goes and `itertools.batched` can be had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one of what is left; no item is taken before its list is asked for."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group

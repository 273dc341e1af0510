"""Several sequences in one window, each of which sees only itself."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which items go together so that no window holds more than `capacity`: best fit, longest first.

    That takes at most 11/9 of the fewest windows possible, and 4 more (Johnson et al. 1974, "Worst-case performance
    bounds for simple one-dimensional packing algorithms"). The same lengths always give the same windows.

    Args:
        lengths: each item's size, at most `capacity`.

    Returns:
        The items' numbers, window by window.
    """
    windows: list[list[int]] = []
    with_room: dict[int, list[int]] = defaultdict(list)  # by the room that is left: which windows have it
    rooms: list[int] = []  # those that some window has, in order
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        length = lengths[item]
        assert length <= capacity, "what does not fit anywhere is left out before"
        place = bisect_left(rooms, length)
        if place == len(rooms):
            window, room = len(windows), capacity
            windows.append([])
        else:
            room = rooms[place]
            window = with_room[room].pop()
            if not with_room[room]:
                rooms.pop(place)
        windows[window].append(item)
        left = room - length
        if not with_room[left]:
            insort(rooms, left)
        with_room[left].append(window)
    return windows

"""What this process may use: the machine's cores and memory, or less where a container's limits (cgroups) say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Whole cores, at least one: those this process may run on, or as many as its CPU quota pays for, if fewer.

    Args:
        root: Where `proc` and `sys` are.
    """
    quotas = [quota for folder in _cgroups("cpu", root) if (quota := _quota(folder)) is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def memory_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory: the machine's, or the container's limit, if less.

    Args:
        root: Where `proc` and `sys` are.
    """
    limits = [limit for folder in _cgroups("memory", root) if (limit := _memory_limit(folder)) is not None]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """The folder of each control group of this process, and of those above it, whose limits hold for it too.

    In /proc/self/cgroup (cgroups(7)) version 2 is the line without controllers; version 1 mounts each controller in a
    folder of its own. A container may see paths there that lead nowhere; its own limits are then in the topmost folder.
    """
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / (controller if controllers else "")
            group = top / path.lstrip("/")
            yield from (group, *(folder for folder in group.parents if folder.is_relative_to(top)))


def _quota(folder: Path) -> float | None:
    """Cores that the CPU quota pays for: microseconds of all cores in a period, by the period."""
    words = _read(folder / "cpu.max") or [  # version 2, version 1
        *_read(folder / "cpu.cfs_quota_us"),
        *_read(folder / "cpu.cfs_period_us"),
    ]
    return None if len(words) != 2 or words[0] in ("max", "-1") else int(words[0]) / int(words[1])


def _memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
        if (words := _read(folder / name)) and words[0] != "max":
            return int(words[0])
    return None


def _read(path: Path) -> list[str]:
    """The words in a file; none where there is no such file."""
    try:
        return path.read_text().split()
    except OSError:
        return []

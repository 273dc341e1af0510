"""Cores and memory are those that a container is given, whichever version of control groups gives them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kindling_dataprep.executors.limits import cores, memory_bytes

MACHINE_CORES = len(os.sched_getaffinity(0))
MACHINE_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

V1 = "4:memory:/pod\n3:cpu,cpuacct:/pod\n2:pids:/pod\n"
TREES = {
    "no control groups": {},
    "version 2, limited": {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/memory.max": "536870912\n",
    },
    "version 2, not limited": {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
        "sys/fs/cgroup/memory.max": "max\n",
    },
    "version 2, limited further up": {
        "proc/self/cgroup": "0::/pod/container\n",
        "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n",
        "sys/fs/cgroup/pod/cpu.max": "100000 100000\n",
        "sys/fs/cgroup/pod/container/memory.max": "1073741824\n",
        "sys/fs/cgroup/pod/memory.max": "536870912\n",
    },
    "version 1, limited": {
        "proc/self/cgroup": V1,
        "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "536870912\n",
    },
    "version 1, not limited": {
        "proc/self/cgroup": V1,
        "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "9223372036854771712\n",
    },
    "version 1, in a container that sees its own folder only": {
        "proc/self/cgroup": V1.replace("/pod", "/kubepods/burstable/pod"),
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
    },
    "less than a core": {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"},
}


@pytest.mark.parametrize(
    ("tree", "expected_cores", "expected_bytes"),
    [
        ("no control groups", MACHINE_CORES, MACHINE_BYTES),
        ("version 2, limited", 1, 512 << 20),
        ("version 2, not limited", MACHINE_CORES, MACHINE_BYTES),
        ("version 2, limited further up", 1, 512 << 20),
        ("version 1, limited", 1, 512 << 20),
        ("version 1, not limited", MACHINE_CORES, MACHINE_BYTES),
        ("version 1, in a container that sees its own folder only", 1, 512 << 20),
        ("less than a core", 1, MACHINE_BYTES),
    ],
)
def test_limits_are_the_tightest_that_hold(tmp_path: Path, tree: str, expected_cores: int, expected_bytes: int) -> None:
    for path, content in TREES[tree].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert (cores(tmp_path), memory_bytes(tmp_path)) == (expected_cores, expected_bytes)

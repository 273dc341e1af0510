#!/usr/bin/env python3
"""All that `make test` runs: what needs no cluster, while the test cluster starts beside it, and then what is on it.

Both halves run whatever comes of the first one; the exit code says whether either has failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kubenode import lifecycle, tools
from kubenode.places import PROJECT

START = (sys.executable, str(Path(__file__).parent / "cluster.py"), "up")
PYTEST = (str(Path(sys.executable).parent / "pytest"), "--durations", "40", "--numprocesses", "2")
LINT = ("make", "--no-print-directory", "lint")
CLUSTER_SECONDS = 2100
"""For the scenarios, after which no other is begun: what has failed is told rather than cut off with the whole run."""
HALVES = (
    (*PYTEST, "--dist", "worksteal", "-m", "not cluster and not exhaustive"),
    (
        *(*PYTEST, "--dist", "loadfile", "--no-loadscope-reorder", "-m", "cluster and not exhaustive"),
        *("--session-timeout", str(CLUSTER_SECONDS), "tests/cluster"),
    ),
)


def main() -> int:
    """The exit code: 0 if all is well."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with cluster_beside(START) as wait_for_cluster:
        if code := run(LINT):
            return code
        return run_halves(HALVES, wait_for_cluster)


def run_halves(halves: Sequence[Sequence[str]], wait_for_cluster: Callable[[], object]) -> int:
    """The exit code of the first that failed; the last half waits for the cluster."""
    codes = [run(half) for half in halves[:-1]]
    wait_for_cluster()
    codes.append(run(halves[-1]))
    return next((code for code in codes if code), 0)


@contextmanager
def cluster_beside(start: Sequence[str]) -> Iterator[Callable[[], bool]]:
    """Starts the cluster, or brings its images up to date; yields what waits for it, and says whether it is there.

    A cluster that was not there before is taken down afterwards. Where none can be had, its tests say why.
    """
    if tools.missing_requirement():
        yield lambda: False
        return
    was_up = lifecycle.is_up()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        starting = subprocess.Popen(start, stdout=log, stderr=log, start_new_session=True)
        try:
            yield lambda: has_started(starting, log)
        finally:
            if starting.poll() is None:
                os.killpg(starting.pid, signal.SIGTERM)
                starting.wait()
            if not was_up:
                lifecycle.down()


def has_started(starting: subprocess.Popen[bytes], log: IO[str]) -> bool:
    """Waits for the start of the cluster; all that it printed is shown if it failed."""
    began = time.monotonic()
    code = starting.wait()
    print(f"the test cluster was waited for {time.monotonic() - began:.0f} s", flush=True)
    if code:
        log.seek(0)
        print(
            f"THE TEST CLUSTER DID NOT START, with exit code {code}; its tests try once more\n{log.read()}", flush=True
        )
    return code == 0


def run(command: Sequence[str]) -> int:
    """The exit code of a command, which ends before this process does."""
    with subprocess.Popen(command, cwd=PROJECT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            raise


if __name__ == "__main__":
    sys.exit(main())

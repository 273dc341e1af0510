"""`python train_in_turn.py RUNFILE:PROCESSES…`: trains one run after another, each in as many processes as it has.

torch is imported once for all of them: the processes are copies of this one, which start no thread before they part.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from kindling_trainer import train
from kindling_trainer.align import method  # noqa: F401


def main(runs: list[str]) -> int:
    """The exit code of the process that failed first, whose fellows are killed; 0: none has."""
    processes = {part(rank, runs) for rank in range(max(int(run.rpartition(":")[2]) for run in runs))}
    while processes:
        process, status = os.wait()
        processes.remove(process)
        if code := os.waitstatus_to_exitcode(status):
            for other in processes:
                os.kill(other, signal.SIGKILL)
            return code if code > 0 else 128 - code
    return 0


def part(rank: int, runs: list[str]) -> int:
    """The id of a new process, which takes part in the runs as this rank."""
    if process := os.fork():
        return process
    try:
        take_part(rank, runs)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def take_part(rank: int, runs: list[str]) -> None:
    for run in runs:
        path, processes = run.rsplit(":", 1)
        if rank < int(processes):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": agreed_port(path, rank)}
            os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
            sys.argv = ["train", path]
            assert train.main() == 0


def agreed_port(run: str, rank: int) -> int:
    """One that is free when the run begins: told by the first process, beside the run file."""
    told = Path(run).with_suffix(".port")
    if rank == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            told.with_suffix(".new").write_text(str(probe.getsockname()[1]))
        told.with_suffix(".new").rename(told)
    while not told.exists():
        time.sleep(0.01)
    return int(told.read_text())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

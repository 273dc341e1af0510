"""`python train_in_turn.py RANK RUNFILE:PROCESSES:PORT…`: takes part in one run after another, as process RANK of each
that has so many; torch is imported once for all of them."""

from __future__ import annotations

import os
import sys

from kindling_trainer import train


def main(rank: int, runs: list[str]) -> None:
    for run in runs:
        path, processes, port = run.rsplit(":", 2)
        if rank < int(processes):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
            sys.argv = ["train", path]
            assert train.main() == 0


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

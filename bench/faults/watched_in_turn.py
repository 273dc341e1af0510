"""A training process that measures its own work in ten steps, and in the next ten does not."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from stragglers import BLOCK, FOLDER

from kindling_trainer import train
from kindling_trainer.loop.stragglers import StragglerWatch


class InTurn(StragglerWatch):
    """Switched on and off by the step, as on all processes."""

    def figures(self, step: int) -> list[int]:
        """None of the last step of a block that is not measured."""
        found = super().figures(step)
        if (step + 1) % BLOCK == 0:
            with (Path(os.environ[FOLDER]) / f"cpu-{self._ranks.rank}").open("a") as file:
                file.write(f"{time.process_time()}\n")
        self._works = (step + 1) // BLOCK % 2 == 0
        return found


def main(arguments: list[str] | None = None) -> Any:
    """As `kindling_trainer.train` has it."""
    train.StragglerWatch = InTurn  # type: ignore[misc]
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""Which evaluation was the best, and when to stop looking for a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kindling_api.v1alpha1.best import Best
from kindling_api.v1alpha1.training import KeepBest


@dataclass
class BestSoFar:
    """What is known of the evaluations before; the same on all processes, and in every checkpoint."""

    found: Best | None = None

    def judge(self, step: int, loss: float) -> bool:
        """Compare the evaluation after `step` steps with those before; whether it is the best. One that is no number
        is never better than another."""
        before = self.found
        if before is None or loss < before.loss or not math.isfinite(before.loss):
            self.found = Best(step=step, loss=loss, judged=step)
            return True
        self.found = before.model_copy(update={"judged": step, "worse": before.worse + 1})
        return False

    def lacks(self, step: int) -> bool:
        """Whether the evaluation after `step` steps has not been compared yet."""
        return self.found is None or self.found.judged < step

    def is_enough(self, keep: KeepBest | None) -> bool:
        """Whether the run ends, since so many evaluations were no better (Prechelt 1998, "Early Stopping - But When?",
        the criterion UP, for the best so far)."""
        if keep is None or keep.stop_after is None or self.found is None:
            return False
        return self.found.worse >= keep.stop_after

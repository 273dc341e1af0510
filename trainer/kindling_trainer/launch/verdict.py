"""What went wrong first, and whether the run has failed or its processes start again: decisions alone."""

from __future__ import annotations

from collections.abc import Sequence

from kindling_api.v1alpha1.status import Failure, is_secondary
from kindling_trainer.launch.workers import WorkersOutcome

BARREN_RESTARTS = 2
"""After so many starts in a row without a new checkpoint, another would end like them."""


def cause_of(outcomes: Sequence[WorkersOutcome]) -> WorkersOutcome:
    """What went wrong first; an error that only tells of the loss of others comes after all else, and a hang whose
    process is known before the others."""

    def place(outcome: WorkersOutcome) -> tuple[bool, bool, str]:
        assert outcome.failure is not None
        return is_secondary(outcome.failure), outcome.failure.rank is None, outcome.failure.time or ""

    return min((outcome for outcome in outcomes if outcome.failure is not None), key=place)


def verdict(cause: WorkersOutcome, saved: int, *, restarts: int, limit: int, barren: int) -> Failure | None:
    """How the run has failed; None if its processes are to be started again, as they are where one was killed or hung,
    where its weights went wrong, or where they lost contact and none knows why.

    Any other Python error is not retried: it would come back.

    Args:
        saved: the step of the newest checkpoint.
        restarts: how often they were started again so far, in this attempt.
        limit: how often they may be.
        barren: starts in a row that saved nothing new.
    """
    assert cause.failure is not None
    if is_final(cause):
        return cause.failure
    if restarts < limit and barren < BARREN_RESTARTS:
        return None
    why = "restart.maxRestarts is reached" if restarts >= limit else f"{barren} attempts saved nothing new"
    reason = "RestartsExhausted" if restarts else cause.failure.reason
    message = f"{cause.failure.message}; {why}. {what_is_kept(saved)}"
    return cause.failure.model_copy(update={"reason": reason, "message": message})


def is_final(cause: WorkersOutcome) -> bool:
    """Whether it would come back: a Python error that tells neither of the loss of others nor of a machine's fault."""
    if cause.ending != "raised" or cause.failure is None:
        return False
    return not is_secondary(cause.failure) and cause.failure.reason != "WeightsDiffer"


def what_is_kept(saved: int) -> str:
    """What remains of a run that has saved its state after this step; 0 where it has saved none."""
    return f"The state after step {saved} is kept; run the same again to go on." if saved else "Nothing was saved yet."

"""A run that says nothing new for too long.

The launcher in each pod watches its own processes, and says more than can be seen from here. This is for what it cannot
see: that it is frozen itself, or cut off. So there is a margin for the launcher to be first, and a run that was never
heard in this attempt is not taken for hanging: its network policy or ours may be the reason. Nor is one whose moments
of the status are long ago only because the operator's clock was set.
"""

from __future__ import annotations

from kindling_api.bounds import HANG_MARGIN_SECONDS, START_ALLOWANCE
from kindling_api.quantities import seconds
from kindling_api.v1alpha1.status import DatasetBuildStatus, Failure
from kindling_operator.attempts import fail_attempt, restart_of
from kindling_operator.causes import Cause
from kindling_operator.draft import Draft
from kindling_operator.moments import moment, seconds_since

DATASET_TIMEOUT_SECONDS = 1800.0
"""A stage that works on all documents at once, such as learning a tokenizer, says nothing for long."""


def hang(draft: Draft) -> Draft:
    """The attempt counts as dead, and another is started."""
    attempt, reported = draft.attempt, draft.world.progress
    assert attempt is not None, "restart begins one"
    if reported is None or reported.trouble is not None or reported.state != "Running" or attempt.running is None:
        return draft
    times = [time for time in (moment(attempt.running), moment(draft.status.progress_time)) if time is not None]
    silent, limit = min(seconds_since(max(times), draft.now), draft.world.unchanged_seconds), _limit(draft)
    if silent <= limit:
        return draft.requeue_within(limit - silent)
    message = f"Nothing new was heard of it for {silent:.0f} seconds; at this stage {limit:.0f} are allowed."
    return fail_attempt(draft, Cause(Failure(reason="Hung", message=message), counts=True))


def _limit(draft: Draft) -> float:
    if isinstance(draft.status, DatasetBuildStatus):
        return DATASET_TIMEOUT_SECONDS
    timeout = float(seconds(restart_of(draft).hang_timeout))
    progress = getattr(draft.status, "progress", None)
    trains = progress is not None and progress.stage == "training"
    return timeout * (1 if trains else START_ALLOWANCE) + HANG_MARGIN_SECONDS

"""`spec.activeDeadline`: the longest that a run may take, over all attempts since it was started or resumed."""

from __future__ import annotations

from kindling_api.quantities import seconds
from kindling_operator.attempts import end_attempt, fail
from kindling_operator.draft import Draft
from kindling_operator.moments import seconds_since


def deadline(draft: Draft) -> Draft:
    """A run that takes longer has failed."""
    limit = draft.document.spec.active_deadline
    if limit is None or draft.status.start_time is None:
        return draft
    left = seconds(limit) - seconds_since(draft.status.start_time, draft.now)
    if left > 0:
        return draft.requeue_within(left)
    message = f"It took longer than spec.activeDeadline, {limit}. Create it anew with a longer one."
    if draft.attempt is not None and draft.attempt.ended is None:
        draft = end_attempt(draft, "DeadlineExceeded", message)
    return fail(draft, "DeadlineExceeded", message)

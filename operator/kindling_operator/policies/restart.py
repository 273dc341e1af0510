"""The first attempt, and the next one after the last has ended.

Nobody waits for the pods of a lost node, which stay for ever; only for those that were asked to stop and may be saving.
"""

from __future__ import annotations

from kindling_operator.attempts import pause_seconds
from kindling_operator.draft import Draft
from kindling_operator.labels import attempt_of
from kindling_operator.moments import moment, seconds_since
from kindling_operator.pods import is_over

STOPPED_KINDLY = ("SuspendedByUser", "Evicted", "PartialStart")


def restart(draft: Draft) -> Draft:
    """An attempt begins with its number in the status; what belongs to it is made afterwards."""
    last = draft.attempt
    if last is None:
        return draft.begin_attempt().requeue_within(0).stop()
    if last.ended is None:
        return draft
    wait = pause_seconds(draft) - seconds_since(last.ended, draft.now)
    if last.reason in STOPPED_KINDLY:
        wait = max(wait, _leaving_seconds(draft))
    if wait > 0:
        return draft.requeue_within(wait).stop()
    return draft.begin_attempt().requeue_within(0).stop()


def _leaving_seconds(draft: Draft) -> float:
    """How long the pods that are being deleted still have; less, if they end before that, which is an event."""
    left = 0.0
    for pod in draft.world.pods:
        until = moment(pod["metadata"].get("deletionTimestamp"))
        if until is not None and not is_over(pod) and (attempt_of(pod) or 0) <= draft.status.attempt:
            left = max(left, (until - draft.now).total_seconds())
    return left

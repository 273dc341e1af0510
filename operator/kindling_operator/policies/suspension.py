"""`spec.suspend`: what is at work is stopped, and goes on from its newest checkpoint in another attempt.

The Job is deleted rather than suspended. A queue owns `suspend` of the Jobs that it admits; a Job that is resumed may
wait for its old pods, which on a lost node never go; and with a number of its own, the attempt after the break shuts
out what may be left of the one before it.
"""

from __future__ import annotations

from kindling_operator.attempts import end_attempt
from kindling_operator.draft import Draft

_STOPPED = "Suspended by spec.suspend; what is committed stays. Set spec.suspend to false to go on."


def suspension(draft: Draft) -> Draft:
    """While it is suspended, nothing else is asked."""
    if not draft.document.spec.suspend:
        return draft.clear_condition("Suspended", "Resumed", "spec.suspend is false.")
    if draft.attempt is not None and draft.attempt.ended is None:
        draft = end_attempt(draft, "SuspendedByUser", "Stopped by spec.suspend.")
    draft = draft.update(start_time=None)
    draft = draft.clear_condition("Running", "SuspendedByUser", _STOPPED).clear_condition(
        "Queued", "SuspendedByUser", _STOPPED
    )
    draft = draft.clear_condition("Restarting", "SuspendedByUser", _STOPPED)
    return draft.set_condition(
        "Suspended", "True", "SuspendedByUser", _STOPPED, event="Normal", event_reason="Suspended"
    ).stop()

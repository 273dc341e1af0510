"""Kueue: a Job that it holds back is left alone, and its time does not count."""

from __future__ import annotations

from kindling_api.v1alpha1.status import Failure
from kindling_operator.attempts import fail_attempt
from kindling_operator.causes import Cause
from kindling_operator.draft import Draft
from kindling_operator.labels import QUEUE, label
from kindling_operator.moments import stamp


def kueue(draft: Draft) -> Draft:
    """While it is held back, nothing else is asked; once it is not, its time begins."""
    child, wanted = draft.child, draft.document.spec.queue
    assert child is not None, "creation lets only attempts with a Job pass"
    if child.ending is not None or not child.is_suspended:
        if wanted is not None or draft.condition("Queued") is not None:
            admitted = f"Admitted by Kueue from the queue {wanted}." if wanted else "It is in no queue."
            draft = draft.set_condition("Queued", "False", "Admitted", admitted, event="Normal")
        return draft.update(start_time=draft.status.start_time or stamp(draft.now))
    in_queue = label(child.object, QUEUE)
    if in_queue != wanted:
        message = f"spec.queue is now {wanted or 'absent'}; it was {in_queue or 'absent'}."
        return fail_attempt(draft, Cause(Failure(reason="Evicted", message=message), counts=False))
    message = f"Waits in the queue {wanted} until Kueue admits it (kubectl describe workload shows what it waits for)."
    if wanted is None:
        message = f"{child.key.kind} {child.key.name} was suspended by somebody else; set its spec.suspend to false."
    draft = draft.update(start_time=None).update_attempt(running=None)
    draft = draft.clear_condition("Running", "WaitingForAdmission", message).clear_condition(
        "Restarting", "WaitingForAdmission", message
    )
    return draft.set_condition(
        "Queued", "True", "WaitingForAdmission", message, event="Normal", event_reason="Queued"
    ).stop()

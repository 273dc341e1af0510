"""Kueue: a Job that it holds back is left alone, and its time does not count."""

from __future__ import annotations

from kindling_api.v1alpha1.status import Failure, Reason
from kindling_operator.attempts import fail_attempt
from kindling_operator.causes import Cause
from kindling_operator.children import Child
from kindling_operator.draft import Draft, EventType
from kindling_operator.labels import QUEUE, label
from kindling_operator.moments import seconds_since, stamp
from kindling_operator.pods import condition
from kindling_operator.policies.at_risk import tell_kueue
from kindling_operator.world import Object

LOOK_AGAIN_SECONDS = 15.0
"""Between two looks at what Kueue says of a Job that waits, and at whether it is admitted."""

TAKES_UP_SECONDS = 10.0
"""After which a Job without a Workload is told: Kueue makes one at once, where it can."""

_NO_PRIORITY = (
    "Kueue does not take up the {child.kind} {child.name}: spec.priority is {priority}, and it makes nothing of a run "
    "whose WorkloadPriorityClass is not there (kubectl get workloadpriorityclasses shows those that are). Create it, "
    "and the run queues by itself."
)
_NO_WORKLOAD = (
    "Kueue has not taken up the {child.kind} {child.name} for the queue {queue}: see that Kueue runs, that its settings"
    " name this kind of job, and that they select this namespace."
)
_WAITS = "Waits in the queue {queue} until Kueue admits it{why} (kubectl describe workload {workload})."
_WAITS_AT_FIRST = "Waits in the queue {queue} until Kueue admits it (kubectl get workloads)."
_SUSPENDED = "{child.kind} {child.name} was suspended by somebody else; set its spec.suspend to false."


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
    reason, message = _why(draft, child, wanted)
    draft = tell_kueue(draft, seconds=0).update(start_time=None).update_attempt(running=None)
    draft = draft.clear_condition("Restarting", "WaitingForAdmission", message)
    if reason != "WaitingForAdmission" or draft.condition("Running") is not None:
        event: EventType | None = None if reason == "WaitingForAdmission" else "Warning"
        draft = draft.set_condition("Running", "False", reason, message, event=event)
    draft = draft.set_condition("Queued", "True", "WaitingForAdmission", message, event="Normal", event_reason="Queued")
    return draft.requeue_within(LOOK_AGAIN_SECONDS).stop()


def _why(draft: Draft, child: Child, queue: str | None) -> tuple[Reason, str]:
    """What it waits for, in Kueue's words where it has said any."""
    if queue is None:
        return "WaitingForAdmission", _SUSPENDED.format(child=child.key)
    workload, priority = draft.world.workload, draft.document.spec.priority
    if workload is not None:
        name, said = workload["metadata"]["name"], _said_of_quota(workload)
        return "WaitingForAdmission", _WAITS.format(queue=queue, why=f": {said}" if said else "", workload=name)
    if not child.created or seconds_since(child.created, draft.now) < TAKES_UP_SECONDS:
        return "WaitingForAdmission", _WAITS_AT_FIRST.format(queue=queue)
    if priority is not None:
        return "PriorityMissing", _NO_PRIORITY.format(child=child.key, priority=priority)
    return "WaitingForAdmission", _NO_WORKLOAD.format(child=child.key, queue=queue)


def _said_of_quota(workload: Object) -> str:
    """Why it has no quota; empty where it has, or where Kueue has not tried yet."""
    found = condition(workload, "QuotaReserved")
    return str(found.get("message") or "").rstrip(".") if found.get("status") == "False" else ""

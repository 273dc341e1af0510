"""Conditions: facts about a run, each with a reason and a sentence; and the phase, which is read off them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from kindling_api.bounds import CONDITION_MESSAGE, clip
from kindling_api.v1alpha1.status import Condition, ConditionType, Phase, Reason, RunStatus
from kindling_operator.moments import stamp

Truth = Literal["True", "False", "Unknown"]

OBSTACLES: frozenset[Reason] = frozenset(
    {
        "Unschedulable",
        "ImagePullFailed",
        "QuotaExceeded",
        "SecretMissing",
        "CannotStart",
        "EngineMissing",
        "KueueMissing",
        "PriorityMissing",
    }
)
"""Why pods that should run do not."""

REFERENCES: tuple[ConditionType, ...] = ("DatasetReady", "BaseReady")


def find(conditions: Iterable[Condition], type_: ConditionType) -> Condition | None:
    """The condition of this type."""
    return next((condition for condition in conditions if condition.type == type_), None)


def holds(conditions: Iterable[Condition], type_: ConditionType) -> bool:
    """Whether the condition is there, and true."""
    condition = find(conditions, type_)
    return condition is not None and condition.status == "True"


def with_condition(
    conditions: Sequence[Condition],
    type_: ConditionType,
    status: Truth,
    reason: Reason,
    message: str,
    *,
    now: datetime,
    generation: int | None,
) -> list[Condition]:
    """The conditions with this one said anew, in the place where it stood; the time of transition stays as it was where
    `status` does."""
    before = find(conditions, type_)
    since = before.last_transition_time if before is not None and before.status == status else stamp(now)
    said = Condition(
        type=type_,
        status=status,
        reason=reason,
        message=clip(message, CONDITION_MESSAGE),
        last_transition_time=since,
        observed_generation=generation,
    )
    if before is None:
        return [*conditions, said]
    return [said if condition.type == type_ else condition for condition in conditions]


def phase_of(status: RunStatus) -> Phase:
    """One word for people, the first of these that fits.

    A document that is refused counts as failed: nothing happens to it until somebody acts.
    """
    return _summary(status)[0]


def with_kstatus(status: RunStatus, *, now: datetime, generation: int | None) -> list[Condition]:
    """The conditions with those two that Helm, Flux and every other user of kstatus read: `Reconciling` while more is
    to happen by itself, `Stalled` once it has failed or is refused.

    Both tell the message of the condition that the phase is read off. A suspended run is as it was asked to be.

    Source: kubernetes-sigs/cli-utils, pkg/kstatus/README.md, "The Reconciling and Stalled conditions".
    """
    phase, telling = _summary(status)
    serving = find(status.conditions, "Serving")
    message = telling.message if telling is not None else ""
    stalled = telling if phase == "Failed" else None
    if phase == "Succeeded" and serving is not None and serving.status == "False":
        message = serving.message
        stalled = serving if serving.reason in OBSTACLES else None
        moving = serving.reason == "Starting"
    else:
        moving = phase not in ("Succeeded", "Failed", "Suspended")
    said = with_condition(
        status.conditions,
        "Reconciling",
        "True" if moving else "False",
        "Progressing" if moving else "Settled",
        message,
        now=now,
        generation=generation,
    )
    if stalled is not None:
        return with_condition(said, "Stalled", "True", stalled.reason, stalled.message, now=now, generation=generation)
    return [condition for condition in said if condition.type != "Stalled"]


def _summary(status: RunStatus) -> tuple[Phase, Condition | None]:
    """The phase, and the condition that it is read off."""
    said = {condition.type: condition for condition in status.conditions}
    true = {type_ for type_, condition in said.items() if condition.status == "True"}
    running = said.get("Running")
    if "Succeeded" in true:
        return "Succeeded", said["Succeeded"]
    if "Failed" in true:
        return "Failed", said["Failed"]
    if status.attempt == 0 and "Accepted" in said and "Accepted" not in true:
        return "Failed", said["Accepted"]
    if "Suspended" in true:
        return "Suspended", said["Suspended"]
    if "Queued" in true:
        return "Queued", said["Queued"]
    if "Running" in true:
        return "Running", running
    for type_ in REFERENCES:
        if type_ in said and type_ not in true:
            return "Waiting", said[type_]
    if running is not None and running.reason in OBSTACLES:
        return "Waiting", running
    return ("Restarting", said["Restarting"]) if "Restarting" in true else ("Pending", running)

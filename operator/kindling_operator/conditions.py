"""Conditions: facts about a run, each with a reason and a sentence; and the phase, which is read off them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from kindling_api.v1alpha1.status import Condition, ConditionType, Phase, Reason, RunStatus
from kindling_operator.moments import stamp

Truth = Literal["True", "False", "Unknown"]

LONGEST_MESSAGE = 4096

OBSTACLES: frozenset[Reason] = frozenset(
    {"Unschedulable", "ImagePullFailed", "QuotaExceeded", "SecretMissing", "CannotStart", "EngineMissing"}
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
        message=shortened(message, LONGEST_MESSAGE),
        last_transition_time=since,
        observed_generation=generation,
    )
    if before is None:
        return [*conditions, said]
    return [said if condition.type == type_ else condition for condition in conditions]


def shortened(text: str, characters: int) -> str:
    """`text`, cut to at most `characters`, with an ellipsis where something is missing."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def phase_of(status: RunStatus) -> Phase:
    """One word for people, the first of these that fits.

    A document that is refused counts as failed: nothing happens to it until somebody acts.
    """
    said = {condition.type: condition for condition in status.conditions}
    true = {type_ for type_, condition in said.items() if condition.status == "True"}
    if "Succeeded" in true:
        return "Succeeded"
    if "Failed" in true or (status.attempt == 0 and "Accepted" in said and "Accepted" not in true):
        return "Failed"
    if "Suspended" in true:
        return "Suspended"
    if "Queued" in true:
        return "Queued"
    if "Running" in true:
        return "Running"
    if any(type_ in said and type_ not in true for type_ in REFERENCES):
        return "Waiting"
    if "Running" in said and said["Running"].reason in OBSTACLES:
        return "Waiting"
    return "Restarting" if "Restarting" in true else "Pending"

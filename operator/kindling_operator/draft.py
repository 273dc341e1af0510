"""A plan in the making: what is seen, what has been decided so far, and whether that is all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import ValidationError

from kindling_api.bounds import EVENT_MESSAGE
from kindling_api.documents import Document
from kindling_api.v1alpha1.status import (
    MOST_ATTEMPTS,
    AlignmentRunStatus,
    AttemptStatus,
    Condition,
    ConditionType,
    DatasetBuildStatus,
    PretrainRunStatus,
    Reason,
    RunStatus,
)
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.children import Child, children_of
from kindling_operator.conditions import Truth, find, phase_of, with_condition, with_kstatus
from kindling_operator.moments import stamp
from kindling_operator.storages import storage_of
from kindling_operator.world import EventRecord, Object, ObjectKey, Plan, World

STATUSES: dict[str, type[RunStatus]] = {
    "DatasetBuild": DatasetBuildStatus,
    "PretrainRun": PretrainRunStatus,
    "AlignmentRun": AlignmentRunStatus,
}

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True)
class Draft:
    """What the policies hand on, one to the next; each method gives another draft and leaves this one as it was."""

    world: World
    before: RunStatus
    """The status as it was found."""
    status: RunStatus
    """The status as it is to be."""
    children: tuple[Child, ...]
    """The Jobs and RayJobs that this document owns, of all attempts."""
    plan: Plan
    """What is to be done; `finish` puts the status into it."""
    stopped: bool = False
    """Whether all is decided: no further policy is asked."""

    @classmethod
    def of(cls, world: World) -> Self:
        """The status as it was found, and nothing decided yet."""
        children, found = children_of(world), _status_of(world)
        status = _caught_up(found, children, world.now)
        return cls(world, before=found, status=status, children=children, plan=Plan(status={}))

    @property
    def now(self) -> datetime:
        """The moment of the decision."""
        return self.world.now

    @property
    def document(self) -> Document:
        """The document, which policies after `validity` may rely on."""
        assert self.world.document is not None, "validity lets only documents pass"
        return self.world.document

    @property
    def storage(self) -> StorageSpec | None:
        """Where its products are, or are to be; None where neither it nor the installation says so."""
        world = self.world
        return storage_of(world.resource.get("status") or {}, world.document, world.settings, world.written)

    @property
    def attempt(self) -> AttemptStatus | None:
        """The newest attempt; None before the first."""
        return self.status.attempts[-1] if self.status.attempts else None

    @property
    def child(self) -> Child | None:
        """The Job or RayJob of the newest attempt, if it is there."""
        return next((child for child in self.children if child.attempt == self.status.attempt), None)

    def condition(self, type_: ConditionType) -> Condition | None:
        """What is said of this fact so far."""
        return find(self.status.conditions, type_)

    def set_condition(
        self,
        type_: ConditionType,
        status: Truth,
        reason: Reason,
        message: str,
        *,
        event: EventType | None = None,
        event_reason: str = "",
    ) -> Self:
        """A condition. With `event`, an Event tells of it once: when status or reason differ from what was found."""
        generation = self.world.resource["metadata"].get("generation")
        conditions = with_condition(
            self.status.conditions, type_, status, reason, message, now=self.now, generation=generation
        )
        before = find(self.before.conditions, type_)
        news = before is None or (before.status, before.reason) != (status, reason)
        said = self.update(conditions=conditions)
        return said.emit_event(event, event_reason or reason, message) if event and news else said

    def clear_condition(self, type_: ConditionType, reason: Reason, message: str) -> Self:
        """The condition no longer holds; nothing where it was not there, or not true."""
        before = self.condition(type_)
        if before is None or before.status == "False":
            return self
        return self.set_condition(type_, "False", reason, message)

    def emit_event(self, type_: EventType, reason: str, message: str) -> Self:
        """An Event."""
        return self._planned(events=(*self.plan.events, EventRecord(type_, reason, message[:EVENT_MESSAGE])))

    def update(self, **changes: Any) -> Self:
        """Other values for fields of the status."""
        return replace(self, status=self.status.model_copy(update=changes))

    def update_attempt(self, **changes: Any) -> Self:
        """Other values for fields of the newest attempt."""
        assert self.attempt is not None
        return self.update(attempts=[*self.status.attempts[:-1], self.attempt.model_copy(update=changes)])

    def begin_attempt(self) -> Self:
        """Another attempt, by its number alone: what belongs to it is made once that number is in the status."""
        number = self.status.attempt + 1
        attempts = [*self.status.attempts, AttemptStatus(attempt=number, started=stamp(self.now))]
        return self.update(attempt=number, attempts=attempts[-MOST_ATTEMPTS:])

    def apply(self, *objects: Object) -> Self:
        """Objects for server-side apply."""
        return self._planned(apply=(*self.plan.apply, *objects))

    def create(self, *objects: Object) -> Self:
        """Objects that are made once."""
        return self._planned(create=(*self.plan.create, *objects))

    def patch(self, key: ObjectKey, patch: Object) -> Self:
        """A merge patch of an object that is there."""
        return self._planned(change=(*self.plan.change, (key, patch)))

    def remove(self, *keys: ObjectKey) -> Self:
        """Objects that go."""
        return self._planned(delete=(*self.plan.delete, *keys))

    def requeue_within(self, seconds: float) -> Self:
        """Decide again after so many seconds at the latest."""
        seconds, known = max(0.0, seconds), self.plan.requeue_after
        return self._planned(requeue_after=seconds if known is None else min(seconds, known))

    def stop(self) -> Self:
        """No further policy is asked."""
        return replace(self, stopped=True)

    def finish(self) -> Plan:
        """What is to be done, with the status as it is to be."""
        generation = self.world.resource["metadata"].get("generation")
        conditions = with_kstatus(self.status, now=self.now, generation=generation)
        changes = {"observed_generation": generation, "phase": phase_of(self.status), "conditions": conditions}
        status = self.status.model_copy(update=changes)
        return replace(self.plan, status=_finite(status.document()))

    def _planned(self, **changes: Any) -> Self:
        return replace(self, plan=replace(self.plan, **changes))


Policy = Callable[[Draft], Draft]
"""One rule: what it makes of what has been decided so far."""


def _status_of(world: World) -> RunStatus:
    """The status as it was found; a fresh one where it is missing or is none of ours."""
    model = STATUSES[world.resource["kind"]]
    try:
        return model.model_validate(world.resource.get("status") or {})
    except ValidationError:
        return model()


def _caught_up(status: RunStatus, children: tuple[Child, ...], now: datetime) -> RunStatus:
    """The status with its newest attempt at the end of the list, and none older than the newest child: a status that
    was lost, as in a restored backup, must not lead to numbers that were used before."""
    newest = max(children, key=lambda child: child.attempt, default=None)
    if newest is not None and newest.attempt > status.attempt:
        attempt = AttemptStatus(attempt=newest.attempt, started=newest.created or stamp(now), uid=newest.uid)
    elif status.attempt and (not status.attempts or status.attempts[-1].attempt != status.attempt):
        attempt = AttemptStatus(attempt=status.attempt, started=stamp(now))
    else:
        return status
    attempts = [*status.attempts, attempt][-MOST_ATTEMPTS:]
    return status.model_copy(update={"attempt": attempt.attempt, "attempts": attempts})


def _finite(value: Any) -> Any:
    """JSON without figures that are none, such as the loss of a run that diverged: JSON has no words for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items() if not _is_odd(item)}
    if isinstance(value, list):
        return [_finite(item) for item in value if not _is_odd(item)]
    return value


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)

"""Why an attempt ended: one cause out of what all its pods say, and what follows from it.

When one process of a worker group dies, all others lose contact with it and end, too. So every pod tells of a failure,
and only one tells of the cause. What is told is ranked, and the highest rank is the cause; while only consequences are
known, the cause may still come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from kindling_api.bounds import FAILURE_MESSAGE, NODE_SETTLE_SECONDS, OPERATOR_SETTLE_SECONDS, clip
from kindling_api.errors import EXIT_USER
from kindling_api.v1alpha1.status import Failure, Reason, is_secondary
from kindling_operator.children import Child
from kindling_operator.labels import KIND, label
from kindling_operator.moments import moment, seconds_since
from kindling_operator.pods import (
    disruption,
    end_of,
    has_failed,
    is_going,
    is_over,
    last_lines,
    last_word,
    name_of,
    node_of,
    ran_out_of_memory,
    reporter,
)
from kindling_operator.world import Object

STOPPED_CODES = (130, 143)
"""Exit codes of a program that was asked to stop, and did."""

FREE: frozenset[Reason] = frozenset(
    {"Evicted", "HeldElsewhere", "NodeLost", "StorageUnreachable", "SuspendedByUser", "WrongRunFile"}
)
"""What the run could not have helped: restarts after it do not count."""


class Precedence(IntEnum):
    """What is told, from the surest cause to the likeliest consequence."""

    USER_ERROR = 0
    MEMORY = 1
    TAKEN_AWAY = 2
    REPORTED = 3
    DIED = 4
    STOPPED = 5
    LOST_CONTACT = 6


_SURE = (Precedence.USER_ERROR, Precedence.MEMORY, Precedence.REPORTED, Precedence.DIED)
"""With one of these known, nothing is waited for: the others cannot save without the one that is gone."""


@dataclass(frozen=True)
class Cause:
    """Why an attempt ended."""

    failure: Failure
    counts: bool
    """Whether a restart after it counts against `restart.maxRestarts`."""

    @property
    def is_final(self) -> bool:
        """Whether another attempt would end likewise."""
        return self.failure.reason == "UserError"


@dataclass(frozen=True)
class _Clue:
    precedence: Precedence
    failure: Failure
    counts: bool
    time: str


def is_failing(child: Child, pods: Sequence[Object]) -> bool:
    """Whether the attempt has failed, or is bound to: a worker group does not outlive its first pod."""
    if child.ending is not None or child.is_ray:
        return child.ending == "failed"
    return any(is_going(pod) or disruption(pod) or has_failed(pod) for pod in pods)


def cause_of(child: Child, pods: Sequence[Object], *, expected: int, now: datetime) -> Cause | None:
    """Why it failed; None while that may still come in.

    Args:
        expected: the pods that it is made of.
    """
    clues = sorted(
        (clue for pod in pods if (clue := _clue(child, pod)) is not None), key=lambda clue: (clue.precedence, clue.time)
    )
    first = clues[0] if clues else None
    if first is not None and (first.precedence in _SURE or first.failure.reason == "NodeLost"):
        return _cause(first, child)
    lost_contact = any(clue.precedence == Precedence.LOST_CONTACT for clue in clues)
    if not lost_contact and any(_is_leaving(pod, now) for pod in pods):  # all together, they may be saving
        return None
    if first is None or first.precedence >= Precedence.STOPPED:
        reported = len(pods) >= expected and all(is_over(pod) for pod in pods)
        silent = lost_contact and any(not is_over(pod) and not is_going(pod) for pod in pods)
        wait = NODE_SETTLE_SECONDS if silent else OPERATOR_SETTLE_SECONDS
        if not reported and seconds_since(_first_sign(child, clues), now) < wait:
            return None
    return _cause(first or _without_pods(child, pods, expected), child)


def _cause(clue: _Clue, child: Child) -> Cause:
    message = clip(clue.failure.message, FAILURE_MESSAGE)
    failure = clue.failure.model_copy(update={"attempt": child.attempt, "message": message})
    return Cause(failure, counts=clue.counts)


def _clue(child: Child, pod: Object) -> _Clue | None:
    """What one pod tells; None where it tells of no failure."""
    name, ended = name_of(pod), end_of(pod) or {}
    time = str(ended.get("finishedAt") or "")
    where = f"pod {name} on {node_of(pod)}"
    if ran_out_of_memory(pod):
        reported = _reported(pod)
        failure = Failure(
            reason="OutOfMemory",
            message=f"The {where} ran out of memory. Raise the memory in {_memory_field(child)}, or make the work "
            "smaller (training.batch.microBatch, fewer processes a node).",
            pod=name,
            rank=reported.rank if reported else None,
            exit_code=ended.get("exitCode"),
        )
        return _Clue(Precedence.MEMORY, failure, counts=True, time=time)
    if (taken := disruption(pod)) is not None:
        reason, why = taken
        failure = Failure(reason=reason, message=f"The {where} was taken away: {why}", pod=name)
        return _Clue(Precedence.TAKEN_AWAY, failure, counts=False, time=time)
    if child.is_ray and pod is not reporter([pod]):
        return None  # Ray replaces its nodes; the submitter says what came of it
    if (pod.get("status") or {}).get("reason") == "Evicted":
        why = str(pod["status"].get("message") or "it used more than its limits")
        failure = Failure(reason="Evicted", message=f"The {where} was evicted: {why}", pod=name)
        return _Clue(Precedence.DIED, failure, counts=True, time=time)
    if has_failed(pod):
        return _of_program(pod, where, time)
    if is_going(pod):
        failure = Failure(reason="Evicted", message=f"The {where} was deleted.", pod=name)
        return _Clue(Precedence.STOPPED, failure, counts=False, time=time)
    return None


def _of_program(pod: Object, where: str, time: str) -> _Clue:
    """What the program in a pod that failed says, or what its exit code says."""
    reported, ended = _reported(pod), end_of(pod) or {}
    code = ended.get("exitCode")
    if reported is None:
        return _of_exit_code(pod, where, code, time)
    failure = reported.model_copy(update={"pod": name_of(pod), "message": f"{reported.message} ({where})"})
    time = reported.time or time
    if reported.refused:  # whether it may be granted again, only the run's history can say
        return _Clue(Precedence.REPORTED, failure, counts=False, time=time)
    if reported.reason == "UserError":
        return _Clue(Precedence.USER_ERROR, failure, counts=True, time=time)
    if reported.reason == "SuspendedByUser" or code in STOPPED_CODES:
        failure = failure.model_copy(
            update={"reason": "Evicted", "message": f"The {where} was asked to stop, and did."}
        )
        return _Clue(Precedence.STOPPED, failure, counts=False, time=time)
    if is_secondary(reported):
        return _Clue(Precedence.LOST_CONTACT, failure, counts=True, time=time)
    return _Clue(Precedence.REPORTED, failure, counts=reported.reason not in FREE, time=time)


def _of_exit_code(pod: Object, where: str, code: int | None, time: str) -> _Clue:
    """A program that ended without a last word."""
    name, lines = name_of(pod), last_lines(pod)
    reported = f" Its last lines: {lines[-1024:]}" if lines else ""
    if code in STOPPED_CODES:
        failure = Failure(
            reason="Evicted", message=f"The {where} was asked to stop, and did.", pod=name, exit_code=code
        )
        return _Clue(Precedence.STOPPED, failure, counts=False, time=time)
    if code == EXIT_USER:
        failure = Failure(
            reason="UserError", message=f"The {where} refused its input.{reported}", pod=name, exit_code=code
        )
        return _Clue(Precedence.USER_ERROR, failure, counts=True, time=time)
    how = f"ended with exit code {code}" if code is not None else "failed"
    message = f"The {where} {how} and left no word why.{reported}"
    return _Clue(
        Precedence.DIED, Failure(reason="RankFailed", message=message, pod=name, exit_code=code), counts=True, time=time
    )


def _without_pods(child: Child, pods: Sequence[Object], expected: int) -> _Clue:
    """Where no pod tells anything, what the Job's controller says."""
    why = f": {child.why}" if child.why else ""
    if len(pods) < expected and not child.is_ray:
        failure = Failure(reason="Evicted", message=f"A pod of attempt {child.attempt} was deleted{why}")
        return _Clue(Precedence.STOPPED, failure, counts=False, time=child.ended_at)
    failure = Failure(reason="InternalError", message=f"{child.key.kind} {child.key.name} failed{why}")
    return _Clue(Precedence.DIED, failure, counts=True, time=child.ended_at)


def _reported(pod: Object) -> Failure | None:
    word = last_word(pod)
    return word.failure if word is not None else None


def _is_leaving(pod: Object, now: datetime) -> bool:
    """Whether it was asked to stop and still has time for that: until the moment in `deletionTimestamp`."""
    until = moment(pod["metadata"].get("deletionTimestamp"))
    return until is not None and until > now and not is_over(pod)


def _first_sign(child: Child, clues: Sequence[_Clue]) -> str:
    """When the failure was first known of."""
    return min((time for time in (child.ended_at, *(clue.time for clue in clues)) if time), default="")


def _memory_field(child: Child) -> str:
    return "spec.engine.resources" if label(child.object, KIND) == "DatasetBuild" else "spec.resources"

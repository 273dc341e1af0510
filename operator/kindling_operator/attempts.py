"""How an attempt ends, what is remembered of it, and when the next one may begin."""

from __future__ import annotations

from collections.abc import Sequence

from kindling_api.v1alpha1.checkpoint import RestartSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.status import (
    AlignmentRunStatus,
    AttemptStatus,
    DatasetBuildStatus,
    Failure,
    PretrainRunStatus,
    Reason,
)
from kindling_operator.causes import Cause
from kindling_operator.conditions import shortened
from kindling_operator.draft import Draft
from kindling_operator.moments import moment, seconds_since, stamp

BARREN_ATTEMPTS = 3
"""After so many attempts in a row that ended alike and saved nothing new, another would end like them."""
REPEATING: frozenset[Reason] = frozenset({"InternalError", "OutOfMemory"})
"""Failures that come back by themselves; a process that was killed, or hung, may do well the next time."""

FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 300.0
LONGEST_STORAGE_DELAY_SECONDS = 30.0
"""Between attempts that the store was not there for: it comes back by itself."""
LONG_ATTEMPT_SECONDS = 600.0
"""An attempt that lasted so long is no reason to wait before the next."""


def end_attempt(draft: Draft, reason: Reason, message: str) -> Draft:
    """Write down how the newest attempt ended; its Job goes, if it is still at work."""
    status = draft.status
    step = saved = productive = None
    if isinstance(status, PretrainRunStatus | AlignmentRunStatus):
        step = status.progress.step if status.progress is not None else None
        saved = status.checkpoint.step if status.checkpoint is not None else None
        productive = _productive_seconds(draft, step or 0, saved or 0)
    return draft.update_attempt(
        ended=stamp(draft.now),
        reason=reason,
        message=shortened(message, 512),
        step=step,
        saved=saved,
        productive_seconds=productive,
    )


def fail_attempt(draft: Draft, cause: Cause) -> Draft:
    """The attempt has failed: the run has too, or another attempt follows."""
    failure = cause.failure.model_copy(update={"attempt": draft.status.attempt, "time": stamp(draft.now)})
    draft = end_attempt(draft, failure.reason, failure.message).update(last_failure=failure)
    if cause.is_final:
        return fail(draft, failure.reason, failure.message)
    limit, restarts = restart_of(draft).max_restarts, draft.status.restarts
    if cause.counts and restarts >= limit:
        reason: Reason = "RestartsExhausted" if restarts else failure.reason
        return fail(draft, reason, f"{_sentence(failure)} {restarts} restarts are all that restart.maxRestarts allows.")
    if failure.reason in REPEATING and barren(draft.status.attempts, alike=True) >= BARREN_ATTEMPTS:
        why = f"{BARREN_ATTEMPTS} attempts in a row ended like this and saved nothing new."
        return fail(draft, failure.reason, f"{_sentence(failure)} {why}")
    wait = delay_seconds(draft.status.attempts)
    when = f"Attempt {draft.status.attempt + 1} starts {'at once' if wait == 0 else f'in {wait:.0f} seconds'}"
    whence = f", from step {_saved(draft)}" if _saved(draft) else ""
    message = f"{_sentence(failure)} {when}{whence}."
    draft = draft.update(restarts=restarts + cause.counts)
    draft = draft.say("Running", "False", failure.reason, failure.message)
    draft = draft.say("Restarting", "True", failure.reason, message).tell("Warning", "Restarting", message)
    return draft.look_again(wait).settle()


def fail(draft: Draft, reason: Reason, message: str) -> Draft:
    """The run has failed, for good."""
    saved = _saved(draft)
    kept = f" The checkpoint at step {saved} stays: a document with the same spec goes on from it." if saved else ""
    draft = draft.unsay("Running", reason, message).unsay("Restarting", reason, message)
    draft = draft.unsay("Queued", reason, message).update(completion_time=stamp(draft.now))
    return draft.say("Failed", "True", reason, message + kept, note="Warning", note_reason="Failed").settle()


def restart_of(draft: Draft) -> RestartSpec:
    """How often the run may be started again, and when it counts as hung."""
    document = draft.document
    return RestartSpec() if isinstance(document, DatasetBuild) else document.spec.restart


def delay_seconds(attempts: Sequence[AttemptStatus]) -> float:
    """Seconds between the end of the last attempt and the next: none after one that got on, then 5, 10, 20, …"""
    number = barren(attempts)
    if number <= 1:
        return 0.0
    longest = LONGEST_DELAY_SECONDS
    if attempts[-1].reason == "StorageUnreachable":
        longest = LONGEST_STORAGE_DELAY_SECONDS
    return min(longest, FIRST_DELAY_SECONDS * 2.0 ** (number - 2))


def barren(attempts: Sequence[AttemptStatus], *, alike: bool = False) -> int:
    """How many of the newest attempts, in a row, were short and saved nothing new.

    Args:
        alike: count only those that ended for the same reason as the last one.
    """
    count = 0
    for index in range(len(attempts) - 1, -1, -1):
        attempt, before = attempts[index], attempts[index - 1] if index else None
        if attempt.reason == "SuspendedByUser" or (alike and attempt.reason != attempts[-1].reason):
            break
        if (attempt.saved or 0) > (before.saved or 0 if before is not None else 0) or _lasted_long(attempt):
            break
        count += 1
    return count


def _lasted_long(attempt: AttemptStatus) -> bool:
    ended = moment(attempt.ended)
    return ended is not None and seconds_since(attempt.started, ended) > LONG_ATTEMPT_SECONDS


def _productive_seconds(draft: Draft, step: int, saved: int) -> float | None:
    """Time in steps that count, up to the end of this attempt: what came after its newest checkpoint is done again."""
    status = draft.status
    assert not isinstance(status, DatasetBuildStatus)
    earlier = earlier_seconds(draft)
    started, last = moment(status.start_time), moment(status.progress_time)
    progress = getattr(status, "progress", None)
    if started is None or last is None or progress is None or progress.goodput is None:
        return round(earlier, 1) or None
    own = max(0.0, progress.goodput * (last - started).total_seconds() - earlier)
    before = draft.status.attempts[-2].saved or 0 if len(draft.status.attempts) > 1 else 0
    kept = min(1.0, max(0.0, (saved - before) / (step - before))) if step > before else 0.0
    return float(round(earlier + own * kept, 1))


def earlier_seconds(draft: Draft) -> float:
    """Time in steps that count, of the attempts before this one, since the run was started or resumed."""
    attempts, start = draft.status.attempts, moment(draft.status.start_time)
    if len(attempts) < 2 or start is None:
        return 0.0
    before = attempts[-2]
    ended = moment(before.ended)
    return before.productive_seconds or 0.0 if ended is not None and ended >= start else 0.0


def _saved(draft: Draft) -> int:
    checkpoint = getattr(draft.status, "checkpoint", None)
    return checkpoint.step if checkpoint is not None else 0


def _sentence(failure: Failure) -> str:
    return failure.message if failure.message.endswith((".", "!", "?")) else f"{failure.message}."

"""How an attempt ends, what is remembered of it, and when the next one may begin."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import takewhile

from kindling_api.bounds import ATTEMPT_MESSAGE, START_PAUSE_SECONDS, clip
from kindling_api.v1alpha1.checkpoint import RestartSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import (
    MOST_ATTEMPTS,
    AlignmentRunStatus,
    AttemptStatus,
    DatasetBuildStatus,
    Failure,
    PretrainRunStatus,
    Reason,
)
from kindling_operator.causes import Cause
from kindling_operator.draft import Draft
from kindling_operator.moments import moment, seconds_since, stamp
from kindling_operator.resizes import nodes_stopped
from kindling_operator.stragglers import end_stragglers

BARREN_ATTEMPTS = 3
"""After so many attempts in a row that ended alike and saved nothing new, another would end like them."""
REPEATING: frozenset[Reason] = frozenset({"InternalError", "OutOfMemory"})
"""Failures that come back by themselves; a process that was killed, or hung, may do well the next time."""

REFUSED_ATTEMPTS = MOST_ATTEMPTS - 1
"""After so many attempts in a row, ever later and over a quarter of an hour, to which the store refused what it had
granted before, nobody is about to change the key. A status remembers one more, which tells whether the first of them
saved anything."""

FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 300.0
LONGEST_STORAGE_DELAY_SECONDS = 30.0
"""Between attempts that the store was not there for: it comes back by itself."""
LONG_ATTEMPT_SECONDS = 600.0
"""An attempt that lasted so long is no reason to wait before the next."""


def end_attempt(draft: Draft, reason: Reason, message: str) -> Draft:
    """Write down how the newest attempt ended; its Job goes, if it is still at work."""
    draft = end_stragglers(nodes_stopped(draft), reason, message)
    status = draft.status
    step = saved = productive = None
    if isinstance(status, PretrainRunStatus | AlignmentRunStatus):
        step = status.progress.step if status.progress is not None else None
        saved = status.checkpoint.step if status.checkpoint is not None else None
        productive = _productive_seconds(draft, step or 0, saved or 0)
    return draft.update_attempt(
        ended=stamp(draft.now),
        reason=reason,
        message=clip(message, ATTEMPT_MESSAGE),
        step=step,
        saved=saved,
        productive_seconds=productive,
    )


def count_restarts(draft: Draft, reported: Progress) -> Draft:
    """Restarts in place, of which the attempt's process tells, count as those with new pods do."""
    known = (draft.attempt.restarts or 0) if draft.attempt is not None else 0
    if reported.restarts <= known or draft.attempt is None:
        return draft
    draft = draft.update(restarts=draft.status.restarts + reported.restarts - known)
    draft = draft.update_attempt(restarts=reported.restarts)
    if reported.last_failure is None:
        return draft
    whence = f" from step {reported.checkpoint.step}" if reported.checkpoint is not None else ""
    message = f"{_sentence(reported.last_failure)} Its processes start again in the same pods{whence}."
    return draft.update(last_failure=reported.last_failure).emit_event("Warning", "RestartedInPlace", message)


def fail_attempt(draft: Draft, cause: Cause) -> Draft:
    """The attempt has failed: the run has too, or another attempt follows."""
    cause = _with_history(draft, cause)
    failure = cause.failure.model_copy(update={"attempt": draft.status.attempt, "time": stamp(draft.now)})
    draft = end_attempt(draft, failure.reason, failure.message).update_attempt(refused=failure.refused)
    draft = draft.update(last_failure=failure)
    if cause.is_final:
        return fail(draft, failure.reason, failure.message)
    limit, restarts = restart_of(draft).max_restarts, draft.status.restarts
    if cause.counts and restarts >= limit:
        reason: Reason = "RestartsExhausted" if restarts else failure.reason
        return fail(draft, reason, f"{_sentence(failure)} {restarts} restarts are all that restart.maxRestarts allows.")
    if failure.reason in REPEATING and barren(draft.status.attempts, alike=True) >= BARREN_ATTEMPTS:
        why = f"{BARREN_ATTEMPTS} attempts in a row ended like this and saved nothing new."
        return fail(draft, failure.reason, f"{_sentence(failure)} {why}")
    if failure.refused and refused_in_vain(draft.status.attempts) >= REFUSED_ATTEMPTS:
        why = f"{REFUSED_ATTEMPTS} attempts in a row were refused, each with the Secret as it was then."
        return fail(draft, "UserError", f"{_sentence(failure)} {why}")
    wait = pause_seconds(draft)
    when = f"Attempt {draft.status.attempt + 1} starts {'at once' if wait == 0 else f'in {wait:.0f} seconds'}"
    whence = f", from step {_saved(draft)}" if _saved(draft) else ""
    message = f"{_sentence(failure)} {when}{whence}."
    draft = draft.update(restarts=restarts + cause.counts)
    draft = draft.set_condition("Running", "False", failure.reason, failure.message)
    draft = draft.set_condition("Restarting", "True", failure.reason, message).emit_event(
        "Warning", "Restarting", message
    )
    return draft.requeue_within(wait).stop()


def fail(draft: Draft, reason: Reason, message: str) -> Draft:
    """The run has failed, for good."""
    saved = _saved(draft)
    kept = f" The checkpoint at step {saved} stays: a document with the same spec goes on from it." if saved else ""
    draft = draft.clear_condition("Running", reason, message).clear_condition("Restarting", reason, message)
    draft = draft.clear_condition("Queued", reason, message).update(completion_time=stamp(draft.now))
    return draft.set_condition("Failed", "True", reason, message + kept, event="Warning", event_reason="Failed").stop()


def restart_of(draft: Draft) -> RestartSpec:
    """How often the run may be started again, and when it counts as hung."""
    document = draft.document
    return RestartSpec() if isinstance(document, DatasetBuild) else document.spec.restart


def pause_seconds(draft: Draft) -> float:
    """Seconds between the end of the last attempt and the next; a while of its own for one that gave way to others."""
    attempts = draft.status.attempts
    own = START_PAUSE_SECONDS * (1 + share_of(draft)) if attempts[-1].reason == "PartialStart" else 0.0
    return delay_seconds(attempts) + own


def share_of(draft: Draft) -> float:
    """A number from 0 to 1 that differs from run to run and from attempt to attempt, and is always the same."""
    what = f"{draft.world.resource['metadata'].get('uid')}/{draft.status.attempt}"
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "big") / 2**32


def delay_seconds(attempts: Sequence[AttemptStatus]) -> float:
    """Seconds between the end of the last attempt and the next: none after one that got on, then 5, 10, 20, …

    After one whose key was refused there is no second immediate one.
    """
    refused = refused_in_vain(attempts)
    if refused:  # the next pod reads the Secret anew, and somebody has to change it first
        return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (refused - 1))
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


def refused_in_vain(attempts: Sequence[AttemptStatus]) -> int:
    """How many of these newest attempts, in a row, the store refused."""
    newest = attempts[len(attempts) - barren(attempts) :]
    return sum(1 for _ in takewhile(lambda attempt: attempt.refused, reversed(newest)))


def _with_history(draft: Draft, cause: Cause) -> Cause:
    """The cause, in the light of what was before: a key that worked may be changed, and is then no user's mistake."""
    if not cause.failure.refused or cause.failure.reason != "UserError" or not _has_reached_the_store(draft):
        return cause
    return Cause(cause.failure.model_copy(update={"reason": "StorageUnreachable"}), counts=False)


def _has_reached_the_store(draft: Draft) -> bool:
    """Whether the store granted this run anything so far: it has got on, or an earlier attempt ran."""
    progress = getattr(draft.status, "progress", None)
    moved = progress is not None and progress.percent > 0
    return moved or _saved(draft) > 0 or any(map(_reached_the_store, draft.status.attempts[:-1]))


def _reached_the_store(attempt: AttemptStatus) -> bool:
    if attempt.reason == "StorageUnreachable":
        return bool(attempt.refused)  # which is said so only of what was granted before
    return attempt.running is not None and not attempt.refused


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

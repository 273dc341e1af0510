"""What the attempt's process says of itself, put into the status."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from kindling_api.v1alpha1.status import (
    AlignmentProgress,
    AlignmentRunStatus,
    CheckpointStatus,
    DatasetBuildStatus,
    DatasetProgress,
    PretrainRunStatus,
    TrainingProgress,
)
from kindling_operator.attempts import count_restarts, earlier_seconds
from kindling_operator.children import pods_of
from kindling_operator.draft import Draft
from kindling_operator.incidents import tell_incidents
from kindling_operator.moments import moment, stamp
from kindling_operator.pods import reporter, started_at
from kindling_operator.resizes import count_resizes
from kindling_operator.stragglers import tell_stragglers

CHECKPOINT_EVENT_SECONDS = 60.0
"""Events tell of a checkpoint no more often than this."""


def progress(draft: Draft) -> Draft:
    """Figures, and the newest checkpoint; a status in which nothing has changed stays as it is, to the letter."""
    reported, at = draft.world.progress, draft.world.progress_at
    if reported is None or at is None:
        return draft
    draft = count_resizes(count_restarts(draft, reported), reported)
    draft = tell_incidents(tell_stragglers(draft, reported), reported)
    running = draft.condition("Running")
    if reported.trouble is None and running is not None and running.status == "True" and running.reason != "Started":
        draft = draft.update(progress_time=stamp(at))  # an outage is over: silence counts from here
    if isinstance(draft.status, DatasetBuildStatus):
        return _dataset(draft, draft.status, reported.dataset, at)
    assert isinstance(draft.status, PretrainRunStatus | AlignmentRunStatus)
    draft = _checkpoint(draft, draft.status.checkpoint, reported.checkpoint)
    return _training(draft, draft.status.progress, reported.training, at)  # type: ignore[attr-defined]


def _dataset(draft: Draft, status: DatasetBuildStatus, reported: DatasetProgress | None, at: datetime) -> Draft:
    if reported is None or reported == status.progress:
        return draft
    before = status.progress
    moved = before is None or _place(before) != _place(reported)
    return draft.update(progress=reported, progress_time=stamp(at) if moved else status.progress_time)


def _training(draft: Draft, before: TrainingProgress | None, reported: TrainingProgress | None, at: datetime) -> Draft:
    if reported is None:
        return draft
    model = AlignmentProgress if isinstance(draft.status, AlignmentRunStatus) else TrainingProgress
    try:
        reported = model.model_validate(reported.document())
    except ValidationError:
        return draft
    if before is not None and _but_goodput(before) == _but_goodput(reported):
        return draft
    moved = before is None or _place(before) != _place(reported)
    whole = reported.model_copy(update={"goodput": _goodput(draft, reported.goodput, at)})
    return draft.update(progress=whole, progress_time=stamp(at) if moved else draft.status.progress_time)


def _checkpoint(draft: Draft, before: CheckpointStatus | None, reported: CheckpointStatus | None) -> Draft:
    if reported is None or reported == before:
        return draft
    then, now = moment(before.time) if before is not None else None, moment(reported.time)
    if then is None or now is None or (now - then).total_seconds() >= CHECKPOINT_EVENT_SECONDS:
        draft = draft.emit_event(
            "Normal", "Checkpointed", f"The state after step {reported.step} is committed at {reported.uri}."
        )
    return draft.update(checkpoint=reported)


def _place(progress: DatasetProgress | TrainingProgress) -> tuple[object, ...]:
    """Where a run is: what a run that hangs does not change."""
    if isinstance(progress, DatasetProgress):
        return progress.stage, progress.percent, progress.documents
    return progress.stage, progress.step


def _but_goodput(progress: TrainingProgress) -> TrainingProgress:
    return progress.model_copy(update={"goodput": None})


def _goodput(draft: Draft, own: float | None, at: datetime) -> float | None:
    """Time in steps that count over all time, since the run was started or resumed.

    A process knows its own share, since it was started; what earlier attempts leave is in their records, and the time
    between attempts counts as lost (ml-goodput-measurement's definition).
    """
    child, start = draft.child, moment(draft.status.start_time)
    speaker = reporter(pods_of(draft.world, child)) if child is not None else None
    began = moment(started_at(speaker)) if speaker is not None else None
    if own is None or start is None or began is None or at <= start:
        return own
    productive = earlier_seconds(draft) + own * max(0.0, (at - began).total_seconds())
    return round(min(1.0, productive / (at - start).total_seconds()), 4)

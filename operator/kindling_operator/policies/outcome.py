"""How an attempt ended: the last word of its first pod if it did well, the cause if it did not."""

from __future__ import annotations

from pydantic import ValidationError

from kindling_api.bounds import OPERATOR_SETTLE_SECONDS
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import (
    AlignmentResult,
    AlignmentRunStatus,
    DatasetBuildStatus,
    DatasetProgress,
    DatasetResult,
    Failure,
    ModelResult,
    RunStatus,
    TrainingProgress,
)
from kindling_operator.attempts import count_restarts, end_attempt, fail_attempt
from kindling_operator.causes import Cause, cause_of, is_failing
from kindling_operator.children import Child, pods_of
from kindling_operator.draft import Draft
from kindling_operator.incidents import tell_incidents
from kindling_operator.moments import seconds_since, stamp
from kindling_operator.pods import is_over, last_word, reporter, reporters
from kindling_operator.resizes import count_resizes, min_nodes
from kindling_operator.world import Object

Result = ModelResult | AlignmentResult | DatasetResult


def outcome(draft: Draft) -> Draft:
    """An attempt that is still at work passes."""
    child = draft.child
    assert child is not None, "creation lets only attempts with a Job pass"
    pods = pods_of(draft.world, child)
    elastic = min_nodes(draft) is not None
    if elastic:
        pods = tuple(reporters(pods))  # it outlives the others, which are made anew
    failing = is_failing(child, pods)
    speaker = reporter(pods)
    word = last_word(speaker) if speaker is not None else None
    result = _result(draft.status, word)
    if not failing and child.ending is None and not (elastic and result is not None):
        return draft
    if word is not None:
        draft = tell_incidents(count_resizes(count_restarts(draft, word), word), word)
    if word is not None and result is not None:  # even if a pod then failed to leave in order: the product is there
        return _succeed(draft, word, result)
    if failing:
        cause = cause_of(child, pods, expected=1 if elastic else expected_pods(draft), now=draft.now)
        return fail_attempt(draft, cause) if cause is not None else draft.requeue_within(1).stop()
    return _without_last_word(draft, child, speaker)


def expected_pods(draft: Draft) -> int:
    """The pods of an attempt that have to run; a RayJob's other pods are KubeRay's to count."""
    document = draft.document
    return 1 if isinstance(document, DatasetBuild) else min_nodes(draft) or document.spec.resources.nodes


def _succeed(draft: Draft, word: Progress, result: Result) -> Draft:
    message = word.message or "It is done."
    draft = draft.update(progress=_at_the_end(draft.status, word, result))
    if word.checkpoint is not None and not isinstance(draft.status, DatasetBuildStatus):
        draft = draft.update(checkpoint=word.checkpoint)
    draft = end_attempt(draft, "Completed", message).update(result=result, completion_time=stamp(draft.now))
    draft = draft.clear_condition("Running", "Completed", message).clear_condition("Restarting", "Completed", message)
    if isinstance(result, ModelResult) and result.divergence is not None:
        draft = draft.set_condition("Diverged", "True", "LossRose", result.divergence.sentence, event="Warning")
    message = f"{message.rstrip('.')}. It is at {result.uri}."
    return draft.set_condition(
        "Succeeded", "True", "Completed", message, event="Normal", event_reason="Succeeded"
    ).stop()


def _at_the_end(status: RunStatus, word: Progress, result: Result) -> DatasetProgress | TrainingProgress | None:
    """The last figures: those of the last word, or else those that were heard before it, brought to the end."""
    reported = word.dataset if isinstance(status, DatasetBuildStatus) else word.training
    last: DatasetProgress | TrainingProgress | None = reported or getattr(status, "progress", None)
    if last is None:
        return None
    done: dict[str, object] = {"percent": 100.0, "eta_seconds": 0}
    if isinstance(result, ModelResult):
        done |= {"step": result.steps, "tokens": result.tokens}
    return last.model_copy(update=done)


def _without_last_word(draft: Draft, child: Child, speaker: Object | None) -> Draft:
    """The Job has ended well, and its pod has not been heard yet, or is gone: another attempt finds the product."""
    is_late = speaker is not None and not is_over(speaker)
    if is_late or seconds_since(child.ended_at, draft.now) < OPERATOR_SETTLE_SECONDS:
        return draft.requeue_within(1).stop()
    message = "It ended well, but its last word was lost. Another attempt finds what is done, and tells of it."
    return fail_attempt(draft, Cause(Failure(reason="InternalError", message=message), counts=True))


def _result(status: RunStatus, word: Progress | None) -> Result | None:
    """The result as this kind's status holds it; None where the word has none that fits."""
    if word is None or word.state != "Succeeded" or word.result is None:
        return None
    model: type[Result] = ModelResult
    if isinstance(status, DatasetBuildStatus):
        model = DatasetResult
    elif isinstance(status, AlignmentRunStatus):
        model = AlignmentResult
    try:
        return model.model_validate(word.result.document())
    except ValidationError:
        return None

"""A document that is being deleted: its children go with it, by their owner references; its data, where it says so.

`retention: Delete` is carried out by a Job, for the operator has no access to any store. Whatever comes of that Job,
the document does not stay for ever: after some minutes it goes, and an Event says where its data is left.
"""

from __future__ import annotations

from kindling_api.bounds import POD_GRACE_SECONDS
from kindling_api.errors import EXIT_NOTHING, SpecError
from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_api.v1alpha1.products import model_folder
from kindling_api.v1alpha1.status import AlignmentRunStatus, DatasetBuildStatus, PretrainRunStatus
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.children import Ending, job_ending, key_of_object
from kindling_operator.draft import Draft
from kindling_operator.labels import attempt_of
from kindling_operator.moments import seconds_since
from kindling_operator.pods import end_of, is_over, last_lines
from kindling_operator.policies.obstacles import Obstacle, beside, requeue_for_warnings
from kindling_operator.policies.retention import FINALIZER, without_finalizer
from kindling_operator.render.cleanup import cleanup_job
from kindling_operator.render.templates import template_of
from kindling_operator.world import NAMESPACE_GOES, Object

MORE_THAN_GRACE_SECONDS = 15.0
"""How much longer than their grace the run's pods may take to end before its data is deleted."""
CLEANUP_SECONDS = 60.0
"""What is left for that, however long their grace is."""
LONGEST_SECONDS = 225.0
"""How long the document stays for the sake of its data: five minutes, less the longest pause between two attempts."""


def deletion(draft: Draft) -> Draft:
    """Nothing is started for it any more."""
    metadata = draft.world.resource["metadata"]
    if "deletionTimestamp" not in metadata:
        return draft
    if FINALIZER not in (metadata.get("finalizers") or ()):
        return draft.stop()
    draft = draft.remove(*(child.key for child in draft.children if not child.is_going))
    folder, storage = folder_of(draft), draft.storage
    if folder is None:
        return _release(draft)
    if storage is None:
        return _give_up(draft, f"{folder} stays: neither the document nor the installation names a storage by now.")
    place, age = f"{storage.uri}/{folder}", seconds_since(metadata["deletionTimestamp"], draft.now)
    if any(warning.get("reason") == NAMESPACE_GOES for warning in draft.world.warnings):
        return _give_up(draft, f"{place} stays: the namespace is being deleted, and takes no clean-up Job.")
    why = _said(draft)
    match _ending(draft):
        case "succeeded":
            assert draft.world.cleanup is not None
            return _release(draft.remove(key_of_object(draft.world.cleanup)))  # one that failed can be looked at
        case "failed":
            return _give_up(draft, f"{place} could not be deleted, and stays.{why}")
    if age > LONGEST_SECONDS:
        return _give_up(draft, f"{place} was not deleted in time, and may stay.{why}")
    if draft.world.cleanup is None:
        if age < _leaving_seconds(draft):
            return draft.requeue_within(5).stop()
        draft = draft.create(_job(draft, storage, folder))
    return _with_condition(draft).requeue_within(LONGEST_SECONDS - age + 1).stop()


def _leaving_seconds(draft: Draft) -> float:
    """How long its pods may take to end; 0 where none is left."""
    left = [pod for pod in draft.world.pods if attempt_of(pod) and not is_over(pod)]
    graces = [pod["spec"].get("terminationGracePeriodSeconds", POD_GRACE_SECONDS) for pod in left]
    return min(LONGEST_SECONDS - CLEANUP_SECONDS, max(graces) + MORE_THAN_GRACE_SECONDS) if graces else 0.0


def _with_condition(draft: Draft) -> Draft:
    """What keeps the clean-up's pods from running, as far as kubelet has warned by now."""
    for obstacle in _obstacles(draft):
        draft = draft.set_condition("Running", "False", *obstacle, event="Warning")
    return requeue_for_warnings(draft, draft.world.pods_beside)


def _job(draft: Draft, storage: StorageSpec, folder: str) -> Object:
    """Where the status tells of a result or a checkpoint, something is in the folder."""
    made = draft.status.document().keys() & {"result", "checkpoint"}
    settings, resource = draft.world.settings, draft.world.resource
    return cleanup_job(settings, resource, storage, folder, template=_template(draft), must_exist=bool(made))


def _template(draft: Draft) -> PodTemplate | None:
    """What the document says of its pods, unless that is not allowed any more: its data goes all the same."""
    document = draft.world.document
    try:
        return template_of(draft.world.settings, document.spec) if document is not None else None
    except SpecError:
        return None


def _ending(draft: Draft) -> Ending | None:
    """How the clean-up ended: the Job retries also where a pod has found nothing, which no other will find."""
    if any((end_of(pod) or {}).get("exitCode") == EXIT_NOTHING for pod in draft.world.pods_beside):
        return "failed"
    return job_ending(draft.world.cleanup) if draft.world.cleanup is not None else None


def _said(draft: Draft) -> str:
    """What keeps the clean-up from its end, as far as its pods tell."""
    messages = [message for _, message in _obstacles(draft)]
    words = filter(None, map(last_lines, draft.world.pods_beside))
    return "".join(f" {word}" for word in [*messages, *words][:1])


def _obstacles(draft: Draft) -> list[Obstacle]:
    return list(beside(draft))[:1]


def folder_of(draft: Draft) -> str | None:
    """The product's folder in its store, as in `models/0123456789abcdef`; None where there is none, or none is known.

    It is named by what the process says, with its result or a checkpoint: the key may take in what only that reads, as
    a build's sources, an alignment's data, or the digest of a product that is given by its URI. Of a pretraining that
    has said nothing yet the key in the status is taken."""
    status = draft.status
    assert isinstance(status, DatasetBuildStatus | PretrainRunStatus | AlignmentRunStatus)
    uri = status.result.uri if status.result is not None else None
    if uri is None and not isinstance(status, DatasetBuildStatus) and status.checkpoint is not None:
        uri = status.checkpoint.uri.partition("/checkpoints/")[0]
    if uri is None and isinstance(status, PretrainRunStatus) and status.key is not None:
        return model_folder(status.key)
    return "/".join(uri.rstrip("/").split("/")[-2:]) if uri is not None else None


def _give_up(draft: Draft, message: str) -> Draft:
    return _release(draft.emit_event("Warning", "CleanUpFailed", message))


def _release(draft: Draft) -> Draft:
    return draft.patch(*without_finalizer(draft.world.resource)).stop()

"""A document that is being deleted: its children go with it, by their owner references; its data, where it says so.

`retention: Delete` is carried out by a Job, for the operator has no access to any store. Whatever comes of that Job,
the document does not stay for ever: after some minutes it goes, and an Event says where its data is left.
"""

from __future__ import annotations

from dataclasses import replace

from kindling_api.v1alpha1.products import model_folder
from kindling_api.v1alpha1.status import AlignmentRunStatus, DatasetBuildStatus
from kindling_operator.children import attempt_of, job_ending
from kindling_operator.draft import Draft
from kindling_operator.moments import seconds_since
from kindling_operator.pods import is_over
from kindling_operator.policies.retention import FINALIZER, finalizers_patch
from kindling_operator.render.cleanup import cleanup_job

LEAVING_SECONDS = 90.0
"""How long the run's pods may take to end before its data is deleted: their grace, and some more."""
LONGEST_SECONDS = 300.0
"""How long the document stays for the sake of its data; in a namespace that is going, too, no Job can be made."""


def deletion(draft: Draft) -> Draft:
    """Nothing is started for it any more."""
    metadata = draft.world.resource["metadata"]
    if "deletionTimestamp" not in metadata:
        return draft
    if FINALIZER not in (metadata.get("finalizers") or ()):
        return draft.settle()
    draft = draft.remove(*(child.key for child in draft.children if not child.is_going))
    document, folder = draft.world.document, folder_of(draft)
    storage = (document.spec.storage if document is not None else None) or draft.world.settings.storage
    if folder is None or storage is None:
        return _release(draft)
    age, place = seconds_since(metadata["deletionTimestamp"], draft.now), f"{storage.uri}/{folder}"
    job = draft.world.cleanup
    match job_ending(job) if job is not None else None:
        case "succeeded":
            return _release(draft)
        case "failed":
            return _release(draft.tell("Warning", "CleanUpFailed", f"{place} could not be deleted, and stays."))
    if age > LONGEST_SECONDS:
        return _release(draft.tell("Warning", "CleanUpFailed", f"{place} was not deleted in time, and may stay."))
    if job is None:
        if age < LEAVING_SECONDS and any(attempt_of(pod) and not is_over(pod) for pod in draft.world.pods):
            return draft.look_again(5).settle()
        draft = replace(draft, create=(cleanup_job(draft.world.settings, draft.world.resource, storage, folder),))
    return draft.look_again(LONGEST_SECONDS - age + 1).settle()


def folder_of(draft: Draft) -> str | None:
    """The product's folder in its store, as in `models/0123456789abcdef`; None where there is none, or none is known:
    only the process that looks at a build's sources, or at an alignment's data, can name the folder before it says so
    in its result or with a checkpoint."""
    status = draft.status
    if not isinstance(status, DatasetBuildStatus | AlignmentRunStatus):
        return model_folder(status.key) if status.key is not None else None
    uri = status.result.uri if status.result is not None else None
    if uri is None and isinstance(status, AlignmentRunStatus) and status.checkpoint is not None:
        uri = status.checkpoint.uri.partition("/checkpoints/")[0]
    return "/".join(uri.rstrip("/").split("/")[-2:]) if uri is not None else None


def _release(draft: Draft) -> Draft:
    finalizers = [one for one in draft.world.resource["metadata"]["finalizers"] if one != FINALIZER]
    return replace(draft, change=(*draft.change, finalizers_patch(draft, finalizers))).settle()

"""`retention: Delete`: a finalizer keeps the document until its data is gone; deletion.py does the rest."""

from __future__ import annotations

from kindling_operator.children import key_of_object
from kindling_operator.draft import Draft
from kindling_operator.world import Object, ObjectKey

FINALIZER = "kindling.dev/retention"


def retention(draft: Draft) -> Draft:
    """The finalizer is there before any data is."""
    metadata = draft.world.resource["metadata"]
    finalizers = list(metadata.get("finalizers") or ())
    if draft.document.spec.retention != "Delete" or FINALIZER in finalizers:
        return draft
    return draft.patch(*finalizers_patch(draft.world.resource, [*finalizers, FINALIZER]))


def without_finalizer(resource: Object) -> tuple[ObjectKey, Object]:
    """The patch that lets a document go; the finalizers of others stay."""
    return finalizers_patch(resource, [one for one in resource["metadata"]["finalizers"] if one != FINALIZER])


def finalizers_patch(resource: Object, finalizers: list[str]) -> tuple[ObjectKey, Object]:
    """A patch of the document that the API server refuses where somebody else changed it meanwhile."""
    patch: Object = {"finalizers": finalizers}
    if version := resource["metadata"].get("resourceVersion"):
        patch["resourceVersion"] = version
    return key_of_object(resource), {"metadata": patch}

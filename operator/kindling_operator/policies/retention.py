"""`retention: Delete`: a finalizer keeps the document until its data is gone; deletion.py does the rest."""

from __future__ import annotations

from dataclasses import replace

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
    return replace(draft, change=(*draft.change, finalizers_patch(draft, [*finalizers, FINALIZER])))


def finalizers_patch(draft: Draft, finalizers: list[str]) -> tuple[ObjectKey, Object]:
    """A patch of the document that the API server refuses where somebody else changed it meanwhile."""
    resource = draft.world.resource
    patch: Object = {"finalizers": finalizers}
    if version := resource["metadata"].get("resourceVersion"):
        patch["resourceVersion"] = version
    return key_of_object(resource), {"metadata": patch}

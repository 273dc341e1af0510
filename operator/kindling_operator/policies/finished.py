"""What has succeeded or failed stays so; and goes after its time, where it says so."""

from __future__ import annotations

from kindling_api.quantities import seconds
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_operator.children import key_of_object
from kindling_operator.conditions import holds
from kindling_operator.draft import Draft
from kindling_operator.moments import seconds_since


def finished(draft: Draft) -> Draft:
    """Nothing is decided any more, but the removal."""
    if not any(holds(draft.status.conditions, type_) for type_ in ("Succeeded", "Failed")):
        return draft
    document = draft.world.document
    kept = document.spec.ttl_after_finished if document is not None else None
    if kept is not None and not (isinstance(document, AlignmentRun) and document.spec.serve is not None):
        left = seconds(kept) - seconds_since(draft.status.completion_time, draft.now)
        draft = draft.requeue_within(left) if left > 0 else draft.remove(key_of_object(draft.world.resource))
    return draft.stop()

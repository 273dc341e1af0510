"""What a run's process has mended by itself, as its status and Events tell it."""

from __future__ import annotations

from kindling_api.v1alpha1.incidents import MOST_INCIDENTS
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import AlignmentRunStatus, PretrainRunStatus
from kindling_operator.draft import Draft


def tell_incidents(draft: Draft, reported: Progress) -> Draft:
    """Those that were not known yet, each with an Event."""
    status = draft.status
    if not reported.incidents or not isinstance(status, PretrainRunStatus | AlignmentRunStatus):
        return draft
    known = status.incidents or []
    new = [incident for incident in reported.incidents if incident not in known]
    for incident in new:
        draft = draft.emit_event("Warning", incident.reason, incident.message)
    return draft.update(incidents=[*known, *new][-MOST_INCIDENTS:])

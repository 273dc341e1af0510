"""`spec.serve`: the model of an AlignmentRun that has succeeded is served, for as long as the spec says so."""

from __future__ import annotations

from dataclasses import replace

from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.status import AlignmentResult
from kindling_operator.conditions import holds
from kindling_operator.draft import Draft
from kindling_operator.render import serving as render
from kindling_operator.world import Object

_STALLED = {"Progressing": "False", "ReplicaFailure": "True"}
"""Conditions of a Deployment that say why its pods do not come."""


def serving(draft: Draft) -> Draft:
    """Objects are written anew whenever this is asked; what is not to be served any more goes."""
    run, result = draft.world.document, getattr(draft.status, "result", None)
    if not isinstance(run, AlignmentRun) or not isinstance(result, AlignmentResult):
        return draft
    if not holds(draft.status.conditions, "Succeeded"):
        return draft
    storage = run.spec.storage or draft.world.settings.storage
    if run.spec.serve is None or storage is None:
        return _ended(draft, run, result)
    settings, metadata = draft.world.settings, run.metadata
    objects = render.serving(settings, draft.world.resource, run, result.model, storage)
    where = render.endpoint(settings, metadata.name, metadata.namespace)
    draft = draft.update(result=result.model_copy(update={"endpoint": where}))
    return _tell(replace(draft, apply=(*draft.apply, *objects)), run.spec.serve.replicas, where)


def _tell(draft: Draft, wanted: int, where: str) -> Draft:
    if wanted == 0:
        return draft.say("Serving", "False", "SuspendedByUser", "spec.serve.replicas is 0.")
    status: Object = (draft.world.deployment or {}).get("status") or {}
    ready = min(wanted, status.get("availableReplicas") or 0)
    told = f"{ready} of {wanted} pods answer at {where}."
    if ready:
        return draft.say("Serving", "True", "Ready", told, note="Normal", note_reason="Serving")
    for condition in status.get("conditions") or ():
        if _STALLED.get(condition["type"]) == condition["status"]:
            return draft.say("Serving", "False", "CannotStart", str(condition.get("message", "")), note="Warning")
    return draft.say("Serving", "False", "Starting", told)


def _ended(draft: Draft, run: AlignmentRun, result: AlignmentResult) -> Draft:
    if draft.world.deployment is not None:
        draft = draft.remove(*render.serving_keys(run.metadata.name, run.metadata.namespace))
    if draft.condition("Serving") is None:
        return draft
    draft = draft.update(result=result.model_copy(update={"endpoint": None}))
    return draft.say("Serving", "False", "SuspendedByUser", "spec.serve was removed.")

"""`spec.serve`: the model of an AlignmentRun that has succeeded is served, for as long as the spec says so."""

from __future__ import annotations

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.status import AlignmentResult
from kindling_operator.children import key_of_object
from kindling_operator.conditions import holds
from kindling_operator.draft import Draft
from kindling_operator.policies.obstacles import beside, requeue_for_warnings
from kindling_operator.render.serving import endpoint, serving_keys, serving_labels, serving_name, serving_objects
from kindling_operator.world import Object, ObjectKey

_STALLED = {"Progressing": "False", "ReplicaFailure": "True"}
"""Conditions of a Deployment that say why its pods do not come."""


def serving(draft: Draft) -> Draft:
    """Objects are written anew whenever this is asked; what is not to be served any more goes."""
    run, result = draft.world.document, getattr(draft.status, "result", None)
    if not isinstance(run, AlignmentRun) or not isinstance(result, AlignmentResult):
        return draft
    if not holds(draft.status.conditions, "Succeeded"):
        return draft
    storage = draft.storage
    if run.spec.serve is None or storage is None:
        return _ended(draft, run, result)
    settings, metadata = draft.world.settings, run.metadata
    both = serving_labels(metadata.name, None) if _earlier(draft, run) else None
    try:
        objects = serving_objects(settings, draft.world.resource, run, result.model, storage, selector=both)
    except SpecError as error:  # what serves it stays as it is
        return draft.set_condition("Serving", "False", "CannotStart", str(error), event="Warning")
    where = endpoint(settings, metadata.name, metadata.namespace)
    draft = draft.update(result=result.model_copy(update={"endpoint": where}))
    draft = _relieve(draft.apply(*objects), run, run.spec.serve.replicas)
    return _with_condition(draft, run.spec.serve.replicas, where)


def _earlier(draft: Draft, run: AlignmentRun) -> list[ObjectKey]:
    """What serves this very document under a name that an earlier version of this operator gave it."""
    name = serving_name(run.metadata.name, run.metadata.uid)
    found = [key for key in map(key_of_object, draft.world.deployments) if key.name != name]
    policies = [ObjectKey("networking.k8s.io/v1", "NetworkPolicy", key.namespace, key.name) for key in found]
    return [*policies, *found]


def _relieve(draft: Draft, run: AlignmentRun, wanted: int) -> Draft:
    """What served before goes once as many pods of its successor answer; until then the Service leads to both."""
    earlier = _earlier(draft, run)
    successors = (each for each in draft.world.deployments if key_of_object(each) not in earlier)
    return draft.remove(*earlier) if sum(map(_available, successors)) >= wanted else draft


def _available(deployment: Object) -> int:
    return int((deployment.get("status") or {}).get("availableReplicas") or 0)


def _with_condition(draft: Draft, wanted: int, where: str) -> Draft:
    if wanted == 0:
        return draft.set_condition("Serving", "False", "SuspendedByUser", "spec.serve.replicas is 0.")
    ready = min(wanted, sum(map(_available, draft.world.deployments)))
    message = f"{ready} of {wanted} pods answer at {where}."
    if ready:
        return draft.set_condition("Serving", "True", "Ready", message, event="Normal", event_reason="Serving")
    for deployment in draft.world.deployments:
        for condition in (deployment.get("status") or {}).get("conditions") or ():
            if _STALLED.get(condition["type"]) == condition["status"]:
                return draft.set_condition(
                    "Serving", "False", "CannotStart", str(condition.get("message", "")), event="Warning"
                )
    for obstacle in beside(draft):
        return draft.set_condition("Serving", "False", *obstacle, event="Warning")
    draft = requeue_for_warnings(draft, draft.world.pods_beside)
    return draft.set_condition("Serving", "False", "Starting", message)


def _ended(draft: Draft, run: AlignmentRun, result: AlignmentResult) -> Draft:
    if draft.world.deployments:
        keys = serving_keys(run.metadata.name, run.metadata.uid, run.metadata.namespace)
        draft = draft.remove(*_earlier(draft, run), *keys)
    if draft.condition("Serving") is None:
        return draft
    draft = draft.update(result=result.model_copy(update={"endpoint": None}))
    return draft.set_condition("Serving", "False", "SuspendedByUser", "spec.serve was removed.")

"""What a run reads is made by other documents; it waits for them, and keeps to what it found when it started."""

from __future__ import annotations

from collections.abc import Mapping

from kindling_api.errors import SpecError, explain
from kindling_api.references import Reference, Use, uses
from kindling_api.resolve import Finished, Waiting, resolve
from kindling_api.v1alpha1.runfile import RunFile
from kindling_api.v1alpha1.status import ConditionType, InputStatus, Reason
from kindling_operator.draft import Draft, EventType
from kindling_operator.moments import seconds_since
from kindling_operator.world import Referred

_FACTS: dict[str, ConditionType] = {
    "dataset": "DatasetReady",
    "base": "BaseReady",
    "initialize": "BaseReady",
    "reward": "BaseReady",
    "judge": "BaseReady",
}

FILE_SECONDS = 5.0
"""How old a document is when one that it refers to is told to be missing: those of one file come one after another."""


def references(draft: Draft) -> Draft:
    """Until all are there, nothing is started; once it has started, nothing is asked of them any more."""
    if draft.status.attempt and len(draft.status.inputs) >= len(list(uses(draft.document))):
        return draft
    waits = False
    for fact in dict.fromkeys(_FACTS[use.role] for use in uses(draft.document)):
        missing = [verdict for use in _uses(draft, fact) if (verdict := _verdict(use, draft.world.references))]
        if missing:
            waits = True
            reason, message = missing[0]
            if reason == "NotFound" and (left := _left_to_come(draft)) > 0:
                draft = draft.requeue_within(left)
                continue
            event: EventType = "Normal" if reason == "Building" else "Warning"
            draft = draft.set_condition(fact, "False", reason, message, event=event, event_reason="Waiting")
        else:
            message = "; ".join(_found(use, draft.world.references) for use in _uses(draft, fact))
            draft = draft.set_condition(fact, "True", "Ready", f"{message}.")
    if waits:
        return draft.stop()
    finished = {reference: one.finished for reference, one in draft.world.references.items() if one.finished}
    return draft.update(inputs=_inputs(draft, finished))


def run_file_of(draft: Draft, attempt: int) -> RunFile:
    """The run file of an attempt, with the inputs that were found at the start.

    Raises:
        SpecError: it cannot be run, as for want of a store.
    """
    document, storage = draft.document, draft.storage
    if storage is None:
        raise SpecError(NO_STORAGE)
    found = {one.field: one for one in draft.status.inputs}
    finished = {
        use.candidates[0]: Finished(one.uri, one.digest, one.storage)
        for use in uses(document)
        if use.candidates and (one := found.get(use.field)) is not None and one.digest is not None
    }
    run_file = resolve(document, storage=storage, finished=finished, attempt=attempt)
    if isinstance(run_file, Waiting):
        raise SpecError(f"{', '.join(map(str, run_file.references))} was not there when the run started")
    in_place = (draft.attempt.restarts or 0) if draft.attempt is not None else 0
    return run_file.model_copy(update={"restarts": draft.status.restarts - in_place})


NO_STORAGE = explain(
    "spec.storage",
    found="nothing",
    allowed="a store, unless the installation has a default one",
    remedy="give spec.storage, or set the chart's default storage",
)


def _uses(draft: Draft, fact: ConditionType) -> list[Use]:
    return [use for use in uses(draft.document) if _FACTS[use.role] == fact]


def _left_to_come(draft: Draft) -> float:
    """Seconds that a document of the same file, applied at once with this one, may still take to be seen."""
    created = draft.world.resource["metadata"].get("creationTimestamp")
    return FILE_SECONDS - seconds_since(created, draft.now) if created else 0


def _verdict(use: Use, there: Mapping[Reference, Referred]) -> tuple[Reason, str] | None:
    """Why a reference has to be waited for; None where it is ready."""
    known = [(reference, there[reference]) for reference in use.candidates if reference in there]
    ready = [reference for reference, referred in known if referred.finished is not None]
    if len(ready) > 1:
        remedy = "This field is immutable: create another document with kind: PretrainRun or kind: AlignmentRun in it."
        return "InvalidSpec", f"{use.field}: {' and '.join(map(str, ready))} are both there. {remedy}"
    if ready or not use.candidates:
        return None
    if not known:
        names = " or ".join(map(str, use.candidates))
        remedy = "Create it, and this run starts by itself."
        return "NotFound", f"{use.field}: there is no {names} in this namespace. {remedy}"
    building = [(reference, referred) for reference, referred in known if referred.phase != "Failed"]
    if building:
        reference, referred = building[0]
        return "Building", f"Waits for {reference}, which is {referred.phase}; then it starts by itself."
    reference, referred = known[0]
    why = f": {referred.message.rstrip('.')}" if referred.message else ""
    remedy = f"Delete {reference} and create it anew, corrected; then this run starts by itself."
    return "ReferenceFailed", f"{reference} has failed{why}. {remedy}"


def _found(use: Use, there: Mapping[Reference, Referred]) -> str:
    if use.uri is not None:
        return f"{use.field} is at {use.uri}"
    reference = next(reference for reference in use.candidates if reference in there and there[reference].finished)
    finished = there[reference].finished
    assert finished is not None
    return f"{reference} is at {finished.uri}"


def _inputs(draft: Draft, finished: Mapping[Reference, Finished]) -> list[InputStatus]:
    found = []
    for use in uses(draft.document):
        if use.uri is not None:
            found.append(InputStatus(field=use.field, uri=use.uri))
        for product in (finished[reference] for reference in use.candidates if reference in finished):
            at = {"uri": product.uri, "digest": product.digest, "storage": product.storage}
            found.append(InputStatus(field=use.field, **at))
    return found

"""The objects of an attempt whose number is in the status."""

from __future__ import annotations

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.status import Failure
from kindling_operator.attempts import fail_attempt
from kindling_operator.causes import Cause
from kindling_operator.draft import Draft
from kindling_operator.policies.obstacles import refusals
from kindling_operator.policies.references import run_file_of
from kindling_operator.render import render
from kindling_operator.stragglers import avoided_nodes


def creation(draft: Draft) -> Draft:
    """Made once. A Job that was there and is gone was deleted by somebody: that was the end of the attempt."""
    attempt, child = draft.attempt, draft.child
    assert attempt is not None, "restart begins one"
    if child is not None and not child.is_going:
        return draft if attempt.uid == child.uid else draft.update_attempt(uid=child.uid)
    if child is not None or attempt.uid is not None:
        message = f"The Job of attempt {attempt.attempt} was deleted."
        return fail_attempt(draft, Cause(Failure(reason="Evicted", message=message), counts=False))
    try:
        run_file = run_file_of(draft, attempt.attempt)
        avoided = avoided_nodes(draft.status.attempts[:-1])
        rendered = render(draft.world.settings, draft.world.resource, run_file, avoided)
    except SpecError as error:
        return draft.set_condition("Running", "False", "CannotStart", str(error), event="Warning").stop()
    draft = draft.update(key=run_file.key)
    refused = next(refusals(draft, rendered.create[-1]["metadata"]["name"]), None)
    if refused is not None:
        draft = draft.set_condition("Running", "False", *refused, event="Warning")
    else:
        draft = draft.set_condition("Running", "False", "Starting", f"Attempt {attempt.attempt} is being started.")
    return draft.apply(*rendered.apply).create(*rendered.create).stop()

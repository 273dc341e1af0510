"""A document that cannot be understood is refused, with the sentence that says what to change."""

from __future__ import annotations

from kindling_api.base import LONGEST_NAME
from kindling_api.v1alpha1.status import Reason
from kindling_operator.draft import Draft


def validity(draft: Draft) -> Draft:
    """A refusal ends the matter; what is at work already stays as it is, for a later version may have accepted it."""
    world = draft.world
    if world.document is not None:
        return draft
    reason: Reason = "NameTooLong" if len(world.resource["metadata"]["name"]) > LONGEST_NAME else "InvalidSpec"
    message = world.refusal or "The document cannot be read."
    return draft.set_condition("Accepted", "False", reason, message, event="Warning").stop()

"""What cannot be run in this installation is refused before anything is made; once accepted, a run stays so."""

from __future__ import annotations

from kindling_api.errors import SpecError, explain
from kindling_api.references import uses
from kindling_api.resolve import Finished, Waiting, resolve
from kindling_api.v1alpha1.status import Reason
from kindling_operator.draft import Draft
from kindling_operator.policies.references import NO_STORAGE
from kindling_operator.render.attempt import check

_STAND_IN = Finished(uri="s3://stand-in/product", digest="sha256:" + 64 * "0")
"""In the place of products that are not there yet; nothing that is checked depends on them."""


def admission(draft: Draft) -> Draft:
    """Names, stores and images."""
    if draft.status.attempt:
        return draft
    wrong = _image_refused(draft) or _cannot_be_rendered(draft)
    if wrong is not None:
        reason: Reason = "NameTooLong" if wrong.startswith("metadata.name") and "characters" in wrong else "InvalidSpec"
        return draft.say("Accepted", "False", reason, wrong, note="Warning").settle()
    return draft.say("Accepted", "True", "Valid", "The document is valid.", note="Normal", note_reason="Accepted")


def _image_refused(draft: Draft) -> str | None:
    image, prefixes = draft.document.spec.image, draft.world.settings.images.allowed_prefixes
    if image is None or image.startswith(prefixes):
        return None
    allowed = f"one that begins with {' or '.join(prefixes)}" if prefixes else "none: the installation chooses"
    remedy = "leave it out, or ask for its registry to be added to images.allowedPrefixes of the chart"
    return explain("spec.image", found=image, allowed=allowed, remedy=remedy)


def _cannot_be_rendered(draft: Draft) -> str | None:
    document, storage = draft.document, draft.document.spec.storage or draft.world.settings.storage
    if storage is None:
        return f"spec.storage: {NO_STORAGE}"
    finished = {use.candidates[0]: _STAND_IN for use in uses(document) if use.candidates}
    try:
        run_file = resolve(document, storage=storage, finished=finished)
        assert not isinstance(run_file, Waiting), "all references have a stand-in"
        check(run_file)
    except SpecError as error:
        return str(error)
    return None

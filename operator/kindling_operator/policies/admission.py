"""What cannot be run in this installation is refused before anything is made; once accepted, a run stays so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kindling_api.errors import SpecError, explain
from kindling_api.functions import check_function
from kindling_api.hub import ADDRESS, is_hub, parse_hub_uri
from kindling_api.references import uses
from kindling_api.resolve import PATH_FIELDS, Finished, Waiting, resolve
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.storage import BUILT_IN
from kindling_operator.draft import Draft
from kindling_operator.policies.references import NO_STORAGE
from kindling_operator.render.attempt import check

_STAND_IN = Finished(uri="s3://stand-in/product", digest="sha256:" + 64 * "0")
"""In the place of products that are not there yet; nothing that is checked depends on them."""


def admission(draft: Draft) -> Draft:
    """Names, stores, images, and what is named of the machine that runs it, files and code, or of the Hub."""
    if draft.status.attempt:
        return draft
    wrong = (
        _image_refused(draft)
        or _priority_refused(draft)
        or _cannot_be_rendered(draft)
        or _file_named(draft)
        or _function_refused(draft)
    )
    if wrong is not None:
        return draft.set_condition("Accepted", "False", "InvalidSpec", wrong, event="Warning").stop()
    draft = draft.update(storage=draft.storage)
    return draft.set_condition(
        "Accepted", "True", "Valid", "The document is valid.", event="Normal", event_reason="Accepted"
    )


def _image_refused(draft: Draft) -> str | None:
    image, prefixes = draft.document.spec.image, draft.world.settings.images.allowed_prefixes
    if image is None or image.startswith(prefixes):
        return None
    allowed = f"one that begins with {' or '.join(prefixes)}" if prefixes else "none: the installation chooses"
    remedy = "leave it out, or ask for its registry to be added to images.allowedPrefixes of the chart"
    return explain("spec.image", found=image, allowed=allowed, remedy=remedy)


def _priority_refused(draft: Draft) -> str | None:
    """A PriorityClass pushes aside other people's pods; Kueue's classes count among the runs of a queue alone."""
    spec, classes = draft.document.spec, draft.world.settings.pods.priority_classes
    if spec.priority is None or spec.queue is not None or spec.priority in classes:
        return None
    allowed = " or ".join(classes) if classes else "none without spec.queue: the installation allows no PriorityClass"
    remedy = "leave it out, name a queue, or ask for it to be added to runs.pods.priorityClasses of the chart"
    return explain("spec.priority", found=spec.priority, allowed=allowed, remedy=remedy)


def _cannot_be_rendered(draft: Draft) -> str | None:
    document, storage = draft.document, draft.storage
    if storage is None:
        return NO_STORAGE
    finished = {use.candidates[0]: _STAND_IN for use in uses(document) if use.candidates}
    try:
        run_file = resolve(document, storage=storage, finished=finished)
        assert not isinstance(run_file, Waiting), "all references have a stand-in"
        check(run_file)
    except SpecError as error:
        return str(error)
    return None


def _file_named(draft: Draft) -> str | None:
    """A pod's own files are its credentials and its memory; what it is to read lies in a store."""
    for field, uri in _uris("spec", draft.document.spec.document()):
        if is_hub(uri):
            wrong = _revision_refused(field, uri, draft.world.settings.hugging_face.endpoint or ADDRESS)
            if wrong is not None:
                return wrong
        elif not uri.startswith("s3://") and uri not in BUILT_IN:
            allowed = "s3://bucket/path: a pod has no files but its own"
            return explain(field, found=uri, allowed=allowed, remedy="upload them to a bucket, and name them there")
    return None


def _revision_refused(field: str, uri: str, hub: str) -> str | None:
    """A branch or a tag moves, so that attempts would read different files, and only the pods may ask the Hub."""
    try:
        place = parse_hub_uri(uri, field)
    except SpecError as error:
        return str(error)
    if place.is_pinned:
        return None
    allowed = "the 40 digits of a commit behind the @: a branch or a tag moves, and the operator asks no Hub"
    remedy = f"write the `sha` that {hub.rstrip('/')}{place.asking} tells"
    return explain(field, found=uri, allowed=allowed, remedy=remedy)


def _uris(field: str, tree: Any) -> Iterator[tuple[str, str]]:
    if isinstance(tree, list):
        for number, item in enumerate(tree):
            yield from _uris(f"{field}[{number}]", item)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            if name in PATH_FIELDS and isinstance(value, str):
                yield f"{field}.{name}", value
            else:
                yield from _uris(f"{field}.{name}", value)


def _function_refused(draft: Draft) -> str | None:
    document = draft.document
    if not isinstance(document, AlignmentRun):
        return None
    name, method = document.spec.method.chosen
    try:
        for number, reward in enumerate(getattr(method, "rewards", None) or ()):
            if reward.function is not None:
                field = f"spec.method.{name}.rewards[{number}].function.importPath"
                check_function(field, reward.function.import_path, draft.world.settings.rewards.allowed_modules)
    except SpecError as error:
        return str(error)
    return None

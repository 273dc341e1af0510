"""`kindling push`: a model on the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kindling_api.errors import SpecError, explain
from kindling_api.hub import HubUri, is_hub, parse_hub_uri
from kindling_api.v1alpha1.products import MANIFEST
from kindling_cli.commands.export import write_model
from kindling_cli.product_folders import MODELS, find
from kindling_cli.products import read_product
from kindling_storage.hub.push import push


def push_model(model: str, target: str, *, store: str, private: bool) -> None:
    """Put the model that `model` means on the Hub, in one commit.

    Raises:
        SpecError: it means no model, or `target` is no model's place on the Hub.
        StorageError: the Hub refuses, or does not answer.
    """
    place = _target(target)
    found = find(model, store, MODELS)
    digest = read_product(found.store).digest if found.store.exists(MANIFEST) else None
    with tempfile.TemporaryDirectory(prefix="kindling-push-") as name:
        folder = Path(name)
        write_model(found, folder)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        print(f"{found.shown} is at {push(files, place, digest=digest, private=private)}.")


def _target(target: str) -> HubUri:
    place = parse_hub_uri(target, "TARGET") if is_hub(target) else None
    if place is None or place.kind != "model" or place.path or place.is_pinned:
        allowed, remedy = "hf://owner/name, or hf://owner/name@branch", "name the repository that is to hold the model"
        raise SpecError(explain("TARGET", found=repr(target), allowed=allowed, remedy=remedy))
    return place

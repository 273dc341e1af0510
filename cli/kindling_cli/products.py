"""Finished products as `inspect` and `plan` read them: manifests of any kind, and the way back to the raw inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kindling_api.errors import IntegrityError, SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import (
    INPUTS,
    MANIFEST,
    MODEL_FOLDER,
    CheckpointManifest,
    DatasetManifest,
    ModelManifest,
)
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import damage, read_manifest

if TYPE_CHECKING:
    from kindling_trainer.align.data.dry_run import BaseTokens

AnyManifest = DatasetManifest | ModelManifest | CheckpointManifest

_MODELS: dict[str, type[AnyManifest]] = {
    "Dataset": DatasetManifest,
    "Model": ModelManifest,
    "Checkpoint": CheckpointManifest,
}


@dataclass(frozen=True)
class Dataset:
    """A finished dataset that was found."""

    store: ObjectStore
    manifest: DatasetManifest


def read_product(store: ObjectStore) -> AnyManifest:
    """The manifest of the product in the folder `store`, of whatever kind.

    Raises:
        SpecError: there is none: no product, or one that is not finished.
        IntegrityError: it is damaged.
    """
    if not store.exists(MANIFEST):
        raise SpecError(
            explain(
                store.uri,
                found=f"no {MANIFEST}",
                allowed="the folder of a finished dataset, model or checkpoint",
                remedy="check the path; what is still being made has no manifest yet",
            )
        )
    try:
        kind = str(json.loads(store.get(MANIFEST)).get("kind"))
    except (ValueError, AttributeError) as error:
        raise _damaged(store, "no JSON object") from error
    if kind not in _MODELS:
        raise _damaged(store, f"kind {kind}")
    manifest = read_manifest(store, _MODELS[kind])
    assert manifest is not None
    return manifest


def check_whole(store: ObjectStore) -> None:
    """Refuse a damaged product that is to be read: only its own document makes it again.

    Raises:
        IntegrityError: there is a product in the folder `store`, and it is damaged.
    """
    if not store.exists(MANIFEST):
        return
    faults = damage(read_product(store), {info.path: info.size for info in store.list()})
    if faults:
        allowed, remedy = "a whole product", "run the document that makes it, before or together with this one"
        raise IntegrityError(explain(store.uri, found=faults[0], allowed=allowed, remedy=remedy))


def model_in(store: ObjectStore, *, scored: bool = False) -> tuple[ModelShape, int]:
    """Shape and vocabulary of the model in a folder, ours or Hugging Face's.

    Args:
        scored: whether a model of Hugging Face's is to score, and not to generate.

    Raises:
        SpecError: there is none, or one of a kind that Kindling has not.
    """
    if store.exists(MANIFEST):
        manifest = read_product(store)
        if isinstance(manifest, DatasetManifest):
            remedy = "name the folder of a finished run"
            raise SpecError(explain(store.uri, found="a dataset", allowed="a model", remedy=remedy))
        return manifest.shape, manifest.vocab_size
    from kindling_trainer.checkpoint.huggingface import read_shape  # not above: torch takes seconds to load

    return read_shape(store, scored=scored)


def tokens_in(store: ObjectStore, shape: ModelShape) -> BaseTokens:
    """The tokens of the model in a folder, and how dialogues are written for it.

    Raises:
        SpecError: it has no tokenizer.
    """
    from kindling_trainer.align.data.dry_run import BaseTokens  # not above: as before
    from kindling_trainer.checkpoint.huggingface import read_chat_template, read_tokenizer

    folder = store.child(MODEL_FOLDER) if store.exists(MANIFEST) else store
    tokenizer, special = read_tokenizer(folder)
    return BaseTokens(tokenizer, special.named, read_chat_template(folder), shape.context)


def base_of(store: ObjectStore, manifest: ModelManifest) -> tuple[ObjectStore, ModelManifest] | None:
    """The model that another one started from; None where it is not in the same store."""
    root = open_store(store.uri.partition("/models/")[0])
    for info in root.list("models/"):
        if _is_manifest(info.path):
            folder = root.child(info.path.removesuffix(f"/{MANIFEST}"))
            found = read_manifest(folder, ModelManifest)
            if found is not None and found.digest == manifest.base:
                return folder, found
    return None


def dataset_of(store: ObjectStore, manifest: ModelManifest | CheckpointManifest) -> Dataset | None:
    """The dataset that a model or a checkpoint was trained on; None where it has gone, or is another one now."""
    if isinstance(manifest, ModelManifest):
        dataset = _dataset_at(open_store(manifest.dataset_uri), manifest.dataset)
        if dataset is not None:
            return dataset
    root = open_store(store.uri.partition("/models/")[0])
    folders = [info.path.removesuffix(f"/{MANIFEST}") for info in root.list("datasets/") if _is_manifest(info.path)]
    found = (_dataset_at(root.child(folder), manifest.dataset) for folder in folders)
    return next((dataset for dataset in found if dataset is not None), None)


def inputs_of(dataset: Dataset) -> list[dict[str, Any]]:
    """Every file that was read: source, path, size, digest."""
    return [json.loads(line) for line in dataset.store.get(INPUTS).decode().splitlines()]


def _dataset_at(store: ObjectStore, digest: str) -> Dataset | None:
    manifest = read_manifest(store, DatasetManifest)
    return Dataset(store, manifest) if manifest is not None and manifest.digest == digest else None


def _is_manifest(path: str) -> bool:
    return path.count("/") == 2 and path.endswith(f"/{MANIFEST}")


def _damaged(store: ObjectStore, found: str) -> IntegrityError:
    allowed = f"a manifest of kind {', '.join(_MODELS)}"
    remedy = "run what makes it again, after deleting its folder"
    return IntegrityError(explain(f"{store.uri}/{MANIFEST}", found=found, allowed=allowed, remedy=remedy))

"""Who works in a product's folder, and what it reads: written there when the work begins, for what tidies the store.

A manifest cannot say so: it holds no document's name, exists only at the end, and is the same whoever made it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from kindling_api.base import Digest, Status, canonical_json
from kindling_api.errors import NotFoundError
from kindling_api.resolve import content_of
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, Input, PretrainRunFile, RunFile
from kindling_storage.store import ObjectStore

ORIGIN = "origin.json"
"""The object in a product's folder; no part of the product."""


class Read(Status):
    """A product that the work reads."""

    uri: str
    digest: Digest | None = None


class ProductOrigin(Status):
    """The document that was the last to work in a folder."""

    made_by: str
    """As in `PretrainRun/default/first`."""
    reads: tuple[Read, ...] = ()
    spec: dict[str, Any] | None = None
    """Of a pretraining: the part of its spec that decides the result, for whoever asks what a failed one read."""


def record_origin(store: ObjectStore, run: RunFile) -> None:
    """Say in the product's folder `store` what is made there; the caller has its lock.

    Raises:
        StorageError: as `ObjectStore.put`.
    """
    reads = tuple(Read(uri=one.uri, digest=one.digest) for one in _inputs(run))
    spec = content_of(run.spec) if isinstance(run, PretrainRunFile) else None
    origin = ProductOrigin(made_by=f"{run.kind}/{run.namespace}/{run.name}", reads=reads, spec=spec)
    store.put(ORIGIN, canonical_json(origin.document()))


def read_origin(store: ObjectStore) -> ProductOrigin | None:
    """What was said in a product's folder; None where nothing was, as in stores of before.

    Raises:
        StorageError: as `ObjectStore.get`.
    """
    with suppress(NotFoundError, ValidationError):
        return ProductOrigin.model_validate_json(store.get(ORIGIN))
    return None


def _inputs(run: RunFile) -> list[Input]:
    match run:
        case DatasetBuildFile(spec=spec):
            tokenizer = spec.tokenizer.from_
            return [Input(uri=tokenizer.uri)] if tokenizer is not None else []
        case PretrainRunFile(dataset=dataset, initialize=initialize):
            return [one for one in (dataset, initialize) if one is not None]
        case AlignmentRunFile(base=base, reward_models=rewards, judge=judge):
            return [base, *rewards, *([judge] if judge is not None else [])]

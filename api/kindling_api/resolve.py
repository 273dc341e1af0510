"""From a document to the run file that a process gets: references replaced by products, and a key that names the work.

Pure, and used by the command line and the operator alike, so that both give the same work the same key. What a key is,
and what is left out of it, is in docs/design/0001-keys-and-folders.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, assert_never

from kindling_api.base import Kind, key_of
from kindling_api.documents import Document
from kindling_api.errors import SpecError, explain
from kindling_api.references import Reference, Use, reference_to, uses
from kindling_api.v1alpha1.alignment_run import AlignmentRun, AlignmentRunSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuild, DatasetBuildSpec
from kindling_api.v1alpha1.pretrain_run import PretrainRun, PretrainRunSpec
from kindling_api.v1alpha1.resources import CONTENT_FREE_FIELDS
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, Input, PretrainRunFile, RunFile
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.v1alpha1.training import CONTENT_FREE_TRAINING_FIELDS, PretrainingSpec, TrainingSpec
from kindling_api.v1alpha1.windows import merged
from kindling_api.versions import ALIGNMENT_VERSION, PRETRAIN_VERSION, step_versions

Spec = DatasetBuildSpec | PretrainRunSpec | AlignmentRunSpec

PATH_FIELDS = frozenset({"uri", "model", "blocklist"})
"""Fields of a dataset's content that hold a URI or a path."""

REFERENCE_FIELDS = frozenset({"dataset", "initialize", "base"})
"""Fields (Python names) that only point at products; in a key their place is taken by the products' digests."""


@dataclass(frozen=True)
class Finished:
    """A product that is there."""

    uri: str
    """The product's folder."""
    digest: str
    """Digest of its manifest."""
    storage: StorageSpec | None = None
    """How to reach it, where that differs from the storage of the run that reads it."""


@dataclass(frozen=True)
class Waiting:
    """A document cannot run yet."""

    references: tuple[Reference, ...]
    """What it waits for; a model whose kind is left open counts as a PretrainRun."""


def resolve(
    document: Document, *, storage: StorageSpec, finished: Mapping[Reference, Finished], attempt: int = 1
) -> RunFile | Waiting:
    """The run file of `document`, or what it still waits for.

    Args:
        storage: where products are kept unless the document has a storage of its own.
        finished: the products that are there, by the documents that made them.
        attempt: which attempt this is, from 1.

    Raises:
        SpecError: a reference that leaves the kind open could mean two finished products.
    """
    inputs: dict[str, list[Input]] = {"dataset": [], "initialize": [], "base": [], "reward": []}
    waiting: list[Reference] = []
    for use in uses(document):
        product = _input(document, use, finished)
        if product is None:
            waiting.append(use.candidates[0])
        else:
            inputs.setdefault(use.role, []).append(
                product
            )  # no model that compares, no role: the key of such a run stays as it was
    if waiting:
        return Waiting(tuple(waiting))
    return _run_file(document, document.spec.storage or storage, inputs, attempt)


def with_own_key(run: PretrainRunFile | AlignmentRunFile) -> PretrainRunFile | AlignmentRunFile:
    """The run file with the key of what it holds, as where a digest was added of which only the URI was known."""
    inputs: dict[str, list[Input]] = {"dataset": [], "initialize": [], "base": [], "reward": []}
    if isinstance(run, PretrainRunFile):
        inputs |= {"dataset": [run.dataset], "initialize": [run.initialize] if run.initialize is not None else []}
    else:
        inputs |= {"base": [run.base], "reward": list(run.reward_models)}
        inputs |= {"judge": [run.judge]} if run.judge is not None else {}
    return run.model_copy(update={"key": _key(run.kind, run.spec, inputs)})


def content_of(spec: Spec) -> dict[str, Any]:
    """The part of a spec that decides the result, in one form however it was written: what keys and manifests hold.

    Defaults are filled in, counts are integers, a preset is its sizes, and rule sets are sorted, since they run in a
    fixed order. References are left out: the digests of what they point at stand for them.
    """
    left_out = CONTENT_FREE_FIELDS | REFERENCE_FIELDS
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=set(left_out))
    if isinstance(spec, DatasetBuildSpec):
        for source in content["sources"]:
            source.get("storage", {}).pop("credentialsSecret", None)
        content["filters"] = [one.document() for one in sorted(spec.filters, key=lambda one: one.chosen[0])]
    else:
        content["training"] = _recipe(spec.training)
        if spec.training.keep_best is not None:  # which weights are taken depends on what is evaluated
            content["training"]["keepBest"] |= {"every": spec.evaluation.every, "batches": spec.evaluation.batches}
    if isinstance(spec, PretrainRunSpec):
        content["model"] = spec.model.shape().document()
        if spec.training.steps is not None:  # else a batch that is left open depends on the dataset
            content["training"]["batch"]["tokens"] = spec.batch_plan().tokens
    if isinstance(spec, AlignmentRunSpec):
        _drop_reward_models(content["method"])
        grpo = content["method"].get("grpo", {})
        for name, default in (("estimator", "grpo"), ("maskCut", False)):  # the key is that of before there were these
            if grpo.get(name) == default:
                del grpo[name]
        if spec.lora is not None and spec.lora.targets is not None:  # a set, in whatever order it was written
            content["adapter"]["lora"]["targets"] = sorted(spec.lora.targets)
    return content


def without_folders(content: Any) -> Any:
    """The content of a spec as it reads on every machine: local paths begin with their last fixed part.

    What lies at a path is told by digests, wherever the path is; see docs/design/0001-keys-and-folders.md.

    >>> without_folders({"sources": [{"uri": "/home/me/books/*/*.jsonl"}, {"uri": "s3://raw/*.jsonl"}]})
    {'sources': [{'uri': 'books/*/*.jsonl'}, {'uri': 's3://raw/*.jsonl'}]}
    """
    if isinstance(content, list):
        return [without_folders(item) for item in content]
    if not isinstance(content, dict):
        return content
    return {
        key: shown_path(value) if key in PATH_FIELDS and isinstance(value, str) else without_folders(value)
        for key, value in content.items()
    }


def shown_path(uri: str) -> str:
    """A local path from its last fixed part on: the file, the folder, or that in which a glob begins."""
    if not is_local(uri):
        return uri
    parts = uri.removeprefix("file://").rstrip("/").split("/")
    fixed = list(takewhile(lambda part: not any(character in part for character in "*?["), parts))
    return "/".join(parts[max(len(fixed) - 1, 0) :]).lstrip("/")


def is_local(uri: str) -> bool:
    """Whether a source's URI is a path of this machine."""
    return "://" not in uri.removeprefix("file://") and not uri.startswith("builtin")


def _input(document: Document, use: Use, finished: Mapping[Reference, Finished]) -> Input | None:
    if use.uri is not None:
        return Input(uri=use.uri)
    there = [candidate for candidate in use.candidates if candidate in finished]
    if len(there) > 1:
        raise SpecError(
            explain(
                f"{reference_to(document)}: {use.field}",
                found=f"the name {there[0].name}, which a PretrainRun and an AlignmentRun have",
                allowed="one finished run",
                remedy="add kind: PretrainRun or kind: AlignmentRun",
            )
        )
    if not there:
        return None
    product = finished[there[0]]
    return Input(uri=product.uri, digest=product.digest, storage=product.storage)


def _run_file(document: Document, output: StorageSpec, inputs: dict[str, list[Input]], attempt: int) -> RunFile:
    common: dict[str, Any] = {
        "name": document.metadata.name,
        "namespace": document.metadata.namespace,
        "uid": document.metadata.uid,
        "attempt": attempt,
        "output": output,
        "key": _key(document.kind, document.spec, inputs),
    }
    match document:
        case DatasetBuild(spec=build):
            return DatasetBuildFile(**common, spec=build)
        case PretrainRun(spec=pretraining):
            initialize = inputs["initialize"][0] if inputs["initialize"] else None
            return PretrainRunFile(**common, spec=pretraining, dataset=inputs["dataset"][0], initialize=initialize)
        case AlignmentRun(spec=alignment):
            rewards, judge = tuple(inputs["reward"]), next(iter(inputs.get("judge", ())), None)
            return AlignmentRunFile(
                **common, spec=alignment, base=inputs["base"][0], reward_models=rewards, judge=judge
            )
        case _:
            assert_never(document)


def _key(kind: Kind, spec: Spec, inputs: Mapping[str, Sequence[Input]]) -> str:
    """A product without a digest counts by its URI, until somebody has read it; local data by what it holds alone."""
    content = content_of(spec)
    if isinstance(spec, AlignmentRunSpec):
        for entry in (*content["data"], *content["validation"]["data"]):
            entry["uri"] = "" if is_local(entry["uri"]) else entry["uri"]
    return key_of(
        {
            "kind": kind,
            "spec": content,
            "inputs": {role: [one.digest or one.uri for one in products] for role, products in inputs.items()},
            "versions": _versions(spec),
        }
    )


def _versions(spec: Spec) -> dict[str, int]:
    if isinstance(spec, DatasetBuildSpec):
        return step_versions(spec)
    return {"train": PRETRAIN_VERSION if isinstance(spec, PretrainRunSpec) else ALIGNMENT_VERSION}


def _recipe(training: TrainingSpec) -> dict[str, Any]:
    recipe = training.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude=set(CONTENT_FREE_TRAINING_FIELDS)
    )
    recipe["batch"].pop("microBatch", None)
    recipe.pop("skip", None)
    if isinstance(training, PretrainingSpec) and training.skip:  # without, the key is that of before there was a skip
        recipe["skip"] = [one.document() for one in merged(training.skip)]
    if not recipe.get("documentMask"):  # likewise
        recipe.pop("documentMask", None)
    return recipe


def _drop_reward_models(method: dict[str, Any]) -> None:
    method.get("ppo", {}).pop("rewardModel", None)
    for name in ("ppo", "grpo"):
        for reward in method.get(name, {}).get("rewards", ()):
            if "model" in reward:
                reward["model"] = {}

"""`kindling plan`: what `kindling run` would do with these documents. Nothing is started or written."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kindling_api.documents import Document
from kindling_api.references import Reference, Use, order, reference_to, uses
from kindling_api.resolve import Finished, Waiting, content_of, resolve, without_folders
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.pretrain_run import PretrainRun
from kindling_api.v1alpha1.products import DatasetManifest, ModelManifest, model_folder
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.versions import step_versions
from kindling_cli.figures import byte_size, duration, flops, short_count, short_digest
from kindling_cli.flow import finished_product
from kindling_cli.load import load_documents
from kindling_cli.pairs import pairs_table
from kindling_cli.places import shown, storage_of
from kindling_cli.plans import (
    AlignmentPlan,
    DatasetPlan,
    PretrainPlan,
    plan_alignment,
    plan_dataset,
    plan_pretraining,
)
from kindling_cli.products import model_in, tokens_in
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest
from kindling_trainer.align.dry_run import BaseTokens, dry_run
from kindling_trainer.estimate import Memory
from kindling_trainer.inputs import with_contents

NOTHING = "Nothing was started or written."
MATRIX = 1024
"""Side of the matrices whose product is timed."""
CPU_EFFICIENCY = 0.5
"""Part of a matrix product's speed that a training step reaches on a CPU, as a rough guide."""


def plan_files(
    files: Sequence[Path], *, store: str, overrides: Sequence[str], flops_per_second: float | None, as_json: bool
) -> None:
    """Print the plan of the documents.

    Raises:
        SpecError: the documents are wrong.
        StorageError: the store cannot be read.
    """
    storage = storage_of(store)
    planner = _Planner(storage, flops_per_second)
    documents = order(
        load_documents(files, overrides), exists=lambda reference: finished_product(storage, reference) is not None
    )
    plans = [planner.plan(document) for document in documents]
    if as_json:
        print(json.dumps([plan.document() for plan in plans], indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(Text(f"{len(plans)} documents in this order, kept in {shown(storage.uri)}", "dim"))
    for plan in plans:
        console.print()
        console.print(_heading(plan))
        console.print(pairs_table(_pairs(plan)))
    console.print()
    console.print(Text(planner.assumption, "dim"))


def measured_flops() -> float:
    """FLOP/s of an fp32 matrix product on this machine's CPU, the best of a few."""
    import numpy as np

    matrix = np.ones((MATRIX, MATRIX), dtype=np.float32)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX**3 / best


class _Planner:
    """Plans documents in their order, and remembers what those before it make."""

    def __init__(self, storage: StorageSpec, flops_per_second: float | None) -> None:
        self._storage = storage
        self._given = flops_per_second
        self._datasets: dict[Reference, DatasetManifest] = {}
        self._vocabularies: dict[Reference, int | None] = {}
        self._models: dict[Reference, tuple[ModelShape, int | None]] = {}
        self.assumption = NOTHING

    def plan(self, document: Document) -> DatasetPlan | PretrainPlan | AlignmentPlan:
        if isinstance(document, DatasetBuild):
            return self._plan_dataset(document)
        if isinstance(document, PretrainRun):
            return self._plan_pretraining(document)
        return self._plan_alignment(document)

    def _plan_dataset(self, document: DatasetBuild) -> DatasetPlan:
        reference = reference_to(document)
        manifest = self._newest_dataset(reference, document.spec.storage or self._storage)
        same = manifest is not None and manifest.spec == without_folders(content_of(document.spec))
        if manifest is not None and same and manifest.versions == step_versions(document.spec):
            self._datasets[reference] = manifest
        plan = plan_dataset(str(reference), document.spec, self._datasets.get(reference))
        self._vocabularies[reference] = plan.vocab_size
        return plan

    def _newest_dataset(self, reference: Reference, storage: StorageSpec) -> DatasetManifest | None:
        product = finished_product(storage, reference)
        return read_manifest(open_store(product.uri), DatasetManifest) if product else None

    def _plan_pretraining(self, document: PretrainRun) -> PretrainPlan:
        source = document.spec.dataset
        reference = Reference("DatasetBuild", document.metadata.namespace, source.name or "")
        manifest = self._datasets.get(reference)
        if source.uri is not None:
            manifest = read_manifest(open_store(storage_of(source.uri).uri), DatasetManifest)
        elif reference not in self._vocabularies:
            manifest = self._newest_dataset(reference, self._storage)
        vocab_size = manifest.tokenizer.vocab_size if manifest else self._vocabularies.get(reference)
        self._models[reference_to(document)] = (document.spec.model.shape(), vocab_size)
        return plan_pretraining(
            str(reference_to(document)),
            document.spec,
            vocab_size=vocab_size,
            dataset_tokens=manifest.train_tokens if manifest else None,
            finished=self._finished_model(document, manifest),
            flops_per_second=self._speed(document),
        )

    def _finished_model(self, document: PretrainRun, manifest: DatasetManifest | None) -> str | None:
        """Digest of the finished model, where its dataset is there and so its key can be known."""
        finished = {}
        if document.spec.dataset.name and manifest is not None:
            reference = Reference("DatasetBuild", document.metadata.namespace, document.spec.dataset.name)
            finished[reference] = Finished(uri="", digest=manifest.digest)
        run_file = resolve(document, storage=self._storage, finished=finished)
        if isinstance(run_file, Waiting):
            return None
        model = read_manifest(open_store(run_file.output).child(model_folder(run_file.key)), ModelManifest)
        return model.digest if model else None

    def _plan_alignment(self, document: AlignmentRun) -> AlignmentPlan:
        shape, vocab_size, base = self._base(document)
        judges = [self._model(use)[:2] for use in uses(document) if use.role in ("reward", "judge")]
        self._models[reference_to(document)] = (shape, vocab_size)
        storage = document.spec.storage or self._storage
        open_data = partial(open_store, endpoint=storage.endpoint, region=storage.region)
        return plan_alignment(
            str(reference_to(document)),
            document.spec,
            shape=shape,
            vocab_size=vocab_size,
            judges=judges,
            found=dry_run(document.spec, base, open_data),
            finished=self._finished_alignment(document),
            flops_per_second=self._speed(document),
        )

    def _finished_alignment(self, document: AlignmentRun) -> str | None:
        """Digest of the finished model, where what it learns from is as it was."""
        references = [reference for use in uses(document) for reference in use.candidates]
        there = {reference: finished_product(self._storage, reference) for reference in references}
        finished = {reference: product for reference, product in there.items() if product is not None}
        run_file = resolve(document, storage=self._storage, finished=finished)
        if isinstance(run_file, Waiting):
            return None
        assert isinstance(run_file, AlignmentRunFile)
        folder = open_store(run_file.output).child(model_folder(with_contents(run_file).key))
        model = read_manifest(folder, ModelManifest)
        return model.digest if model else None

    def _base(self, document: AlignmentRun) -> tuple[ModelShape, int | None, BaseTokens | None]:
        """Shape and vocabulary of the model to align: planned before, finished, or in a folder; with its tokens, where
        it is there."""
        (use,) = (use for use in uses(document) if use.role == "base")
        shape, vocab_size, store = self._model(use)
        return shape, vocab_size, None if store is None else tokens_in(store, shape)

    def _model(self, use: Use) -> tuple[ModelShape, int | None, ObjectStore | None]:
        """Shape and vocabulary of a model: planned before, finished, or in a folder; with its folder, where it is
        there."""
        for reference in use.candidates:
            if reference in self._models:
                return *self._models[reference], None
        found = (finished_product(self._storage, reference) for reference in use.candidates)
        uri = next((product.uri for product in found if product is not None), use.uri)
        assert uri is not None, "order() has found every reference among the documents or in the store"
        store = open_store(storage_of(uri).uri)
        return *model_in(store, scored=use.role != "base"), store

    def _speed(self, document: PretrainRun | AlignmentRun) -> float | None:
        """FLOP/s of all processes together."""
        processes = document.spec.resources.processes
        if self._given is not None:
            self.assumption = f"Time: at {flops(self._given)} FLOP/s a process, as given. {NOTHING}"
            return self._given * processes
        if document.spec.resources.gpu is not None:
            return None
        speed = measured_flops()
        self.assumption = (
            f"Time: at {CPU_EFFICIENCY:.0%} of the {speed / 1e9:.0f} GFLOP/s that a matrix product reaches on this"
            f" machine's CPU; give --flops for another one. {NOTHING}"
        )
        return CPU_EFFICIENCY * speed


def _pairs(plan: DatasetPlan | PretrainPlan) -> list[tuple[str, str]]:
    if isinstance(plan, DatasetPlan):
        return _dataset_pairs(plan)
    if not isinstance(plan, AlignmentPlan):
        return _pretrain_pairs(plan)
    judged = f", judged by {shown(plan.judge)}" if plan.judge else ""
    return [
        ("method", f"{plan.method}, from {shown(plan.base)}{judged}"),
        ("data", ", ".join(f"{shown(uri)} ({form})" for uri, form in zip(plan.data, plan.forms, strict=True))),
        ("records", _records(plan)),
        *_pretrain_pairs(plan),
    ]


def _records(plan: AlignmentPlan) -> str:
    said = f"{plan.learnt:,} of {plan.records:,} to learn or try"
    if plan.data_tokens:
        said += f", {short_count(plan.data_tokens)} tokens"
    if plan.data_tokens and plan.counted_tokens:
        said += f", of which {plan.counted_tokens / plan.data_tokens:.0%} count"
    return "; ".join([said, *plan.remarks])


def _heading(plan: DatasetPlan | PretrainPlan) -> Text:
    state = f"finished, digest {short_digest(plan.finished)}" if plan.finished else "to do"
    return Text.assemble((plan.title, "bold"), "  ", (state, "green" if plan.finished else "cyan"))


def _dataset_pairs(plan: DatasetPlan) -> list[tuple[str, str]]:
    vocabulary = f"vocabulary {plan.vocab_size:,}" if plan.vocab_size else "vocabulary known once it is built"
    pairs = [
        ("sources", ", ".join(map(shown, plan.sources))),
        ("filters", ", ".join(plan.filters) or "none"),
        ("duplicates", ", ".join(plan.deduplicate) or "stay"),
        ("tokenizer", f"{plan.tokenizer}, {vocabulary}"),
    ]
    return [*pairs, ("tokens", f"{plan.tokens:,} to train on")] if plan.tokens else pairs


def _pretrain_pairs(plan: PretrainPlan) -> list[tuple[str, str]]:
    shape, batch = plan.shape, plan.batch
    heads = f"{shape.heads} heads" + (f" ({shape.kv_heads} for keys)" if shape.kv_heads != shape.heads else "")
    sizes = f"{shape.layers} layers, width {shape.width}, {heads}, context {shape.context:,}"
    assumed = " (assumed: the build will tell)" if plan.vocab_assumed else ""
    cut = f"{batch.micro_batch} sequences × {batch.accumulation} accumulated × {plan.layout.batch_ranks} ranks"
    waiting = f"; stages wait for one another {plan.bubble:.0%} of the time" if plan.bubble else ""
    later = "known once the data is read" if isinstance(plan, AlignmentPlan) else "known once the dataset is built"
    return [
        ("model", f"{shape.architecture}, {sizes}"),
        ("parameters", f"{plan.parameters:,}, vocabulary {plan.vocab_size:,}{assumed}"),
        ("layout", f"{_layout(plan.layout)}, {plan.precision}{waiting}"),
        ("batch", f"{batch.tokens:,} tokens = {cut}"),
        ("steps", f"{plan.steps:,}, {short_count(plan.tokens)} tokens" if plan.steps and plan.tokens else later),
        ("memory", _memory(plan.memory)),
        ("arithmetic", f"{flops(plan.flops)} FLOPs" if plan.flops else later),
        ("time", f"about {duration(plan.seconds)}" if plan.seconds else "give --flops for an estimate"),
        ("checkpoint", byte_size(plan.checkpoint_bytes)),
    ]


def _layout(layout: Layout) -> str:
    degrees = [f"{name} {degree}" for name, degree in layout if isinstance(degree, int) and degree > 1]
    return " × ".join(degrees) or "one process"


def _memory(memory: Memory) -> str:
    parts = [f"{name.replace('_', ' ')} {byte_size(size)}" for name, size in memory if size]
    return f"{byte_size(memory.total)} a process: {', '.join(parts)}"

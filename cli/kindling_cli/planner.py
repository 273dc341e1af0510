"""From documents to their plans: what is finished is looked up, what is to be made remembered, data looked at."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import TYPE_CHECKING

from kindling_api.documents import Document
from kindling_api.errors import DataError, IntegrityError, SpecError, StorageError, explain
from kindling_api.hub import is_hub
from kindling_api.references import Reference, Use, reference_to, uses
from kindling_api.resolve import Finished, Waiting, content_of, resolve, without_folders
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.dataset_build import DatasetBuild, DatasetBuildSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.pretrain_run import PretrainRun
from kindling_api.v1alpha1.products import MANIFEST, DatasetManifest, ModelManifest, model_folder
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.versions import step_versions
from kindling_cli.flow import finished_product
from kindling_cli.machine import check_gpus
from kindling_cli.plans import (
    ASSUMED_BYTES_PER_TOKEN,
    BYTE_VOCABULARY,
    AlignmentPlan,
    DatasetPlan,
    PretrainPlan,
    plan_alignment,
    plan_dataset,
    plan_pretraining,
)
from kindling_cli.product_folders import shown, storage_of
from kindling_cli.products import check_whole, model_in, tokens_in
from kindling_cli.remarks import Machine
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import AnyManifest, faults_of, read_manifest
from kindling_storage.globs import OpenStore

if TYPE_CHECKING:
    from kindling_dataprep.estimate import BuildEstimate
    from kindling_dataprep.first_look import FirstLook

Plan = DatasetPlan | PretrainPlan | AlignmentPlan
CONFIG = "config.json"
"""What every model in Hugging Face form has."""
Speed = Callable[[TrainingResources], float | None]
"""FLOP/s of all processes of a run together, where it is known."""


class Planner:
    """Plans documents in their order, and remembers what those before it make.

    Args:
        storage: where products are kept unless a document has a storage of its own.
        speed: how fast a run would be.
        machine: what a run would find.
        running: whether the documents run next. Then every store must answer, and what of a dataset's inputs has
            changed within a file of the same size is left to the build.
    """

    def __init__(self, storage: StorageSpec, speed: Speed, machine: Machine, *, running: bool) -> None:
        self._storage = storage
        self._speed = speed
        self._machine = machine
        self._running = running
        self._products: dict[Reference, Finished | None] = {}
        self._vocabularies: dict[Reference, int | None] = {}
        self._estimates: dict[Reference, BuildEstimate] = {}
        self._bytes_per_token: dict[Reference, float] = {}
        self._models: dict[Reference, tuple[ModelShape, int | None]] = {}
        self._damaged: list[str] = []

    def plan(self, document: Document) -> Plan:
        """The plan of a document; those that it refers to have been planned, or are finished.

        Raises:
            UserError: the document, or the data that it names, is wrong; the message begins with its name.
            IntegrityError: what it refers to, and what is not made again by a document before it, is damaged; likewise.
        """
        self._damaged = []
        try:
            plan = self._plan(document)
        except (SpecError, DataError, IntegrityError) as error:
            raise type(error)(f"{reference_to(document)}: {error}") from error
        return plan.model_copy(update={"remarks": [*self._damaged, *plan.remarks]}) if self._damaged else plan

    def _plan(self, document: Document) -> Plan:
        if isinstance(document, DatasetBuild):
            return self._plan_dataset(document)
        if self._running:
            check_gpus(document.spec.resources, self._machine)
        if isinstance(document, PretrainRun):
            return self._plan_pretraining(document)
        return self._plan_alignment(document)

    def _plan_dataset(self, document: DatasetBuild) -> DatasetPlan:
        reference, storage = reference_to(document), document.spec.storage or self._storage
        look = self._look(document.spec, storage)
        manifest = self._finished_dataset(document, storage, look)
        estimate = None if manifest is not None or self._running else self._estimate(document.spec, storage, look)
        if estimate is not None:
            self._estimates[reference] = estimate
        plan = plan_dataset(str(reference), document.spec, manifest, look, estimate)
        self._vocabularies[reference] = plan.vocab_size
        return plan

    def _estimate(self, spec: DatasetBuildSpec, storage: StorageSpec, look: FirstLook) -> BuildEstimate | None:
        if not look.files:
            return None
        from kindling_dataprep.estimate import estimate  # not above: what a build takes

        return estimate(spec, look.files, _opener(storage))

    def _look(self, spec: DatasetBuildSpec, storage: StorageSpec) -> FirstLook:
        """A first look at a build's sources; where their store is out of reach, only a build must stop for that."""
        from kindling_dataprep.first_look import FirstLook, first_look  # not above: Arrow takes time to load

        try:
            return first_look(spec, _opener(storage))
        except StorageError as error:
            if self._running:
                raise
            return FirstLook([], [f"the sources were not looked at: {error}"])

    def _finished_dataset(
        self, document: DatasetBuild, storage: StorageSpec, look: FirstLook
    ) -> DatasetManifest | None:
        """The dataset that there is nothing to do for, if it is there."""
        from kindling_dataprep.first_look import finished_build  # not above: as before

        reference = reference_to(document)
        self._products[reference] = None
        product = finished_product(storage, reference)
        manifest = self._made(self._open(product.uri), DatasetManifest) if product is not None else None
        same = manifest is not None and manifest.spec == without_folders(content_of(document.spec))
        if product is None or manifest is None or not same or manifest.versions != step_versions(document.spec):
            return None
        if not self._running:
            run = resolve(document, storage=self._storage, finished={})
            assert isinstance(run, DatasetBuildFile), "a build refers to nothing"
            manifest = finished_build(run, self._open(product.uri), look, _opener(storage))
        if manifest is not None:
            self._products[reference] = Finished(uri=product.uri, digest=manifest.digest)
        return manifest

    def _made(self, store: ObjectStore, model: type[AnyManifest]) -> AnyManifest | None:
        """The manifest of what a document has made; None where it is to be made, or made again as it is damaged."""
        faults = faults_of(store, model)
        if faults:
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            self._damaged.append(f"damaged, and made again: {shown(store.uri)}: {faults[0]}{more}")
            return None
        return read_manifest(store, model)

    def _dataset(self, product: Finished) -> DatasetManifest | None:
        """The manifest of a dataset that is to be read.

        Raises:
            IntegrityError: it is damaged.
        """
        store = self._open(product.uri)
        check_whole(store)
        return read_manifest(store, DatasetManifest)

    def _plan_pretraining(self, document: PretrainRun) -> PretrainPlan:
        (use,) = (use for use in uses(document) if use.role == "dataset")
        manifest = self._dataset_of(use)
        vocab_size = manifest.tokenizer.vocab_size if manifest else None
        tokens, estimate = manifest.train_tokens if manifest else None, None
        for reference in use.candidates:
            vocab_size = vocab_size or self._vocabularies.get(reference)
            estimate = estimate or self._estimates.get(reference)
        if estimate is not None:
            tokens = tokens or estimate.tokens
            self._bytes_per_token[reference_to(document)] = estimate.bytes_per_token
        shape = document.spec.model.shape()
        if manifest is not None:
            from kindling_trainer.data.documents import check_has_ends  # not above: as before
            from kindling_trainer.data.order import check_enough

            check_enough(manifest.train_tokens, shape.context)
            check_has_ends(document.spec.training, manifest)
        for use in uses(document):
            if use.role == "initialize":
                self._read_model(use)
        self._models[reference_to(document)] = (shape, vocab_size)
        return plan_pretraining(
            str(reference_to(document)),
            document.spec,
            vocab_size=vocab_size,
            dataset_tokens=tokens,
            estimated=manifest is None,
            finished=self._finished_run(document),
            flops_per_second=self._speed(document.spec.resources),
            machine=self._machine,
        )

    def _read_model(self, use: Use) -> tuple[ModelShape, int | None]:
        """Shape and vocabulary of a model that a run reads beside its base, or starts from.

        Raises:
            SpecError: its folder is no model that the run could read.
        """
        shape, vocab_size, store = self._model(use)
        if store is not None and not store.exists(MANIFEST):
            tokens_in(store, shape)
        return shape, vocab_size

    def _dataset_of(self, use: Use) -> DatasetManifest | None:
        """Of the dataset to train on; None where it is still to be built.

        Raises:
            DataError: it is named by its folder, and is not there.
        """
        if use.uri is None:
            (reference,) = use.candidates
            product = self._product(reference)
            return self._dataset(product) if product is not None else None
        manifest = read_manifest(self._open(storage_of(use.uri).uri), DatasetManifest)
        if manifest is None:
            remedy = "run the DatasetBuild first, or correct the path"
            allowed = "the folder of a finished dataset"
            raise DataError(
                explain(f"{use.field}.uri", found=f"no dataset in {use.uri}", allowed=allowed, remedy=remedy)
            )
        return manifest

    def _plan_alignment(self, document: AlignmentRun) -> AlignmentPlan:
        from kindling_trainer.align.data.dry_run import dry_run  # not above: numpy and jinja take a while to load

        (use,) = (use for use in uses(document) if use.role == "base")
        shape, vocab_size, store = self._model(use)
        judges = [self._read_model(use) for use in uses(document) if use.role in ("reward", "judge")]
        self._models[reference_to(document)] = (shape, vocab_size)
        ratio = self._ratio(use, vocab_size)
        self._bytes_per_token[reference_to(document)] = ratio
        base = None if store is None else tokens_in(store, shape)
        found = dry_run(document.spec, base, _opener(document.spec.storage or self._storage))
        return plan_alignment(
            str(reference_to(document)),
            document.spec,
            shape=shape,
            vocab_size=vocab_size,
            judges=judges,
            found=found,
            bytes_per_token=ratio,
            finished=self._finished_run(document),
            flops_per_second=self._speed(document.spec.resources),
            machine=self._machine,
        )

    def _ratio(self, base: Use, vocab_size: int | None) -> float:
        """Bytes of a token of the base, where only an estimate knows its tokenizer."""
        known = (self._bytes_per_token.get(reference) for reference in base.candidates)
        assumed = 1.0 if vocab_size == BYTE_VOCABULARY else ASSUMED_BYTES_PER_TOKEN
        return next((ratio for ratio in known if ratio is not None), assumed)

    def _model(self, use: Use) -> tuple[ModelShape, int | None, ObjectStore | None]:
        """Shape and vocabulary of a model: planned before, finished, or in a folder; with its folder, where it is
        there."""
        for reference in use.candidates:
            if reference in self._models:
                finished = self._products.get(reference)
                return *self._models[reference], None if finished is None else self._open(finished.uri)
        found = (self._product(reference) for reference in use.candidates)
        uri = next((product.uri for product in found if product is not None), use.uri)
        assert uri is not None, "order() has found every reference among the documents or in the store"
        store = self._open(uri if is_hub(uri) else storage_of(uri).uri)
        check_whole(store)
        _check_there(use, store)
        return *model_in(store, scored=use.role in ("reward", "judge")), store

    def _finished_run(self, document: PretrainRun | AlignmentRun) -> str | None:
        """Digest of the finished model, where there is nothing to do for it; what it reads is finished, too."""
        products = {
            reference: self._product(reference) for use in uses(document) for reference in _meant(use, self._products)
        }
        finished = {reference: product for reference, product in products.items() if product is not None}
        reference = reference_to(document)
        self._products[reference] = None
        run_file = resolve(document, storage=self._storage, finished=finished)
        if isinstance(run_file, Waiting):
            return None
        assert not isinstance(run_file, DatasetBuildFile), "a run is no build"
        from kindling_trainer.align.data.sources import with_contents  # not above: as before
        from kindling_trainer.data.identity import with_digests

        run_file = with_digests(run_file)
        run_file = with_contents(run_file) if isinstance(run_file, AlignmentRunFile) else run_file
        store = open_store(run_file.output).child(model_folder(run_file.key))
        manifest = self._made(store, ModelManifest)
        if manifest is None:
            return None
        self._products[reference] = Finished(uri=store.uri, digest=manifest.digest)
        return manifest.digest

    def _product(self, reference: Reference) -> Finished | None:
        """What a document has made: one planned before, if there is nothing to do for it; else the newest."""
        if reference in self._products:
            return self._products[reference]
        return finished_product(self._storage, reference)

    def _open(self, uri: str) -> ObjectStore:
        return _opener(self._storage)(uri)


def _check_there(use: Use, store: ObjectStore) -> None:
    """Refuse a folder in which there is no model at all; what is wrong with one, whoever reads it tells.

    Raises:
        SpecError: it is not there, or holds something else.
    """
    if use.uri is None or is_hub(use.uri) or store.exists(MANIFEST) or store.exists(CONFIG):
        return
    found = f"no model in {shown(store.uri)}"
    allowed = f"the folder of a finished run, or a Hugging Face folder, with its {CONFIG}"
    remedy = "make or fetch the model first, or correct the path"
    raise SpecError(explain(f"{use.field}.uri", found=found, allowed=allowed, remedy=remedy))


def _meant(use: Use, planned: Container[Reference]) -> list[Reference]:
    """The documents that may be meant: those among the planned ones first, as they are when it runs."""
    return [reference for reference in use.candidates if reference in planned] or list(use.candidates)


def _opener(storage: StorageSpec) -> OpenStore:
    """Opens stores that are reached as `storage` is, where both are S3."""
    return partial(open_store, endpoint=storage.endpoint, region=storage.region)

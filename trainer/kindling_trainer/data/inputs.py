"""What a run reads, opened and checked. Torch-free, so that a wrong input is refused before anything starts."""

from __future__ import annotations

from kindling_api.errors import DataError, IntegrityError, SpecError, explain
from kindling_api.v1alpha1.products import MODEL_FOLDER, CheckpointManifest, DatasetManifest, Manifest, ModelManifest
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Input, PretrainRunFile
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest
from kindling_trainer.data.order import check_enough

TrainingRun = PretrainRunFile | AlignmentRunFile


def learns_tokens(run: TrainingRun) -> bool:
    """Whether the run's loss is in nats a token, so that e to it is a perplexity."""
    return isinstance(run, PretrainRunFile) or run.spec.method.sft is not None


def check_inputs(run: TrainingRun) -> None:
    """Refuse inputs that are missing, damaged or unfit, before any process is started.

    Raises:
        UserError: they are.
    """
    read_base(run)
    if isinstance(run, PretrainRunFile):
        read_dataset(run)


def read_dataset(run: PretrainRunFile) -> tuple[ObjectStore, DatasetManifest]:
    """The dataset's folder and manifest, checked against the run.

    Raises:
        DataError: there is no finished dataset, or it is smaller than one window.
        IntegrityError: it is another one than the run was made for.
    """
    store = input_store(run.dataset, run)
    manifest = read_manifest(store, DatasetManifest)
    if manifest is None:
        raise DataError(
            explain(
                run.dataset.uri,
                found="no manifest.json",
                allowed="the folder of a finished dataset",
                remedy="run the DatasetBuild first, or correct spec.dataset.uri",
            )
        )
    if run.dataset.digest not in (None, manifest.digest):
        raise _changed(run.dataset, "a dataset", manifest.digest)
    check_enough(manifest.train_tokens, run.spec.model.shape().context)
    return store, manifest


def input_store(given: Input, run: TrainingRun) -> ObjectStore:
    """The folder of a product that the run reads; in the run's own store unless it says otherwise."""
    storage = given.storage or run.output
    return open_store(given.uri, endpoint=storage.endpoint, region=storage.region)


def read_base(run: TrainingRun) -> ModelManifest | CheckpointManifest | None:
    """The manifest of the model that the run starts from; None where there is no such model, or it is a Hugging Face
    folder, which has no manifest.

    Raises:
        SpecError: the folder holds another product, or what is to be aligned is a checkpoint, which has no tokenizer.
        IntegrityError: it is damaged, or is another one than the run was made for.
    """
    given = run.base if isinstance(run, AlignmentRunFile) else run.initialize
    if given is None:
        return None
    store = input_store(given, run)
    kind = read_manifest(store, _Kind)
    if kind is None:
        return None
    manifest: ModelManifest | CheckpointManifest | None
    if kind.kind == "Checkpoint" and run.kind == "PretrainRun":
        manifest = read_manifest(store, CheckpointManifest)
    elif kind.kind == "Model":
        manifest = read_manifest(store, ModelManifest)
    else:
        raise _no_base(store, kind.kind, aligning=run.kind == "AlignmentRun")
    if manifest is not None and given.digest not in (None, manifest.digest):
        raise _changed(given, "a model", manifest.digest)
    return manifest


def open_reward_model(given: Input, run: AlignmentRunFile) -> ObjectStore:
    """The Hugging Face folder of a model that scores answers.

    Raises:
        SpecError: the folder holds another product.
        IntegrityError: it is damaged, or is another one than the run was made for.
    """
    store = input_store(given, run)
    return store if read_reward_model(given, run) is None else store.child(MODEL_FOLDER)


def read_reward_model(given: Input, run: AlignmentRunFile) -> ModelManifest | None:
    """The manifest of a model that scores answers; None where it is a Hugging Face folder, which has no manifest.

    Raises:
        SpecError, IntegrityError: as `open_reward_model`.
    """
    store = input_store(given, run)
    kind = read_manifest(store, _Kind)
    if kind is None:
        return None
    if kind.kind != "Model":
        found, allowed = f"a {kind.kind.lower()}", "a finished reward model or a Hugging Face folder"
        remedy = "name an AlignmentRun with method reward"
        raise SpecError(explain(f"reward model: {store.uri}", found=found, allowed=allowed, remedy=remedy))
    manifest = read_manifest(store, ModelManifest)
    if manifest is not None and given.digest not in (None, manifest.digest):
        raise _changed(given, "a model", manifest.digest)
    return manifest


def _no_base(store: ObjectStore, kind: str, *, aligning: bool) -> SpecError:
    field, allowed = "spec.initialize.from", "a model, a checkpoint or a Hugging Face folder"
    remedy = "give the folder of a finished PretrainRun, or one of its checkpoints"
    if aligning:
        field, allowed = "spec.base", "a finished model or a Hugging Face folder"
        remedy = "give the folder of a finished run, or what `kindling export` makes of a checkpoint"
    return SpecError(explain(f"{field}: {store.uri}", found=f"a {kind.lower()}", allowed=allowed, remedy=remedy))


class _Kind(Manifest):
    kind: str


def _changed(given: Input, what: str, digest: str) -> IntegrityError:
    return IntegrityError(
        explain(
            given.uri,
            found=f"{what} with digest {digest}",
            allowed=f"the one with digest {given.digest}",
            remedy="make it again, or start the run anew",
        )
    )

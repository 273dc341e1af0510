"""One key for the same work, whether a document names what it reads or says where that lies. Torch-free."""

from __future__ import annotations

from kindling_api.resolve import with_own_key
from kindling_api.v1alpha1.products import MANIFEST, Manifest, model_folder
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Input, PretrainRunFile
from kindling_storage import open_store
from kindling_storage.origin import ORIGIN
from kindling_trainer.data.inputs import TrainingRun, read_base, read_dataset, read_reward_model


def with_digests(run: TrainingRun) -> TrainingRun:
    """The run, with the digest of each product that it was given the URI of, and the key that this makes: that of a run
    which refers to the products' documents. Folders that are no products, such as a Hub's, count by their URI.

    A pretraining that was begun under the key of its URIs, as versions before 0.2 had it, keeps that.

    Raises:
        UserError: a product is missing, damaged, or of another kind.
    """
    known = _alignment(run) if isinstance(run, AlignmentRunFile) else _pretraining(run)
    return run if known == run or _begun_before(run) else with_own_key(known)


def _pretraining(run: PretrainRunFile) -> PretrainRunFile:
    dataset = run.dataset if run.dataset.digest else _known(run.dataset, read_dataset(run)[1])
    initialize = run.initialize
    if initialize is not None and initialize.digest is None:
        initialize = _known(initialize, read_base(run))
    return run.model_copy(update={"dataset": dataset, "initialize": initialize})


def _alignment(run: AlignmentRunFile) -> AlignmentRunFile:
    def scoring(one: Input) -> Input:
        return one if one.digest else _known(one, read_reward_model(one, run))

    base = run.base if run.base.digest else _known(run.base, read_base(run))
    rewards = tuple(map(scoring, run.reward_models))
    judge = None if run.judge is None else scoring(run.judge)
    return run.model_copy(update={"base": base, "reward_models": rewards, "judge": judge})


def _known(given: Input, manifest: Manifest | None) -> Input:
    return given if manifest is None else given.model_copy(update={"digest": manifest.digest})


def _begun_before(run: TrainingRun) -> bool:
    before = open_store(run.output).child(model_folder(run.key))
    return isinstance(run, PretrainRunFile) and any(before.exists(path) for path in (MANIFEST, ORIGIN))

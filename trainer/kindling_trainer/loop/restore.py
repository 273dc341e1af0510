"""The state a run starts from: its own newest checkpoint, or else random weights or those of another model."""

from __future__ import annotations

import logging

import torch
from tokenizers import Tokenizer
from torch.distributed.tensor import DTensor

from kindling_api.errors import IntegrityError, SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import MODEL_FOLDER, CheckpointManifest, ModelManifest
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_storage import ObjectStore
from kindling_trainer.checkpoint.folders import Folder, checkpoint_store, drop_after, newest_whole
from kindling_trainer.checkpoint.huggingface import read_shape, read_tokenizer, read_weights
from kindling_trainer.checkpoint.load import load, model_state
from kindling_trainer.data.inputs import input_store, read_base
from kindling_trainer.loop.setup import Setup
from kindling_trainer.models import Decoder
from kindling_trainer.models.initialize import initialize, plain_name, set_whole
from kindling_trainer.models.lora import initialize_adapters
from kindling_trainer.models.scored import is_scored
from kindling_trainer.optim.adamw import set_finished_steps
from kindling_trainer.parallel.mesh import Ranks

log = logging.getLogger(__name__)

_SIZES = (
    "architecture",
    "layers",
    "heads",
    "kv_heads",
    "width",
    "ffn_width",
    "context",
    "rope_theta",
    "norm_epsilon",
    "tied_embeddings",
)
_OWN_SIZES = (*_SIZES, "bias")  # a Hugging Face folder has biases for GPT-2 in any case, be they zeros


def restore(setup: Setup) -> int:
    """Give model and optimizer their state: from the newest whole checkpoint, or from the beginning.

    Returns:
        The optimizer steps done.

    Raises:
        SpecError: the checkpoint is of another dataset, or the model to start from has other sizes or tokens.
    """
    found = _newest(setup)
    if found is None:
        _begin(setup)
        return 0
    folder, manifest = found
    _check_origin(setup, manifest)
    if setup.lora is not None:  # a checkpoint has the adapters alone
        _begin(setup)
    _load(setup, folder)
    setup.skipped.extend(manifest.skipped or ())
    setup.recent.extend(manifest.recent or ())
    setup.best.found = manifest.best
    return folder.step


def go_back(setup: Setup, until: int) -> tuple[Folder, CheckpointManifest] | None:
    """Give model and optimizer the state of the newest whole checkpoint of at most `until` steps, and delete those of
    more, of which none may be on its way. Where there is none, None, and all is as it was."""
    found = _newest(setup, until)
    if found is None:
        return None
    folder, _ = found
    _load(setup, folder)
    if setup.ranks.leads:
        drop_after(setup.store, folder.step)
    return found


def take_weights_of(setup: Setup, step: int) -> None:
    """Give model and optimizer the state that the run had after `step` steps, of which there is a checkpoint.

    Raises:
        IntegrityError: the checkpoint is damaged, or gone.
    """
    found = _newest(setup, step)
    if found is None or found[0].step != step:
        raise IntegrityError(
            f"{setup.store.uri}/checkpoints: the checkpoint after step {step}, which training.keepBest is to take, is "
            "not there whole. Delete the run's folder to train again."
        )
    _load(setup, found[0])


def _newest(setup: Setup, until: int | None = None) -> tuple[Folder, CheckpointManifest] | None:
    """The newest whole checkpoint, of at most `until` steps, as the first process finds it; damaged ones are kept."""
    leads, damaged = setup.ranks.leads, setup.damaged.append
    return setup.ranks.from_first(newest_whole(setup.store, until=until, damaged=damaged) if leads else None)


def _load(setup: Setup, folder: Folder) -> None:
    load(checkpoint_store(setup.store, folder), setup.state(), setup.ranks.control)
    set_finished_steps(setup.optimizer, folder.step)
    if setup.ranks.leads:
        log.info("continues from checkpoint %s", folder.name)


def _check_origin(setup: Setup, manifest: CheckpointManifest) -> None:
    for what, found, expected in (
        ("dataset", manifest.dataset, setup.origin.dataset),
        ("tokenizer", manifest.tokenizer, setup.vocabulary.digest),
    ):
        if found != expected:
            raise SpecError(
                explain(
                    f"{setup.store.uri}/checkpoints",
                    found=f"a checkpoint trained with the {what} {found}",
                    allowed=f"the {what} of this run, {expected}",
                    remedy="name the dataset that the run began with, or delete the run's folder to begin anew",
                )
            )


def _begin(setup: Setup) -> None:
    run = setup.run
    given = run.base if isinstance(run, AlignmentRunFile) else run.initialize
    if given is None:
        initialize(setup.model, run.spec.training.seed)
        return
    store, manifest = input_store(given, run), read_base(run)
    if isinstance(run, AlignmentRunFile):  # its shape and its tokens are the base's own
        _copy_weights(setup, store if manifest is None else store.child(MODEL_FOLDER))
        initialize_adapters(setup.model, run.spec.training.seed)
        return
    match manifest:
        case CheckpointManifest():
            _from_checkpoint(setup, store, manifest)
        case ModelManifest():
            _check_sizes(store, manifest.shape, setup.shape, _OWN_SIZES)
            _check_tokenizer(store, manifest.tokenizer, setup.vocabulary.digest)
            _copy_weights(setup, store.child(MODEL_FOLDER))
        case None:
            _check_folder(setup, store)
            _copy_weights(setup, store)


def _from_checkpoint(setup: Setup, store: ObjectStore, manifest: CheckpointManifest) -> None:
    if manifest.adapter is not None:
        found, allowed = f"a checkpoint of adapters, {store.uri}", "a checkpoint with all weights"
        remedy = "start from the model that the run has made"
        raise SpecError(explain("spec.initialize.from", found=found, allowed=allowed, remedy=remedy))
    _check_sizes(store, manifest.shape, setup.shape, _OWN_SIZES)
    _check_tokenizer(store, manifest.tokenizer, setup.vocabulary.digest)
    rows = manifest.shape.padded_vocab(manifest.vocab_size)
    if rows != setup.padded_vocab:
        raise SpecError(
            explain(
                "spec.model.vocabMultiple",
                found=f"{setup.shape.vocab_multiple}, which makes {setup.padded_vocab} rows of the embedding",
                allowed=f"{manifest.shape.vocab_multiple}, which makes the {rows} of the checkpoint {store.uri}",
                remedy="use that, or start from the finished model, whose padding is left out",
            )
        )
    load(store, model_state(setup.model), setup.ranks.control)


def _check_folder(setup: Setup, store: ObjectStore) -> None:
    shape, _ = read_shape(store)
    _check_sizes(store, shape, setup.shape, _SIZES)
    tokenizer, _ = read_tokenizer(store)
    wanted = setup.vocabulary.tokenizer
    if tokenizer.get_vocab() != wanted.get_vocab():
        raise _other_tokenizer(store, _tokens(tokenizer), f"one with {wanted.get_vocab_size()}")


def _copy_weights(setup: Setup, store: ObjectStore) -> None:
    shape, left_out = setup.shape, ""
    if is_scored(setup.model):  # its head is its own
        tied = read_shape(store)[0].tied_embeddings
        shape, left_out = shape.model_copy(update={"tied_embeddings": tied}), "head.weight"
    copy_weights(setup.model, setup.ranks, store, shape, setup.padded_vocab, left_out=left_out)


def copy_weights(
    model: Decoder, ranks: Ranks, store: ObjectStore, shape: ModelShape, rows: int, *, left_out: str = ""
) -> None:
    """Gives a model, spread over the processes, the weights in a Hugging Face folder, but for the one left out.

    Args:
        shape: of the model in the folder.
        rows: of the embedding, padding included.

    Raises:
        SpecError, IntegrityError, StorageError: as `read_weights`.
    """
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, whole in read_weights(store, shape, rows):
            if name == left_out or (name not in parameters and ranks.layout.pipeline > 1):
                continue  # another stage has it
            parameter = parameters[name]
            set_whole(parameter, whole.to(parameter.device) if isinstance(parameter, DTensor) else whole)


def _check_sizes(store: ObjectStore, found: ModelShape, wanted: ModelShape, sizes: tuple[str, ...]) -> None:
    for size in sizes:
        if getattr(found, size) != getattr(wanted, size):
            name = ModelShape.model_fields[size].alias
            raise SpecError(
                explain(
                    f"spec.model.{name}",
                    found=getattr(wanted, size),
                    allowed=f"{getattr(found, size)}, as in the model to start from, {store.uri}",
                    remedy="use that model's sizes, or start from another model",
                )
            )


def _check_tokenizer(store: ObjectStore, found: str, wanted: str) -> None:
    if found != wanted:
        raise _other_tokenizer(store, f"a model trained with the tokenizer {found}", wanted)


def _tokens(tokenizer: Tokenizer) -> str:
    return f"a tokenizer with {tokenizer.get_vocab_size()} tokens"


def _other_tokenizer(store: ObjectStore, found: str, wanted: str) -> SpecError:
    return SpecError(
        explain(
            f"spec.initialize.from: {store.uri}",
            found=found,
            allowed=f"the tokenizer of the run's dataset, {wanted}",
            remedy="build the dataset with tokenizer.from that model, or start from random weights",
        )
    )

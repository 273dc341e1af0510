"""Everything a run needs before its first step: the data checked, the model built and spread, its state restored."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import DatasetManifest, model_folder
from kindling_api.v1alpha1.runfile import PretrainRunFile
from kindling_api.v1alpha1.training import BatchPlan, steps_of
from kindling_storage import ObjectStore, open_store
from kindling_trainer.data.order import WindowOrder
from kindling_trainer.data.windows import TrainingWindows, ValidationWindows, open_stream
from kindling_trainer.inputs import read_dataset
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.optim.adamw import build_adamw
from kindling_trainer.parallel.apply import parallelize
from kindling_trainer.parallel.compilation import Loss, use_compiler
from kindling_trainer.parallel.mesh import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """The parts of a run."""

    run: PretrainRunFile
    ranks: Ranks
    store: ObjectStore
    """The run's folder."""
    dataset: DatasetManifest
    dataset_store: ObjectStore
    tokenizer: Tokenizer
    shape: ModelShape
    plan: BatchPlan
    steps: int
    training: TrainingWindows
    validation: ValidationWindows
    model: Decoder
    optimizer: torch.optim.AdamW
    loss: Loss
    compiled: bool

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding."""
        return self.shape.padded_vocab(self.dataset.tokenizer.vocab_size)


def prepare(run: PretrainRunFile, ranks: Ranks) -> Setup:
    """Open the data and build the model, not yet with any weights.

    Raises:
        UserError: the data does not fit the run, the model the layout, or a prompt the tokenizer.
    """
    spec, shape, plan = run.spec, run.spec.model.shape(), run.spec.batch_plan()
    dataset_store, dataset = read_dataset(run)
    cache = Path(tempfile.gettempdir()) / "kindling-cache"
    tokenizer = Tokenizer.from_str(dataset_store.get(dataset.tokenizer.path).decode())
    check_prompts(tokenizer, spec.evaluation.prompts)
    train = open_stream(dataset_store, dataset, dataset.train, cache)
    validation = open_stream(dataset_store, dataset, dataset.validation, cache)
    with torch.device("meta"):
        model = build_model(shape, shape.padded_vocab(dataset.tokenizer.vocab_size))
    compiled = use_compiler(spec.training.compile, ranks)
    loss = parallelize(model, spec.training, ranks, compiled=compiled)
    model.to_empty(device=ranks.device)
    assert spec.training.optimizer.adam_w is not None
    return Setup(
        run=run,
        ranks=ranks,
        store=open_store(run.output).child(model_folder(run.key)),
        dataset=dataset,
        dataset_store=dataset_store,
        tokenizer=tokenizer,
        shape=shape,
        plan=plan,
        steps=steps_of(spec.training, plan, dataset.train_tokens),
        training=TrainingWindows(
            train, WindowOrder(len(train), plan.context, spec.training.seed), plan, ranks.batch_rank
        ),
        validation=ValidationWindows(
            validation, plan.context, plan.micro_batch, ranks.batch_rank, ranks.layout.batch_ranks
        ),
        model=model,
        optimizer=build_adamw(model, spec.training.optimizer.adam_w),
        loss=loss,
        compiled=compiled,
    )


def check_prompts(tokenizer: Tokenizer, prompts: Sequence[str]) -> None:
    """Refuse, before the first step, a prompt that the first evaluation could not continue.

    Raises:
        SpecError: a prompt has a character for which the tokenizer has no token.
    """
    for number, prompt in enumerate(prompts):
        try:
            tokenizer.encode(prompt)
        except Exception as error:  # the library raises Exception itself
            where, allowed = f"spec.evaluation.prompts[{number}]", "text that the dataset's tokenizer covers"
            remedy = "leave out characters that the dataset does not have"
            raise SpecError(explain(where, found=repr(prompt), allowed=allowed, remedy=remedy)) from error

"""Pretraining: windows of a dataset's stream of tokens, each token predicted from those before it."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import PretrainRunFile
from kindling_api.v1alpha1.training import steps_of
from kindling_trainer.data.grouped import grouped
from kindling_trainer.data.order import WindowOrder
from kindling_trainer.data.windows import Batch, TrainingWindows, ValidationWindows, open_stream
from kindling_trainer.evaluate import check_prompts, continue_prompts, mean_loss
from kindling_trainer.inputs import read_base, read_dataset
from kindling_trainer.objective import Evaluation, Figures, Interruptible, Share
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.setup import Origin, Setup, Vocabulary, assemble, build
from kindling_trainer.stages import starved

log = logging.getLogger(__name__)

TRIED_AT_ONCE = 4
"""Batches for each stage of a pipeline that are tried between two questions whether to stop: the answer is awaited by
all stages, which are idle until the first has come through."""


@dataclass(frozen=True)
class Pretraining:
    """The objective of pretraining: cross-entropy over all tokens."""

    model: ParallelModel
    training: TrainingWindows
    validation: ValidationWindows
    vocabulary: Vocabulary
    evaluation: EvaluationSpec

    def share(self, step: int, interruptible: Interruptible[int]) -> Share[Batch]:
        """Every target counts, so the whole batch's count is known without asking the other processes."""
        plan = self.training.plan
        return Share(self.training.micro_batches(step), plan.accumulation, plan.tokens)

    def loss(self, batch: Batch) -> tuple[Tensor, Figures]:
        """The sum over all targets, in nats."""
        tokens, targets = (part.to(self.model.ranks.device) for part in batch)
        return self.model.token_loss(tokens, targets), {}

    def evaluate(self, *, whole: bool, interruptible: Interruptible[list[Batch]]) -> Evaluation:
        """The loss on a sample of the validation part, or on the whole of it, and what the model says."""
        evaluation, windows = self.evaluation, self.validation
        batches = windows.all(evaluation.final_tokens) if whole else windows.sample(evaluation.batches)
        stages = self.model.ranks.layout.pipeline
        groups = interruptible(grouped(batches, TRIED_AT_ONCE * stages if stages > 1 else 1))
        return Evaluation(
            mean_loss(self.model, lambda batch: self.loss(batch)[0], chain.from_iterable(groups)),
            samples=continue_prompts(
                self.model,
                self.vocabulary.tokenizer,
                evaluation.prompts,
                tokens=evaluation.prompt_tokens,
                stop=self.vocabulary.end_of_document,
            ),
        )


def prepare(run: PretrainRunFile, ranks: Ranks) -> Setup:
    """Open the data and build the model, not yet with any weights.

    Raises:
        UserError: the data does not fit the run, the model the layout, or a prompt the tokenizer.
    """
    spec, shape, plan = run.spec, run.spec.model.shape(), run.spec.batch_plan()
    if ranks.leads and (remark := starved(ranks.layout.pipeline, plan.accumulation)):
        log.warning(remark)
    store, dataset = read_dataset(run)
    entry, file = dataset.tokenizer, store.get(dataset.tokenizer.path)
    vocabulary = Vocabulary(
        file, Tokenizer.from_str(file.decode()), entry.digest, entry.vocab_size, entry.end_of_document
    )
    check_prompts(vocabulary.tokenizer, spec.evaluation.prompts)
    cache = Path(tempfile.gettempdir()) / "kindling-cache"
    train = open_stream(store, dataset, dataset.train, cache)
    validation = open_stream(store, dataset, dataset.validation, cache)
    order = WindowOrder(len(train), plan.context, spec.training.seed)
    model = build(run, ranks, shape, vocabulary)
    objective = Pretraining(
        model,
        TrainingWindows(train, order, plan, ranks.batch_rank),
        ValidationWindows(validation, plan.context, plan.micro_batch, ranks.batch_rank, ranks.layout.batch_ranks),
        vocabulary,
        spec.evaluation,
    )
    base = read_base(run)
    origin = Origin(dataset.digest, store.uri, base=None if base is None else base.digest)
    steps = steps_of(spec.training, plan, dataset.train_tokens)
    return assemble(run, ranks, origin, vocabulary, model, plan, steps, objective)

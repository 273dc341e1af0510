"""Pretraining: windows of a dataset's stream of tokens, each token predicted from those before it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from operator import length_hint
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.runfile import PretrainRunFile
from kindling_api.v1alpha1.training import steps_of
from kindling_api.v1alpha1.windows import WindowRange, merged
from kindling_trainer.checkpoint.huggingface import read_shape
from kindling_trainer.data.documents import check_has_ends
from kindling_trainer.data.inputs import input_store, read_base, read_dataset
from kindling_trainer.data.order import Counted, WindowOrder, grouped
from kindling_trainer.data.windows import Batch, TrainingWindows, ValidationWindows, open_stream
from kindling_trainer.estimate.pipeline_schedule import starved
from kindling_trainer.loop.evaluate import check_prompts, continue_prompts, mean_loss
from kindling_trainer.loop.objective import Evaluation, Figures, Interruptible, LocalBatch
from kindling_trainer.loop.setup import Origin, Setup, Vocabulary, assemble, build
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks

log = logging.getLogger(__name__)

BEGINNING_TOKENS = 16
"""Of a text, for the model to continue."""
EVALUATED_AT_ONCE = 4
"""Batches for each stage of a pipeline that are evaluated between two questions whether to stop: the answer is awaited
by all stages, which are idle until the first has come through."""


@dataclass
class Pretraining:
    """The objective of pretraining: cross-entropy over all tokens."""

    model: ParallelModel
    training: TrainingWindows
    validation: ValidationWindows
    vocabulary: Vocabulary
    evaluation: EvaluationSpec
    document_mask: bool = False
    """Whether a token sees its own document alone."""
    z_loss: float = 0.0
    """How much of log²Z is added to each target's loss."""

    def local_batch(self, step: int, interruptible: Interruptible[int]) -> LocalBatch[Batch]:
        """Every target counts, so the whole batch's count is known without asking the other processes."""
        plan = self.training.plan
        return LocalBatch(self.training.micro_batches(step), plan.accumulation, plan.tokens)

    def windows(self, step: int) -> tuple[WindowRange, ...]:
        """What the step that follows `step` finished ones reads, on all processes."""
        sequences = self.training.plan.sequences
        numbers = self.training.order.numbers(step * sequences, sequences)
        return merged(WindowRange(first=int(number)) for number in numbers)

    def leave_out(self, windows: Iterable[WindowRange]) -> None:
        """From now on these are read by no step."""
        order = self.training.order
        self.training = replace(self.training, order=replace(order, skips=merged([*order.skips, *windows])))

    def loss(self, batch: Batch) -> tuple[Tensor, Figures]:
        """The sum over all targets, in nats, with the z-loss."""
        return self._summed(batch, z_loss=self.z_loss), {}

    def evaluate(self, *, whole: bool, interruptible: Interruptible[list[Batch]]) -> Evaluation:
        """The loss on a sample of the validation part, or on the whole of it, and what the model says."""
        evaluation, windows = self.evaluation, self.validation
        batches = windows.all(evaluation.final_tokens) if whole else windows.sample(evaluation.batches)
        stages = self.model.ranks.layout.pipeline
        size = EVALUATED_AT_ONCE * stages if stages > 1 else 1
        groups = interruptible(Counted(grouped(batches, size), -(-length_hint(batches) // size)))
        return Evaluation(
            mean_loss(self.model, self._summed, chain.from_iterable(groups)),
            samples=continue_prompts(
                self.model,
                self.vocabulary.tokenizer,
                evaluation.prompts or (self._beginnings() if whole else []),
                tokens=evaluation.prompt_tokens,
                stop=self.vocabulary.end_of_document,
            ),
        )

    def _summed(self, batch: Batch, z_loss: float = 0.0) -> Tensor:
        tokens, targets = (part.to(self.model.ranks.device) for part in batch)
        documents = None
        if self.document_mask:
            assert self.vocabulary.end_of_document is not None  # by `check_has_ends`
            documents = tokens.eq(self.vocabulary.end_of_document).cumsum(dim=1)
        return self.model.token_loss(tokens, targets, documents, z_loss=z_loss)

    def _beginnings(self) -> list[str]:
        """The first words that are held out, if any: what the model continues at the end where nobody has asked for
        anything else."""
        tokens = self.validation.stream.read(0, BEGINNING_TOKENS).tolist()
        end = self.vocabulary.end_of_document
        until = tokens.index(end) if end in tokens else len(tokens)
        text = str(self.vocabulary.tokenizer.decode(tokens[:until]))
        return [text] if text.strip() else []


def prepare(run: PretrainRunFile, ranks: Ranks) -> Setup:
    """Open the data and build the model, not yet with any weights.

    Raises:
        UserError: the data does not fit the run, the model the layout, or a prompt the tokenizer.
    """
    spec, shape = run.spec, _shape(run)
    store, dataset = read_dataset(run)
    check_has_ends(spec.training, dataset)
    plan = spec.batch_plan(dataset.train_tokens)
    if ranks.leads and (remark := starved(ranks.layout.pipeline, plan.accumulation)):
        log.warning(remark)
    entry, file = dataset.tokenizer, store.get(dataset.tokenizer.path)
    vocabulary = Vocabulary(
        file, Tokenizer.from_str(file.decode()), entry.digest, entry.vocab_size, entry.end_of_document
    )
    check_prompts(vocabulary.tokenizer, spec.evaluation.prompts)
    cache = Path(tempfile.gettempdir()) / "kindling-cache"
    train = open_stream(store, dataset, dataset.train, cache)
    validation = open_stream(store, dataset, dataset.validation, cache)
    order = WindowOrder(len(train), plan.context, spec.training.seed, merged(spec.training.skip))
    steps = steps_of(spec.training, plan, dataset.train_tokens)
    model = build(run, ranks, shape, vocabulary, plan, steps)
    objective = Pretraining(
        model,
        TrainingWindows(train, order, plan, ranks.batch_rank),
        ValidationWindows(validation, plan.context, plan.micro_batch, ranks.batch_rank, ranks.layout.batch_ranks),
        vocabulary,
        spec.evaluation,
        document_mask=spec.training.document_mask,
        z_loss=spec.training.z_loss or 0.0,
    )
    base = read_base(run)
    origin = Origin(dataset.digest, store.uri, base=None if base is None else base.digest)
    return assemble(run, ranks, origin, vocabulary, model, plan, steps, objective)


def _shape(run: PretrainRunFile) -> ModelShape:
    """The sizes of the spec, with what the family of the model to start from has beside them."""
    shape, manifest = run.spec.model.shape(), read_base(run)
    if run.initialize is None:
        return shape
    base = read_shape(input_store(run.initialize, run))[0] if manifest is None else manifest.shape
    return shape.model_copy(update={"variant": base.variant}) if base.architecture == shape.architecture else shape

"""Supervised fine-tuning: what the assistant says, each token predicted from those before it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kindling_api.v1alpha1.alignment_method import SupervisedFineTuning
from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import BatchPlan, TrainingSpec, numbers_of_step, steps_over
from kindling_trainer.align.answers import Examiner, examined, open_examiner
from kindling_trainer.align.base import Base, open_base
from kindling_trainer.align.data.check import check_findings
from kindling_trainer.align.data.packing import pack
from kindling_trainer.align.data.sources import (
    digest_of_inputs,
    read_inputs,
    sources,
    split_held_out,
    validation_sources,
)
from kindling_trainer.align.data.tokenize import Sequences, read_dialogues
from kindling_trainer.chat.template import Encoded
from kindling_trainer.data.order import shuffled
from kindling_trainer.loop.evaluate import mean_loss
from kindling_trainer.loop.objective import Evaluation, Figures, Interruptible, LocalBatch
from kindling_trainer.loop.setup import Origin, Setup, assemble, build
from kindling_trainer.loss import IGNORED
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks

log = logging.getLogger(__name__)

Row = Sequence[Encoded]
"""Dialogues that share a sequence."""


class PackedBatch(NamedTuple):
    """Sequences of several dialogues: int64 [B, T] each."""

    tokens: Tensor
    targets: Tensor
    """The next token where it counts, and IGNORED elsewhere."""
    documents: Tensor
    """Which dialogue of the sequence a position belongs to, from 0; -1 for padding."""


@dataclass(frozen=True)
class Windows:
    """Dialogues packed into windows, cut for one process.

    A window is the same set of dialogues whether it is computed as one sequence (`packed`), or as one for each of them:
    packing changes how long a step takes, and not what it learns.
    """

    items: list[Row]
    plan: BatchPlan
    ranks: Ranks
    packed: bool

    def batches(self, windows: Iterable[int]) -> list[PackedBatch]:
        """This process's part of some windows: as many micro-batches on each process, empty ones among them."""
        rows = [row for window in windows for row in self._rows(self.items[window])]
        layout, size = self.ranks.layout, self.plan.micro_batch
        count = -(-len(rows) // (size * layout.batch_ranks))
        mine = rows[self.ranks.batch_rank :: layout.batch_ranks]
        return [arrange(mine[first : first + size], size, self.plan.context) for first in range(0, count * size, size)]

    def counted(self, windows: Iterable[int]) -> int:
        """How many tokens of some windows are targets."""
        return sum(int(each.counted[1:].sum()) for window in windows for each in self.items[window])

    def _rows(self, window: Row) -> list[Row]:
        return [window] if self.packed else [[each] for each in window]


@dataclass(frozen=True)
class FineTuning:
    """The objective of supervised fine-tuning: cross-entropy over the tokens that count."""

    model: ParallelModel
    base: Base
    training: Windows
    validation: Windows
    recipe: TrainingSpec
    evaluation: EvaluationSpec
    examiner: Examiner

    def local_batch(self, step: int, interruptible: Interruptible[int]) -> LocalBatch[PackedBatch]:
        """Each process knows all windows, so the whole batch's count is known without asking the others."""
        items = len(self.training.items)
        numbers = numbers_of_step(self.recipe, self.training.plan, items, step)
        windows = shuffled(numbers, items, self.recipe.seed)
        batches = self.training.batches(windows)
        return LocalBatch(batches, len(batches), self.training.counted(windows))

    def loss(self, batch: PackedBatch) -> tuple[Tensor, Figures]:
        """The sum over the targets that count, in nats."""
        return self.model.token_loss(*(part.to(self.model.ranks.device) for part in batch)), {}

    def evaluate(self, *, whole: bool, interruptible: Interruptible[Any]) -> Evaluation:
        """The loss on what is held out, and answers to what the user says, in `evaluation.prompts` or there."""
        plan, ranks = self.validation.plan, self.model.ranks
        most = -(-self.evaluation.final_tokens // plan.context)
        if not whole:
            most = min(most, self.evaluation.batches * plan.micro_batch * ranks.layout.batch_ranks)
        batches = self.validation.batches(range(min(most, len(self.validation.items))))
        loss = mean_loss(self.model, lambda batch: self.loss(batch)[0], interruptible(batches))
        held_out = (dialogue for row in self.validation.items for dialogue in row)
        said = examined(
            self.model, self.base, self.evaluation, self.examiner, held_out, whole=whole, interruptible=interruptible
        )
        return replace(said, loss=loss)


def prepare(run: AlignmentRunFile, ranks: Ranks, method: SupervisedFineTuning) -> Setup:
    """Read the dialogues, and build the model, not yet with any weights.

    Raises:
        UserError: base, template or data are wrong.
    """
    spec, base = run.spec, open_base(run)
    rows, context = read_rows(run, base, method, log_findings=ranks.leads), spec.context(base.shape.context)
    plan = spec.batch_plan(context, len(rows[0]) * context)
    training, validation = (Windows(part, plan, ranks, method.packing) for part in rows)
    steps = steps_over(spec.training, plan, len(training.items))
    model = build(run, ranks, base.shape, base.vocabulary, plan, steps, padding_counts=False)
    inputs = read_inputs(run)
    origin = Origin(digest_of_inputs(inputs), run.spec.data[0].uri, base.digest, inputs)
    examiner = open_examiner(run, ranks)
    objective = FineTuning(model, base, training, validation, spec.training, spec.evaluation, examiner)
    return assemble(run, ranks, origin, base.vocabulary, model, plan, steps, objective)


def read_rows(
    run: AlignmentRunFile, base: Base, method: SupervisedFineTuning, *, log_findings: bool
) -> tuple[list[Row], list[Row]]:
    """The dialogues to learn and those held out, packed; `log_findings` in the log what was found.

    Raises:
        DataError: a record is wrong, or too many are of no use.
    """
    spec, context, all_tokens = run.spec, run.spec.context(base.shape.context), method.train_on == "all"
    dialogues, findings = read_dialogues(sources(run), base.template, context=context, all_tokens=all_tokens)
    check_findings(findings)
    if spec.validation.data:
        validation, found = read_dialogues(
            validation_sources(run), base.template, context=context, all_tokens=all_tokens
        )
        check_findings(found, where="spec.validation.data")
        training, others = list(range(len(dialogues))), list(range(len(validation)))
    else:
        validation = dialogues
        training, others = split_held_out(len(dialogues), spec.validation.fraction, spec.training.seed)
    if log_findings:
        for sentence in [f"{len(training):,} dialogues to learn, {len(others):,} held out", *findings.sentences()]:
            log.info(sentence)
    return packed(dialogues, training, context), packed(validation, others, context)


def packed(dialogues: Sequences, chosen: Sequence[int], context: int) -> list[Row]:
    """The chosen dialogues, together in windows of `context` targets."""
    windows = pack([int(dialogues.lengths[number]) - 1 for number in chosen], context)
    return [[dialogues[chosen[place]] for place in sorted(window)] for window in windows]


def arrange(rows: Sequence[Row], size: int, context: int) -> PackedBatch:
    """`size` sequences of `context` positions: the rows, and empty ones where there are fewer."""
    tokens = torch.zeros(size, context, dtype=torch.int64)
    targets, documents = torch.full_like(tokens, IGNORED), torch.full_like(tokens, -1)
    for row, dialogues in enumerate(rows):
        start = 0
        for number, one in enumerate(dialogues):
            ids = torch.from_numpy(one.tokens.astype("int64"))
            end = start + len(ids) - 1
            tokens[row, start:end] = ids[:-1]
            targets[row, start:end] = ids[1:].where(torch.from_numpy(one.counted[1:]), IGNORED)
            documents[row, start:end] = number
            start = end
    return PackedBatch(tokens, targets, documents)

"""Learning from pairs, as DPO and reward models do: which pairs there are, how they lie in windows, what is held out.

A step is a set of windows, and a window a set of pairs, whether its pairs are computed in one sequence or in one each:
packing and layout change how long a step takes, and not what it learns. Both answers of a pair are always in the same
micro-batch, since the loss is of their difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import BatchPlan, batch_plan
from kindling_trainer.align.base import Base
from kindling_trainer.align.check import check_findings
from kindling_trainer.align.data import Pairs, read_pairs
from kindling_trainer.align.files import held_out, sources, validation_sources
from kindling_trainer.align.losses import Answers
from kindling_trainer.align.packing import pack
from kindling_trainer.data.order import shuffled
from kindling_trainer.evaluate import trying
from kindling_trainer.loss import IGNORED
from kindling_trainer.objective import Figures
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks

WIDTH_MULTIPLE = 64
"""Windows are as wide as a multiple of this, which any tensor parallelism divides."""

log = logging.getLogger(__name__)


class PairBatch(NamedTuple):
    """Sequences of several answers, each after its own copy of the prompt: int64 [B, T] each, for P pairs."""

    tokens: Tensor
    targets: Tensor
    """The next token where it belongs to an answer, and IGNORED elsewhere."""
    documents: Tensor
    """Which answer of the batch a position leads to, from 0. Each padding is below 0 and by itself: a window can be
    wider than the context, and no text in it may be."""
    answers: Tensor
    """Which answer of the batch the target belongs to: 2p for the chosen one of pair p, 2p + 1 for the rejected one; -1
    where it is IGNORED."""
    ends: Tensor
    """[2P]: where in the flat sequences the last position of each answer is."""
    pairs: Tensor
    """[P]: each pair's number in the data."""

    def to(self, device: torch.device) -> PairBatch:
        """The batch on a device."""
        return PairBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class PairWindows:
    """Pairs packed into windows, cut for one process."""

    pairs: Pairs
    windows: list[list[int]]
    """The numbers of the pairs in each."""
    plan: BatchPlan
    ranks: Ranks
    unread: int
    """Tokens at the end of each answer that are only predicted and never read: 1 for a language model, 0 for a model
    that judges what it has read."""
    packed: bool = True

    def step(self, step: int, seed: int) -> list[int]:
        """The windows of the step that follows `step` finished ones."""
        return shuffled(step * self.plan.sequences, self.plan.sequences, len(self.windows), seed)

    def count(self, windows: Iterable[int]) -> int:
        """How many pairs some windows hold."""
        return sum(len(self.windows[window]) for window in windows)

    def batches(self, windows: Iterable[int]) -> list[PairBatch]:
        """This process's share of some windows: as many micro-batches on each process, empty ones among them."""
        chosen = [self.windows[window] for window in windows]
        rows = chosen if self.packed else [[pair] for window in chosen for pair in window]
        layout, size = self.ranks.layout, self.plan.micro_batch
        count = -(-len(rows) // (size * layout.batch_ranks))
        mine = rows[self.ranks.batch_rank :: layout.batch_ranks]
        return [self._arranged(mine[first : first + size]) for first in range(0, count * size, size)]

    def in_turn(self, count: int) -> Iterator[PairBatch]:
        """This process's share of the first `count` windows, few of them in memory at a time."""
        together = self.plan.micro_batch * self.ranks.layout.batch_ranks
        for first in range(0, count, together):
            yield from self.batches(range(first, min(first + together, count)))

    def tried(self, evaluation: EvaluationSpec, *, whole: bool) -> int:
        """How many of the windows an evaluation looks at."""
        most = -(-evaluation.final_tokens // self.plan.context)
        if not whole:
            most = min(most, evaluation.batches * self.plan.micro_batch * self.ranks.layout.batch_ranks)
        return min(most, len(self.windows))

    def _arranged(self, rows: Sequence[Sequence[int]]) -> PairBatch:
        size, width = self.plan.micro_batch, self.plan.context
        tokens = np.zeros((size, width), np.int64)
        targets, answers = np.full_like(tokens, IGNORED), np.full_like(tokens, -1)
        documents = np.tile(-1 - np.arange(width), (size, 1))
        ends: list[int] = []
        numbers: list[int] = []
        for row, pairs in enumerate(rows):
            start = 0
            for pair in pairs:
                numbers.append(pair)
                for one in (self.pairs.chosen[pair], self.pairs.rejected[pair]):
                    end = start + len(one.tokens) - self.unread
                    counted = one.counted[1:]
                    here = slice(start, start + len(counted))
                    tokens[row, start:end] = one.tokens[: end - start]
                    targets[row, here] = np.where(counted, one.tokens[1:], IGNORED)
                    answers[row, here] = np.where(counted, len(ends), -1)
                    documents[row, start:end] = len(ends)
                    ends.append(row * width + end - 1)
                    start = end
        parts = (tokens, targets, documents, answers, np.array(ends, np.int64), np.array(numbers, np.int64))
        return PairBatch(*map(torch.from_numpy, parts))


@dataclass(frozen=True)
class PairData:
    """The pairs of a run: those to learn and those held out."""

    pairs: Pairs
    """All of them, those to learn first where the held-out ones are data of their own."""
    learnt: PairWindows
    held_out: PairWindows

    @property
    def tokens(self) -> int:
        """Positions of all windows to learn."""
        return len(self.learnt.windows) * self.learnt.plan.context


def read(run: AlignmentRunFile, base: Base, ranks: Ranks, *, unread: int) -> PairData:
    """The pairs to learn and those held out, packed.

    A window is as wide as the context, or as the longest pair where that is wider: positions begin anew with each
    answer, so that a window may be.

    Raises:
        DataError: a record is wrong, or too many are of no use.
    """
    spec, longest = run.spec, base.shape.context - 1 + unread
    pairs, findings = read_pairs(sources(run), base.template, context=longest)
    check_findings(findings)
    if spec.validation.data:
        more, found = read_pairs(validation_sources(run), base.template, context=longest)
        check_findings(found, where="spec.validation.data")
        learnt, others = list(range(len(pairs))), list(range(len(pairs), len(pairs) + len(more)))
        pairs = pairs + more
    else:
        learnt, others = held_out(len(pairs), spec.validation.fraction, spec.training.seed)
    if ranks.leads:
        for sentence in [f"{len(learnt):,} pairs to learn, {len(others):,} held out", *findings.sentences()]:
            log.info(sentence)
    lengths = pairs.chosen.lengths + pairs.rejected.lengths - 2 * unread
    width = max(base.shape.context, int(lengths.max()))
    width += -width % WIDTH_MULTIPLE
    plan = batch_plan(spec.training.batch, base.shape.context, spec.layout()).model_copy(update={"context": width})
    return PairData(
        pairs, *(PairWindows(pairs, _packed(lengths, part, width), plan, ranks, unread) for part in (learnt, others))
    )


def figures(rewards: Answers) -> Figures:
    """What TRL shows of the rewards of P pairs, under its names. Equal rewards are half right."""
    right = (rewards.margin > 0).float() + (rewards.margin == 0).float() / 2
    means = {
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/margins": rewards.margin,
        "rewards/accuracies": right,
    }
    return {name: total_and_count(values.detach()) for name, values in means.items()}


def mean_figures(
    model: ParallelModel, loss: Callable[[PairBatch], tuple[Tensor, Figures]], batches: Iterable[PairBatch]
) -> tuple[float | None, dict[str, float]]:
    """The mean loss over all processes' pairs, in nats a pair, and the means of its figures; None where there are no
    pairs."""
    sums: Figures = {}
    with trying(model.model):
        for batch in batches:
            total, shown = loss(batch)
            count = torch.tensor(float(len(batch.pairs)), device=total.device)
            for name, figure in {"loss": torch.stack([total, count]), **shown}.items():
                sums[name] = sums[name] + figure if name in sums else figure
    if not sums:
        return None, {}
    totals, counts = model.ranks.sum_over_batch(torch.stack(list(sums.values()))).T.tolist()
    means = {name: total / count for name, total, count in zip(sums, totals, counts, strict=True) if count}
    return means.pop("loss", None), means


def total_and_count(values: Tensor) -> Tensor:
    """The sum of values [P] and how many there are: fp32 [2]."""
    return torch.stack([values.sum().float(), torch.tensor(float(len(values)), device=values.device)])


def _packed(
    lengths: np.ndarray[tuple[int, ...], np.dtype[np.int64]], chosen: Sequence[int], width: int
) -> list[list[int]]:
    windows = pack([int(lengths[number]) for number in chosen], width)
    return [[chosen[place] for place in sorted(window)] for window in windows]

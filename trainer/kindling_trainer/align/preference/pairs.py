"""Learning from pairs, as DPO and reward models do: which pairs there are, how they are computed, what is held out.

A step is a set of pairs, whatever the layout. Its pairs are sorted by length, and computed with so many of about one
length at a time as the micro-batch has room for: little is padding, and attention, whose cost grows with the square of
the length, spans one answer alone. Both answers of a pair are always in the same micro-batch, since the loss is of
their difference.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import BatchPlan, TrainingSpec, numbers_of_step
from kindling_trainer.align.base import Base
from kindling_trainer.align.data.check import check_findings
from kindling_trainer.align.data.packing import pack
from kindling_trainer.align.data.sources import sources, split_held_out, validation_sources
from kindling_trainer.align.data.tokenize import Pairs, read_pairs
from kindling_trainer.align.preference.losses import PairValues
from kindling_trainer.data.order import shuffled
from kindling_trainer.loop.evaluate import evaluating
from kindling_trainer.loop.objective import Figures
from kindling_trainer.loss import IGNORED
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks

WIDTH_MULTIPLE = 64
"""Sequences are padded to a multiple of this, and of what the layout asks for, or to the context."""

log = logging.getLogger(__name__)


class PairBatch(NamedTuple):
    """The answers of P pairs, each after its own copy of the prompt: row 2p is the chosen one of pair p, row 2p + 1 the
    rejected one. Where there are no pairs, there are rows nevertheless."""

    tokens: Tensor
    """int64 [B, T]."""
    targets: Tensor
    """int64 [B, T]: the next token where it belongs to an answer, and IGNORED elsewhere."""
    ends: Tensor
    """int64 [2P]: the last position of each answer."""
    pairs: Tensor
    """int64 [P]: each pair's number in the data."""

    def to(self, device: torch.device) -> PairBatch:
        """The batch on a device."""
        return PairBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class PairWindows:
    """Pairs in windows, of which a step has as many as a batch has sequences; cut for one process."""

    pairs: Pairs
    windows: list[list[int]]
    """The numbers of the pairs in each."""
    plan: BatchPlan
    ranks: Ranks
    unread: int
    """Tokens at the end of each answer that are only predicted and never read: 1 for a language model, 0 for a model
    that scores what it has read."""

    def step(self, step: int, recipe: TrainingSpec) -> list[int]:
        """The windows of the step that follows `step` finished ones."""
        numbers = numbers_of_step(recipe, self.plan, len(self.windows), step)
        return shuffled(numbers, len(self.windows), recipe.seed)

    def count(self, windows: Iterable[int]) -> int:
        """How many pairs some windows hold."""
        return sum(len(self.windows[window]) for window in windows)

    def batches(self, windows: Iterable[int]) -> list[PairBatch]:
        """This process's part of some windows: as many micro-batches on each process, empty ones among them."""
        groups = self._groups([pair for window in windows for pair in self.windows[window]])
        ranks = self.ranks.layout.batch_ranks
        groups += [[]] * (-len(groups) % ranks)
        return [self._arranged(group) for group in groups[self.ranks.batch_rank :: ranks]]

    def in_turn(self, count: int) -> Iterator[PairBatch]:
        """This process's part of the first `count` windows, few of them in memory at a time."""
        together = self.plan.sequences
        for first in range(0, count, together):
            yield from self.batches(range(first, min(first + together, count)))

    def evaluated_windows(self, evaluation: EvaluationSpec, *, whole: bool) -> int:
        """How many of the windows an evaluation looks at."""
        most = -(-evaluation.final_tokens // self.plan.context)
        if not whole:
            most = min(most, evaluation.batches * self.plan.micro_batch * self.ranks.layout.batch_ranks)
        return min(most, len(self.windows))

    def _groups(self, pairs: list[int]) -> list[list[int]]:
        """Pairs of about one length together, so many that they take no more room than a micro-batch of windows."""
        room, groups, width = self.plan.micro_batch * self.plan.context, list[list[int]](), 0
        for pair in sorted(pairs, key=lambda pair: (-self._length(pair), pair)):
            if not groups or 2 * (len(groups[-1]) + 1) * width > room:
                groups.append([])
                width = self._width(self._length(pair))
            groups[-1].append(pair)
        return groups

    def _arranged(self, pairs: Sequence[int]) -> PairBatch:
        width = self._width(max(map(self._length, pairs), default=1))
        tokens = np.zeros((2 * max(1, len(pairs)), width), np.int64)
        targets, ends = np.full_like(tokens, IGNORED), np.zeros(2 * len(pairs), np.int64)
        answers = [part[pair] for pair in pairs for part in (self.pairs.chosen, self.pairs.rejected)]
        for row, one in enumerate(answers):
            length = len(one.tokens) - self.unread
            tokens[row, :length] = one.tokens[:length]
            targets[row, : len(one.tokens) - 1] = np.where(one.counted[1:], one.tokens[1:], IGNORED)
            ends[row] = length - 1
        return PairBatch(*map(torch.from_numpy, (tokens, targets, ends, np.array(pairs, np.int64))))

    def _length(self, pair: int) -> int:
        return int(max(self.pairs.chosen.lengths[pair], self.pairs.rejected.lengths[pair])) - self.unread

    def _width(self, length: int) -> int:
        multiple = math.lcm(WIDTH_MULTIPLE, self.ranks.layout.length_multiple)
        return min(length + -length % multiple, self.plan.context)


@dataclass(frozen=True)
class PairData:
    """The pairs of a run: those to learn and those held out."""

    pairs: Pairs
    """All of them, those to learn first where the held-out ones are data of their own."""
    training: PairWindows
    validation: PairWindows


def read(run: AlignmentRunFile, base: Base, ranks: Ranks, *, unread: int) -> PairData:
    """The pairs to learn and those held out.

    Raises:
        DataError: a record is wrong, or too many are of no use.
    """
    spec, context = run.spec, run.spec.context(base.shape.context)
    longest = context - 1 + unread
    pairs, findings = read_pairs(sources(run), base.template, context=longest)
    check_findings(findings)
    if spec.validation.data:
        more, found = read_pairs(validation_sources(run), base.template, context=longest)
        check_findings(found, where="spec.validation.data")
        training, others = list(range(len(pairs))), list(range(len(pairs), len(pairs) + len(more)))
        pairs = pairs + more
    else:
        training, others = split_held_out(len(pairs), spec.validation.fraction, spec.training.seed)
    if ranks.leads:
        for sentence in [f"{len(training):,} pairs to learn, {len(others):,} held out", *findings.sentences()]:
            log.info(sentence)
    lengths = pairs.chosen.lengths + pairs.rejected.lengths - 2 * unread
    room = max(context, int(lengths.max()))
    windows = [_packed(lengths, part, room) for part in (training, others)]
    plan = spec.batch_plan(context, len(windows[0]) * context)
    return PairData(pairs, *(PairWindows(pairs, part, plan, ranks, unread) for part in windows))


def figures(rewards: PairValues) -> Figures:
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
    with evaluating(model.model):
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
    lengths: np.ndarray[tuple[int, ...], np.dtype[np.int64]], chosen: Sequence[int], room: int
) -> list[list[int]]:
    windows = pack([int(lengths[number]) for number in chosen], room)
    return [[chosen[place] for place in sorted(window)] for window in windows]

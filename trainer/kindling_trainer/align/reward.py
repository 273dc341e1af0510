"""Reward models: a decoder learns to give the answer that people chose the higher number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kindling_api.v1alpha1.alignment_run import RewardModel
from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import steps_of
from kindling_trainer.align.base import open_base
from kindling_trainer.align.files import digest_of_inputs, read_inputs
from kindling_trainer.align.losses import Answers, bradley_terry
from kindling_trainer.align.preference import PairBatch, PairWindows, figures, mean_figures, read
from kindling_trainer.models.scored import build_scored
from kindling_trainer.objective import Evaluation, Figures, Interruptible, Share
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.setup import Origin, Setup, assemble, build


@dataclass(frozen=True)
class RewardModelling:
    """The objective of a reward model: the likelihood of people's choices (Bradley–Terry), mean over pairs."""

    model: ParallelModel
    method: RewardModel
    learnt: PairWindows
    held_out: PairWindows
    seed: int
    evaluation: EvaluationSpec

    def share(self, step: int, interruptible: Interruptible[Any]) -> Share[PairBatch]:
        """The pairs of the step's windows; their number is the normaliser."""
        windows = self.learnt.step(step, self.seed)
        batches = self.learnt.batches(windows)
        return Share(batches, len(batches), self.learnt.count(windows))

    def loss(self, batch: PairBatch) -> tuple[Tensor, Figures]:
        """The sum over the pairs."""
        batch = batch.to(self.model.ranks.device)
        scores = self.model.scores(batch.tokens)[: len(batch.ends)]
        rewards = Answers(*scores.gather(1, batch.ends[:, None]).view(-1, 2).unbind(1))
        losses = bradley_terry(rewards, center_coefficient=self.method.center_coefficient)
        return losses.sum(), figures(rewards)

    def evaluate(self, *, whole: bool, interruptible: Interruptible[PairBatch]) -> Evaluation:
        """Loss, rewards and accuracy on the pairs that are held out."""
        batches = self.held_out.in_turn(self.held_out.tried(self.evaluation, whole=whole))
        return Evaluation(*mean_figures(self.model, self.loss, interruptible(batches)))


def prepare(run: AlignmentRunFile, ranks: Ranks, method: RewardModel) -> Setup:
    """Read the pairs, and build the model, not yet with any weights.

    Raises:
        UserError: base, template or data are wrong.
    """
    spec, base = run.spec, open_base(run)
    data = read(run, base, ranks, unread=0)
    model = build(run, ranks, base.shape, base.vocabulary, make=build_scored)
    inputs = read_inputs(run)
    origin = Origin(digest_of_inputs(inputs), run.spec.data[0].uri, base.digest, inputs)
    objective = RewardModelling(model, method, data.learnt, data.held_out, spec.training.seed, spec.evaluation)
    steps = steps_of(spec.training, data.learnt.plan, data.tokens)
    return assemble(run, ranks, origin, base.vocabulary, model, data.learnt.plan, steps, objective)

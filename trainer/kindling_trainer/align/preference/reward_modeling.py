"""Reward models: a decoder learns to give the answer that people chose the higher number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kindling_api.v1alpha1.alignment_method import RewardModel
from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import TrainingSpec, steps_over
from kindling_trainer.align.base import open_base
from kindling_trainer.align.data.sources import digest_of_inputs, read_inputs
from kindling_trainer.align.preference.losses import PairValues, bradley_terry
from kindling_trainer.align.preference.pairs import PairBatch, PairWindows, figures, mean_figures, read
from kindling_trainer.loop.objective import Evaluation, Figures, Interruptible, LocalBatch
from kindling_trainer.loop.setup import Origin, Setup, assemble, build
from kindling_trainer.models.scored import build_scored
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks


@dataclass(frozen=True)
class RewardModelling:
    """The objective of a reward model: the likelihood of people's choices (Bradley–Terry), mean over pairs."""

    model: ParallelModel
    method: RewardModel
    training: PairWindows
    validation: PairWindows
    recipe: TrainingSpec
    evaluation: EvaluationSpec

    def local_batch(self, step: int, interruptible: Interruptible[Any]) -> LocalBatch[PairBatch]:
        """The pairs of the step's windows; their number is the normaliser."""
        windows = self.training.step(step, self.recipe)
        batches = self.training.batches(windows)
        return LocalBatch(batches, len(batches), self.training.count(windows))

    def loss(self, batch: PairBatch) -> tuple[Tensor, Figures]:
        """The sum over the pairs."""
        batch = batch.to(self.model.ranks.device)
        scores = self.model.scores(batch.tokens)[: len(batch.ends)]
        rewards = PairValues(*scores.gather(1, batch.ends[:, None]).view(-1, 2).unbind(1))
        losses = bradley_terry(rewards, center_coefficient=self.method.center_coefficient)
        return losses.sum(), figures(rewards)

    def evaluate(self, *, whole: bool, interruptible: Interruptible[PairBatch]) -> Evaluation:
        """Loss, rewards and accuracy on the pairs that are held out."""
        batches = self.validation.in_turn(self.validation.evaluated_windows(self.evaluation, whole=whole))
        return Evaluation(*mean_figures(self.model, self.loss, interruptible(batches)))


def prepare(run: AlignmentRunFile, ranks: Ranks, method: RewardModel) -> Setup:
    """Read the pairs, and build the model, not yet with any weights.

    Raises:
        UserError: base, template or data are wrong.
    """
    spec, base = run.spec, open_base(run)
    data = read(run, base, ranks, unread=0)
    plan = data.training.plan
    steps = steps_over(spec.training, plan, len(data.training.windows))
    model = build(run, ranks, base.shape, base.vocabulary, plan, steps, make=build_scored)
    model.model.eval()  # dropout would be another one for each answer of a pair
    inputs = read_inputs(run)
    origin = Origin(digest_of_inputs(inputs), run.spec.data[0].uri, base.digest, inputs)
    objective = RewardModelling(model, method, data.training, data.validation, spec.training, spec.evaluation)
    return assemble(run, ranks, origin, base.vocabulary, model, plan, steps, objective)

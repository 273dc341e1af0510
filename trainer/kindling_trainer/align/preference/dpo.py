"""Direct preference optimisation: the policy learns to tell the chosen answer from the rejected one better than the
model it began as, the reference, does.

The reference is never in memory beside the policy: its log-probabilities are computed once, before the first step, by
the model that is there, on the layout that is there, and kept in the run's folder. Without its adapters, a model that
trains some is its reference at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from kindling_api.v1alpha1.alignment_method import DirectPreference
from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.products import model_folder
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import TrainingSpec, steps_over
from kindling_storage import open_store
from kindling_trainer.align.answers import Examiner, examined, open_examiner
from kindling_trainer.align.base import Base, open_base
from kindling_trainer.align.data.sources import digest_of_inputs, read_inputs
from kindling_trainer.align.preference.losses import PairValues, direct_preference, implicit_rewards
from kindling_trainer.align.preference.pairs import PairBatch, PairWindows, figures, mean_figures, read, total_and_count
from kindling_trainer.align.preference.reference import ReferenceCache
from kindling_trainer.loop.evaluate import evaluating
from kindling_trainer.loop.objective import Evaluation, Figures, Interruptible, LocalBatch
from kindling_trainer.loop.setup import Origin, Setup, assemble, build
from kindling_trainer.loss import IGNORED
from kindling_trainer.models.lora import adapters_off
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks


@dataclass(frozen=True)
class PreferenceOptimisation:
    """The objective of DPO: the mean over pairs of the loss that the method names."""

    model: ParallelModel
    base: Base
    method: DirectPreference
    training: PairWindows
    validation: PairWindows
    reference: ReferenceCache
    recipe: TrainingSpec
    evaluation: EvaluationSpec
    examiner: Examiner

    def local_batch(self, step: int, interruptible: Interruptible[Any]) -> LocalBatch[PairBatch]:
        """The pairs of the step's windows; their number is the normaliser."""
        self._compute_reference(interruptible)
        windows = self.training.step(step, self.recipe)
        batches = self.training.batches(windows)
        return LocalBatch(batches, len(batches), self.training.count(windows))

    def loss(self, batch: PairBatch) -> tuple[Tensor, Figures]:
        """The sum over the pairs."""
        policy, tokens = self._log_probabilities(batch)
        reference = self.reference.of(batch.pairs)
        losses = direct_preference(policy, reference, tokens, self.method)
        shown = figures(implicit_rewards(policy, reference, beta=self.method.beta))
        shown |= {"logps/chosen": total_and_count(policy.chosen.detach())}
        shown |= {"logps/rejected": total_and_count(policy.rejected.detach())}
        return losses.sum().float(), shown

    def evaluate(self, *, whole: bool, interruptible: Interruptible[Any]) -> Evaluation:
        """Loss, rewards and accuracy on the pairs that are held out, and answers to the prompts."""
        self._compute_reference(interruptible)
        batches = self.validation.in_turn(self.validation.evaluated_windows(self.evaluation, whole=whole))
        loss, shown = mean_figures(self.model, self.loss, interruptible(batches))
        held_out = (self.validation.pairs.chosen[pair] for window in self.validation.windows for pair in window)
        said = examined(
            self.model, self.base, self.evaluation, self.examiner, held_out, whole=whole, interruptible=interruptible
        )
        return replace(said, loss=loss, figures=shown | said.figures)

    def _compute_reference(self, interruptible: Interruptible[PairBatch]) -> None:
        def score() -> Iterator[tuple[Tensor, PairValues]]:
            with evaluating(self.model.model), adapters_off(self.model.model):
                for windows in (self.training, self.validation):
                    for batch in interruptible(windows.in_turn(len(windows.windows))):
                        yield batch.pairs, self._log_probabilities(batch)[0]

        self.reference.compute(score)

    def _log_probabilities(self, batch: PairBatch) -> tuple[PairValues, PairValues]:
        """Of each answer its log-probability, in nats, and how many tokens it has: fp64, for a loss is about
        differences of tenths between sums of thousands."""
        batch = batch.to(self.model.ranks.device)
        each = self.model.log_probabilities(batch.tokens, batch.targets)
        sums, tokens = (
            values.double().sum(1)[: len(batch.ends)].view(-1, 2).unbind(1)
            for values in (each, batch.targets != IGNORED)
        )
        return PairValues(*sums), PairValues(*tokens)


def prepare(run: AlignmentRunFile, ranks: Ranks, method: DirectPreference) -> Setup:
    """Read the pairs, and build the model, not yet with any weights.

    Raises:
        UserError: base, template or data are wrong.
        IntegrityError: the run has been begun, and what the reference said is gone.
    """
    spec, base = run.spec, open_base(run)
    data = read(run, base, ranks, unread=1)
    plan = data.training.plan
    steps = steps_over(spec.training, plan, len(data.training.windows))
    model = build(run, ranks, base.shape, base.vocabulary, plan, steps, padding_counts=False)
    model.model.eval()  # the reference has no dropout, and what differs is to be what was learnt
    inputs = read_inputs(run)
    origin = Origin(digest_of_inputs(inputs), run.spec.data[0].uri, base.digest, inputs)
    said_by = [base.digest or base.store.uri, data.pairs.digest, str(model.precision)]
    store = open_store(run.output).child(model_folder(run.key))
    reference = ReferenceCache(store, said_by, len(data.pairs), ranks, base_stays=spec.lora is not None)
    objective = PreferenceOptimisation(
        model, base, method, data.training, data.validation, reference,
        spec.training, spec.evaluation, open_examiner(run, ranks),
    )  # fmt: skip
    return assemble(run, ranks, origin, base.vocabulary, model, plan, steps, objective)

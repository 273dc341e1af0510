"""Direct preference optimisation: the policy learns to tell the chosen answer from the rejected one better than the
model it began as, the reference, does.

The reference is never in memory beside the policy: its log-probabilities are computed once, before the first step, by
the model that is there, on the layout that is there, and kept in the run's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from kindling_api.v1alpha1.alignment_run import DirectPreference
from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.products import model_folder
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import steps_of
from kindling_storage import open_store
from kindling_trainer.align.answers import Examiner, answers_to_prompts, open_examiner
from kindling_trainer.align.base import Base, open_base
from kindling_trainer.align.files import digest_of_inputs, read_inputs
from kindling_trainer.align.losses import Answers, direct_preference, implicit_rewards
from kindling_trainer.align.preference import PairBatch, PairWindows, figures, mean_figures, read, total_and_count
from kindling_trainer.align.reference import Reference
from kindling_trainer.evaluate import trying
from kindling_trainer.loss import IGNORED
from kindling_trainer.objective import Evaluation, Figures, Interruptible, Share
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.setup import Origin, Setup, assemble, build


@dataclass(frozen=True)
class PreferenceOptimisation:
    """The objective of DPO: the mean over pairs of the loss that the method names."""

    model: ParallelModel
    base: Base
    method: DirectPreference
    learnt: PairWindows
    held_out: PairWindows
    reference: Reference
    seed: int
    evaluation: EvaluationSpec
    examiner: Examiner

    def share(self, step: int, interruptible: Interruptible[Any]) -> Share[PairBatch]:
        """The pairs of the step's windows; their number is the normaliser."""
        self._know_reference(interruptible)
        windows = self.learnt.step(step, self.seed)
        batches = self.learnt.batches(windows)
        return Share(batches, len(batches), self.learnt.count(windows))

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
        self._know_reference(interruptible)
        batches = self.held_out.in_turn(self.held_out.tried(self.evaluation, whole=whole))
        loss, shown = mean_figures(self.model, self.loss, interruptible(batches))
        said = self.examiner(answers_to_prompts(self.model, self.base, self.evaluation), interruptible)
        return replace(said, loss=loss, figures=shown | said.figures)

    def _know_reference(self, interruptible: Interruptible[PairBatch]) -> None:
        def score() -> Iterator[tuple[Tensor, Answers]]:
            with trying(self.model.model):
                for windows in (self.learnt, self.held_out):
                    for batch in interruptible(windows.in_turn(len(windows.windows))):
                        yield batch.pairs, self._log_probabilities(batch)[0]

        self.reference.know(score)

    def _log_probabilities(self, batch: PairBatch) -> tuple[Answers, Answers]:
        """Of each answer its log-probability, in nats, and how many tokens it has: fp64, for a loss is about
        differences of tenths between sums of thousands."""
        batch = batch.to(self.model.ranks.device)
        each = self.model.log_probabilities(batch.tokens, batch.targets)
        sums, tokens = (
            values.double().sum(1)[: len(batch.ends)].view(-1, 2).unbind(1)
            for values in (each, batch.targets != IGNORED)
        )
        return Answers(*sums), Answers(*tokens)


def prepare(run: AlignmentRunFile, ranks: Ranks, method: DirectPreference) -> Setup:
    """Read the pairs, and build the model, not yet with any weights.

    Raises:
        UserError: base, template or data are wrong.
        IntegrityError: the run has been begun, and what the reference said is gone.
    """
    spec, base = run.spec, open_base(run)
    data = read(run, base, ranks, unread=1)
    model = build(run, ranks, base.shape, base.vocabulary, padding_counts=False)
    inputs = read_inputs(run)
    origin = Origin(digest_of_inputs(inputs), run.spec.data[0].uri, base.digest, inputs)
    said_by = [base.digest or base.store.uri, data.pairs.digest, str(model.precision)]
    store = open_store(run.output).child(model_folder(run.key))
    objective = PreferenceOptimisation(
        model, base, method, data.learnt, data.held_out, Reference(store, said_by, len(data.pairs), ranks),
        spec.training.seed, spec.evaluation, open_examiner(run, ranks),
    )  # fmt: skip
    plan = data.learnt.plan
    steps = steps_of(spec.training, plan, data.tokens)
    return assemble(run, ranks, origin, base.vocabulary, model, plan, steps, objective)

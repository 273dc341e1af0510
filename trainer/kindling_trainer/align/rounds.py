"""How reinforcement learning divides its work: rounds of answers, and the optimizer steps that learn from each."""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.training import BatchPlan
from kindling_trainer.data.order import shuffled


@dataclass(frozen=True)
class RoundPlan:
    """A round's answers are learned from in passes, each of which takes them in an order of its own."""

    answers: int
    """Of a round, over all processes."""
    passes: int
    batch: BatchPlan
    """Of which a sequence is one answer behind its prompt."""
    seed: int

    @property
    def steps(self) -> int:
        """Optimizer steps of a round. A run resumes at the beginning of one."""
        return self.passes * self.answers // self.batch.sequences

    def rows(self, step: int) -> list[int]:
        """The answers that the step after `step` finished ones learns from, by their numbers in the round."""
        sequences = self.batch.sequences
        return shuffled(step * sequences, sequences, self.answers, self.seed)

    def micro_batches(self, step: int, batch_rank: int) -> list[list[int]]:
        """Those that one process computes, cut into what it computes at once."""
        rows, size = self.rows(step), self.batch.micro_batch
        first = batch_rank * size * self.batch.accumulation
        return [rows[first + number * size : first + (number + 1) * size] for number in range(self.batch.accumulation)]


def plan_rounds(spec: AlignmentRunSpec, context: int) -> RoundPlan:
    """The plan for a run that learns from rewards.

    Raises:
        SpecError: a round's answers do not divide into steps, or a step's over processes and micro-batches.
    """
    method, plan = spec.method.ppo or spec.method.grpo, spec.batch_plan(context)
    assert method is not None
    if method.answers % plan.sequences:
        raise SpecError(
            explain(
                "spec.training.batch.tokens",
                found=f"{plan.tokens} = {plan.sequences} answers of up to {context} tokens in a step",
                allowed=f"a divisor of the {method.answers} answers of a round",
                remedy=f"use {method.answers * context}, or leave it out, to learn from a whole round in each step",
            )
        )
    passes = spec.method.ppo.epochs if spec.method.ppo else 1
    return RoundPlan(method.answers, passes, plan, spec.training.seed)

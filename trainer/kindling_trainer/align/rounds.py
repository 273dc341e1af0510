"""How reinforcement learning divides its work: rounds of answers, and the optimizer steps that learn from each."""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.training import Batch, BatchPlan, batch_plan
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


def plan_rounds(
    batch: Batch, *, prompts: int, group: int, passes: int, context: int, layout: Layout, seed: int
) -> RoundPlan:
    """The plan for rounds of `group` answers to each of `prompts` prompts. Without `batch.tokens`, a step learns from a
    whole round.

    Raises:
        SpecError: a round's answers do not divide into steps, or a step's over processes and micro-batches.
    """
    answers = prompts * group
    whole = batch if batch.tokens is not None else batch.model_copy(update={"tokens": answers * context})
    plan = batch_plan(whole, context, layout)
    if answers % plan.sequences:
        raise SpecError(
            explain(
                "spec.training.batch.tokens",
                found=f"{plan.tokens} = {plan.sequences} answers of up to {context} tokens in a step",
                allowed=f"a divisor of the {answers} answers of a round",
                remedy=f"use {answers * context}, or leave it out, to learn from a whole round in each step",
            )
        )
    return RoundPlan(answers, passes, plan, seed)

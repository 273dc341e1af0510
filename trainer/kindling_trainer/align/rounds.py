"""How reinforcement learning divides its work: rounds of answers, and the optimizer steps that learn from each."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.training import BatchPlan
from kindling_trainer.data.order import shuffled
from kindling_trainer.loss import IGNORED
from kindling_trainer.objective import Share
from kindling_trainer.parallel.mesh import Ranks

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Answers = TypeVar("Answers", bound="DataclassInstance")


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


def share_of(answers: Answers, targets: Tensor, plan: RoundPlan, step: int, ranks: Ranks) -> Share[Answers]:
    """This process's part of the step after `step` finished ones.

    Args:
        answers: all of the round's, as a dataclass of tensors on the CPU.
        targets: theirs, int64 [answers, T]; the loss is divided by those of the step that count.
    """
    micro_batches = plan.micro_batches(step, ranks.batch_rank)
    return Share(
        (_some_of(answers, rows, ranks.device) for rows in micro_batches),
        len(micro_batches),
        float((targets[plan.rows(step)] != IGNORED).sum()),
    )


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


def _some_of(answers: Answers, rows: list[int], device: torch.device) -> Answers:
    """Some rows of all tensors of a dataclass, there."""

    def some(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: some(tensor) for name, tensor in value.items()}
        return value[rows].to(device) if isinstance(value, Tensor) else value

    return replace(answers, **{each.name: some(getattr(answers, each.name)) for each in fields(answers)})

"""How reinforcement learning divides its work: rounds of answers, and the optimizer steps that learn from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.training import BatchPlan
from kindling_trainer.data.order import shuffled
from kindling_trainer.loop.objective import Interruptible, LocalBatch
from kindling_trainer.loss import IGNORED
from kindling_trainer.parallel.mesh import Ranks


@dataclass(frozen=True)
class TokenAnswers:
    """B answers behind their prompts; what an algorithm needs besides are further tensors of a subclass."""

    tokens: Tensor
    """int64 [B, T]."""
    targets: Tensor
    """int64 [B, T]; IGNORED where no answer's token is predicted."""


Answers = TypeVar("Answers", bound=TokenAnswers)


@dataclass(frozen=True)
class RoundPlan:
    """A round's answers are learned from in passes, each of which takes them in an order of its own."""

    answers: int
    """Answers of a round, over all processes."""
    passes: int
    batch: BatchPlan
    """A sequence of the plan is one answer behind its prompt."""
    seed: int
    budget: int | None = None
    """Tokens that each answer counts for in what the loss is divided by, however many it has; None: those it has."""

    @property
    def steps(self) -> int:
        """Optimizer steps of a round. A run resumes at the beginning of one."""
        return self.passes * self.answers // self.batch.sequences

    def rows(self, step: int) -> list[int]:
        """The answers that the step after `step` finished ones learns from, by their numbers in the round."""
        first = step * self.batch.sequences
        return shuffled(range(first, first + self.batch.sequences), self.answers, self.seed)

    def micro_batches(self, step: int, batch_rank: int) -> list[list[int]]:
        """Those that one process computes, cut into what it computes at once."""
        rows, size = self.rows(step), self.batch.micro_batch
        first = batch_rank * size * self.batch.accumulation
        return [rows[first + number * size : first + (number + 1) * size] for number in range(self.batch.accumulation)]


@dataclass
class Rounds(Generic[Answers]):
    """The steps of all rounds, in their order."""

    plan: RoundPlan
    ranks: Ranks
    draw: Callable[[int, Interruptible[int]], Answers]
    """All answers of the round of a number, on the CPU; all processes call it."""
    _drawn: Answers | None = field(default=None, init=False)
    """Those of the present round."""

    def local_batch(self, step: int, interruptible: Interruptible[int]) -> LocalBatch[Answers]:
        """This process's part of the step after `step` finished ones; the first step of a round draws its answers."""
        number, within = divmod(step, self.plan.steps)
        if within == 0:
            self._drawn = self.draw(number, interruptible)
        assert self._drawn is not None, "a run resumes at the beginning of a round"
        return local_batch_of(self._drawn, self.plan, step, self.ranks)


def local_batch_of(answers: Answers, plan: RoundPlan, step: int, ranks: Ranks) -> LocalBatch[Answers]:
    """This process's part of the step after `step` finished ones; the loss is divided by the step's targets that count,
    or by the budget.

    Args:
        answers: all of the round's, on the CPU.
    """
    micro_batches, rows = plan.micro_batches(step, ranks.batch_rank), plan.rows(step)
    tokens = int((answers.targets[rows] != IGNORED).sum()) if plan.budget is None else len(rows) * plan.budget
    return LocalBatch(
        (_some_of(answers, rows, ranks.device) for rows in micro_batches),
        len(micro_batches),
        float(max(1, tokens)),  # none where all answers were cut off, and those teach nothing
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
                found=f"{plan.tokens} = {plan.sequences} answers of up to {plan.context} tokens in a step",
                allowed=f"a divisor of the {method.answers} answers of a round",
                remedy=f"use {method.answers * plan.context}, or leave it out to learn from a whole round in a step",
            )
        )
    fixed = spec.method.grpo is not None and spec.method.grpo.estimator == "drGrpo"
    budget = method.rollout.max_new_tokens if fixed else None
    return RoundPlan(method.answers, spec.passes, plan, spec.training.seed, budget)


def _some_of(answers: Answers, rows: list[int], device: torch.device) -> Answers:
    """Some rows of all tensors of a dataclass, there."""

    def some(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: some(tensor) for name, tensor in value.items()}
        return value[rows].to(device) if isinstance(value, Tensor) else value

    return replace(answers, **{each.name: some(getattr(answers, each.name)) for each in fields(answers)})

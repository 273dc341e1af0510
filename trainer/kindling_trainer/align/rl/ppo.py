"""Proximal policy optimisation: a value head learns what an answer will be worth, token by token, and the policy what
turned out better than that (Schulman et al. 2017, arXiv:1707.06347; for language, Ziegler et al. 2019,
arXiv:1909.08593)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kindling_api.v1alpha1.alignment_method import ProximalPolicy
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_trainer.align.data.tokenize import TokenPrompt
from kindling_trainer.align.rewards.model import open_reward_models
from kindling_trainer.align.rewards.rewards import RewardSet
from kindling_trainer.align.rl.losses import (
    adapted_coefficient,
    clipped_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    divergence_loss,
    generalized_advantages,
    token_rewards,
    whiten,
)
from kindling_trainer.align.rl.policy import assemble_policy, check_expected, open_policy
from kindling_trainer.align.rl.rollout import Rollouts, Round, evaluate_policy
from kindling_trainer.align.rl.rounds import RoundPlan, Rounds, TokenAnswers
from kindling_trainer.loop.objective import Evaluation, Figures, Interruptible, LocalBatch
from kindling_trainer.loop.setup import Setup
from kindling_trainer.loss import IGNORED, token_log_probabilities
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks

HORIZON = 10_000
"""Answers in which an adapted penalty moves by a fifth, at most (Ziegler et al. 2019, §2.2)."""


@dataclass(frozen=True)
class ValuedAnswers(TokenAnswers):
    """With what the loss needs."""

    advantages: Tensor
    """fp32 [B, T], as are those that follow."""
    before: Tensor
    """Log-probabilities under the policy that drew the answers."""
    values: Tensor
    """What its value head expected."""
    returns: Tensor
    """What it should have expected."""
    reference: Tensor
    """Log-probabilities under the base model."""
    facts: dict[str, Tensor]
    """What the curves show, by name [B]."""


@dataclass
class ProximalPolicyOptimisation:
    """The objective of PPO: policy and values share all of the decoder. The loss of a step is the mean over all tokens
    of its answers."""

    model: ParallelModel
    method: ProximalPolicy
    plan: RoundPlan
    rollouts: Rollouts
    validation: list[TokenPrompt]
    coefficient: Tensor
    """Of the penalty for leaving the base model, as it is now; a part of the checkpoint."""
    rounds: Rounds[ValuedAnswers] = field(init=False)

    def __post_init__(self) -> None:
        self.rounds = Rounds(self.plan, self.model.ranks, self._draw)

    def local_batch(self, step: int, interruptible: Interruptible[int]) -> LocalBatch[ValuedAnswers]:
        """This process's part of a step; the first step of a round draws its answers."""
        return self.rounds.local_batch(step, interruptible)

    def loss(self, batch: ValuedAnswers) -> tuple[Tensor, Figures]:
        """The sum over the answers' tokens of the clipped surrogate and the values' error."""
        method, mask = self.method, batch.targets != IGNORED
        chosen, values = self._policy_and_values(batch.tokens, batch.targets)
        value_loss = clipped_value_loss(values, batch.values, batch.returns, mask, method.clip)
        loss = clipped_policy_loss(chosen, batch.before, batch.advantages, mask, method.clip)
        with torch.no_grad():
            sums = {
                "entropy": -chosen.sum(),
                "clip_ratio": clipped_fraction(chosen, batch.before, mask, method.clip),
                "kl": divergence_loss(chosen, batch.reference, mask),
                "value_loss": value_loss,
            }
        figures = {name: torch.stack([total, mask.sum()]) for name, total in sums.items()}
        for name, fact in batch.facts.items():
            figures[name] = torch.stack([fact.sum(), fact.new_tensor(len(fact))])
        return loss + method.value_coefficient * value_loss, figures

    def evaluate(self, *, whole: bool, interruptible: Interruptible[int]) -> Evaluation:
        """The rewards of the likeliest answers to prompts that are held out."""
        return evaluate_policy(self.rollouts, self.validation, interruptible)

    def _policy_and_values(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Log-probabilities of the targets, and what is expected before each: fp32 [2, B, T]."""
        logits, values = self.model.logits_and_values(tokens)
        logits = logits / self.method.rollout.temperature
        return torch.stack([token_log_probabilities(logits, targets, self.model.ranks.tensor_group), values])

    def _draw(self, number: int, interruptible: Interruptible[int]) -> ValuedAnswers:
        return self._valued(self.rollouts.draw(number, interruptible))

    def _valued(self, drawn: Round) -> ValuedAnswers:
        mask, reference = drawn.mask, drawn.reference
        assert reference is not None
        before, values = self.rollouts.measure(drawn, self.plan.batch.micro_batch, self._policy_and_values)
        coefficient, gae = float(self.coefficient), self.method.gae
        rewards = token_rewards(drawn.scores, before, reference, mask, coefficient)
        advantages, returns = generalized_advantages(rewards, values, mask, gamma=gae.gamma, lambda_=gae.lambda_)
        divergence = ((before - reference) * mask).sum(dim=1)
        if self.method.kl_target is not None:
            adapted = adapted_coefficient(
                coefficient, float(divergence.mean()), self.method.kl_target, self.plan.answers, HORIZON
            )
            self.coefficient.fill_(adapted)
        facts = {"objective/kl": divergence, "objective/kl_coef": torch.full_like(divergence, coefficient)}
        return ValuedAnswers(
            drawn.tokens, drawn.targets, whiten(advantages, mask), before, values, returns, reference,
            drawn.facts | facts,
        )  # fmt: skip


def prepare(run: AlignmentRunFile, ranks: Ranks, method: ProximalPolicy) -> Setup:
    """Read the prompts, start the rewards, and build the model, not yet with any weights.

    Raises:
        UserError: base, template, data or rewards are wrong.
    """
    judges, field = open_reward_models(run, ranks.device), "spec.method.ppo.rewards"
    rewards = RewardSet(method.all_rewards, judges, field=field, allowed=run.reward_modules)
    policy = open_policy(run, ranks, method.rollout, rewards, group=1, penalty=True, scored=True)
    check_expected(method.all_rewards, policy.rollouts.questions + policy.validation)
    coefficient = torch.tensor(method.kl_coefficient, dtype=torch.float64)
    objective = ProximalPolicyOptimisation(
        policy.model, method, policy.plan, policy.rollouts, policy.validation, coefficient
    )
    return assemble_policy(run, ranks, policy, objective, {"kl_coefficient": coefficient})

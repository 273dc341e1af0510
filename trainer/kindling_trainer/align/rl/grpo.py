"""Group-relative policy optimisation: the answers to a prompt are compared with one another, and nothing has to
predict what they are worth (Shao et al. 2024, arXiv:2402.03300)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kindling_api.v1alpha1.alignment_method import GroupRelativePolicy
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_trainer.align.data.tokenize import TokenPrompt
from kindling_trainer.align.rewards.model import open_reward_models
from kindling_trainer.align.rewards.rewards import RewardSet
from kindling_trainer.align.rl.losses import clipped_fraction, clipped_policy_loss, divergence_loss, group_advantages
from kindling_trainer.align.rl.policy import assemble_policy, check_expected, open_policy
from kindling_trainer.align.rl.rollout import Rollouts, Round, evaluate_policy, log_probabilities
from kindling_trainer.align.rl.rounds import RoundPlan, Rounds, TokenAnswers
from kindling_trainer.loop.objective import Evaluation, Figures, Interruptible, LocalBatch
from kindling_trainer.loop.setup import Setup
from kindling_trainer.loss import IGNORED
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks


@dataclass(frozen=True)
class Answers(TokenAnswers):
    """With what the loss needs."""

    advantages: Tensor
    """[B]."""
    before: Tensor | None
    """Log-probabilities under the policy that drew the answers [B, T]; None where that is the present one."""
    reference: Tensor | None
    """The log-probabilities of the same tokens under the base model."""
    facts: dict[str, Tensor]
    """What the curves show, by name [B]."""


@dataclass
class GroupRelativeOptimisation:
    """The objective of GRPO. The loss of a step is the mean over all its tokens, as in DAPO (Yu et al. 2025,
    arXiv:2503.14476, equation 12), so that a long answer's tokens count as much as a short one's; or, by Dr. GRPO,
    their sum over what all its answers could have had."""

    model: ParallelModel
    method: GroupRelativePolicy
    plan: RoundPlan
    rollouts: Rollouts
    validation: list[TokenPrompt]
    rounds: Rounds[Answers] = field(init=False)

    def __post_init__(self) -> None:
        self.rounds = Rounds(self.plan, self.model.ranks, self._draw)

    def local_batch(self, step: int, interruptible: Interruptible[int]) -> LocalBatch[Answers]:
        """This process's part of a step; the first step of a round draws its answers."""
        return self.rounds.local_batch(step, interruptible)

    def loss(self, batch: Answers) -> tuple[Tensor, Figures]:
        """The sum over the answers' tokens of the clipped surrogate and the penalty for leaving the base model."""
        mask = batch.targets != IGNORED
        chosen = self._chosen(batch.tokens, batch.targets)[0]
        before = chosen.detach() if batch.before is None else batch.before
        loss = clipped_policy_loss(
            chosen, before, batch.advantages[:, None], mask, self.method.clip, self.method.clip_high
        )
        tokens = mask.sum()
        figures = {name: torch.stack([fact.sum(), fact.new_tensor(len(fact))]) for name, fact in batch.facts.items()}
        figures["entropy"] = torch.stack([-chosen.detach().sum(), tokens])
        if batch.before is not None:
            figures["clip_ratio"] = torch.stack(
                [clipped_fraction(chosen.detach(), before, mask, self.method.clip, self.method.clip_high), tokens]
            )
        if batch.reference is not None:
            divergence = divergence_loss(chosen, batch.reference, mask)
            loss = loss + self.method.kl_coefficient * divergence
            figures["kl"] = torch.stack([divergence.detach(), tokens])
        return loss, figures

    def evaluate(self, *, whole: bool, interruptible: Interruptible[int]) -> Evaluation:
        """The rewards of the likeliest answers to prompts that are held out."""
        return evaluate_policy(self.rollouts, self.validation, interruptible)

    def _chosen(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return log_probabilities(self.model, tokens, targets, self.method.rollout.temperature)[None]

    def _draw(self, number: int, interruptible: Interruptible[int]) -> Answers:
        return self._answers(self.rollouts.draw(number, interruptible))

    def _answers(self, drawn: Round) -> Answers:
        groups = drawn.scores.view(-1, self.method.group_size)
        targets = drawn.targets
        if self.method.mask_cut:
            targets = targets.where(torch.tensor([one.ended for one in drawn.drawn])[:, None], IGNORED)
        no_spread = (groups.std(dim=1, keepdim=True) == 0).float().expand_as(groups)
        return Answers(
            drawn.tokens,
            targets,
            group_advantages(groups, scaled=self.method.estimator == "grpo").flatten(),
            self.rollouts.measure(drawn, self.plan.batch.micro_batch, self._chosen)[0] if self.plan.steps > 1 else None,
            drawn.reference,
            drawn.facts | {"frac_reward_zero_std": no_spread.flatten()},
        )


def prepare(run: AlignmentRunFile, ranks: Ranks, method: GroupRelativePolicy) -> Setup:
    """Read the prompts, start the rewards, and build the model, not yet with any weights.

    Raises:
        UserError: base, template, data or rewards are wrong.
    """
    judges, field = open_reward_models(run, ranks.device), "spec.method.grpo.rewards"
    rewards = RewardSet(method.rewards, judges, field=field, allowed=run.reward_modules)
    policy = open_policy(
        run, ranks, method.rollout, rewards, group=method.group_size, penalty=method.kl_coefficient > 0
    )
    check_expected(method.rewards, policy.rollouts.questions + policy.validation)
    objective = GroupRelativeOptimisation(policy.model, method, policy.plan, policy.rollouts, policy.validation)
    return assemble_policy(run, ranks, policy, objective)

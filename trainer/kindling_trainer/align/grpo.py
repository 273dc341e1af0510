"""Group-relative policy optimisation: the answers to a prompt are judged against one another, and nothing has to
predict what they are worth (Shao et al. 2024, arXiv:2402.03300)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kindling_api.v1alpha1.alignment_run import GroupRelativePolicy
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_trainer.align.data import TokenPrompt
from kindling_trainer.align.policy import assemble_policy, check_expected, open_policy
from kindling_trainer.align.policy_losses import (
    clipped_fraction,
    clipped_policy_loss,
    divergence_loss,
    group_advantages,
)
from kindling_trainer.align.reward_model import open_judges
from kindling_trainer.align.rewards import Rewards
from kindling_trainer.align.rollout import Rollouts, Round, log_probabilities, tried
from kindling_trainer.align.rounds import RoundPlan, share_of
from kindling_trainer.loss import IGNORED
from kindling_trainer.objective import Evaluation, Figures, Interruptible, Share
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.setup import Setup


@dataclass(frozen=True)
class Answers:
    """A micro-batch of B answers behind their prompts."""

    tokens: Tensor
    """int64 [B, T]."""
    targets: Tensor
    """int64 [B, T]; IGNORED where no answer's token is predicted."""
    advantages: Tensor
    """[B]."""
    before: Tensor | None
    """Log-probabilities under the policy that drew the answers [B, T]; None where that is the present one."""
    reference: Tensor | None
    """The same under the base model."""
    facts: dict[str, Tensor]
    """What the curves show, by name [B]."""


@dataclass
class GroupRelativeOptimisation:
    """The objective of GRPO. The loss of a step is the mean over all its tokens, as in DAPO (Yu et al. 2025,
    arXiv:2503.14476, equation 12), so that a long answer's tokens count as much as a short one's."""

    model: ParallelModel
    method: GroupRelativePolicy
    plan: RoundPlan
    rollouts: Rollouts
    held_out: list[TokenPrompt]
    _round: Answers | None = field(default=None, init=False)
    """All of the round's answers, on the CPU."""

    def share(self, step: int, interruptible: Interruptible[int]) -> Share[Answers]:
        """This process's part of a step; the first step of a round draws its answers."""
        number, within = divmod(step, self.plan.steps)
        if within == 0:
            self._round = self._answers(self.rollouts.draw(number, interruptible))
        assert self._round is not None, "a run resumes at the beginning of a round"
        return share_of(self._round, self._round.targets, self.plan, step, self.model.ranks)

    def loss(self, batch: Answers) -> tuple[Tensor, Figures]:
        """The sum over the answers' tokens of the clipped surrogate and the penalty for leaving the base model."""
        mask = batch.targets != IGNORED
        chosen = self._chosen(batch.tokens, batch.targets)[0]
        before = chosen.detach() if batch.before is None else batch.before
        loss = clipped_policy_loss(chosen, before, batch.advantages[:, None], mask, self.method.clip)
        tokens = mask.sum()
        figures = {name: torch.stack([fact.sum(), fact.new_tensor(len(fact))]) for name, fact in batch.facts.items()}
        figures["entropy"] = torch.stack([-chosen.detach().sum(), tokens])
        if batch.before is not None:
            figures["clip_ratio"] = torch.stack(
                [clipped_fraction(chosen.detach(), before, mask, self.method.clip), tokens]
            )
        if batch.reference is not None:
            divergence = divergence_loss(chosen, batch.reference, mask)
            loss = loss + self.method.kl_coefficient * divergence
            figures["kl"] = torch.stack([divergence.detach(), tokens])
        return loss, figures

    def evaluate(self, *, whole: bool, interruptible: Interruptible[int]) -> Evaluation:
        """The rewards of the likeliest answers to prompts that are held out."""
        return tried(self.rollouts, self.held_out, interruptible)

    def _chosen(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return log_probabilities(self.model, tokens, targets, self.method.rollout.temperature)[None]

    def _answers(self, drawn: Round) -> Answers:
        groups = drawn.scores.view(-1, self.method.group_size)
        no_spread = (groups.std(dim=1, keepdim=True) == 0).float().expand_as(groups)
        return Answers(
            drawn.tokens,
            drawn.targets,
            group_advantages(groups).flatten(),
            self.rollouts.measure(drawn, self.plan.batch.micro_batch, self._chosen)[0] if self.plan.steps > 1 else None,
            drawn.reference,
            drawn.facts | {"frac_reward_zero_std": no_spread.flatten()},
        )


def prepare(run: AlignmentRunFile, ranks: Ranks, method: GroupRelativePolicy) -> Setup:
    """Read the prompts, start the rewards, and build the model, not yet with any weights.

    Raises:
        UserError: base, template, data or rewards are wrong.
    """
    judge = Rewards(method.rewards, open_judges(run, ranks.device), field="spec.method.grpo.rewards")
    policy = open_policy(run, ranks, method.rollout, judge, group=method.group_size, penalty=method.kl_coefficient > 0)
    check_expected(method.rewards, policy.rollouts.questions + policy.held_out)
    objective = GroupRelativeOptimisation(policy.model, method, policy.plan, policy.rollouts, policy.held_out)
    return assemble_policy(run, ranks, policy, objective)

"""The losses of learning from pairs: pure functions of log-probabilities and rewards, one value for each pair.

Where a choice is a convention (what IPO averages, how centring is weighted), it is TRL's, so that settings mean here
what they mean there. The sums over tokens are the caller's, and so is the mean over pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from kindling_api.v1alpha1.alignment_method import DirectPreference


class PairValues(NamedTuple):
    """A number for each of the two answers of P pairs, such as its log-probability or its reward: [P] each."""

    chosen: Tensor
    rejected: Tensor

    @property
    def margin(self) -> Tensor:
        """Chosen less rejected: [P]."""
        return self.chosen - self.rejected


def direct_preference(
    policy: PairValues, reference: PairValues, tokens: PairValues, method: DirectPreference
) -> Tensor:
    """The loss that `method` names: [P].

    Args:
        policy: log-probability of each answer, the sum over its tokens, in nats.
        reference: the same under the model that training began with.
        tokens: how many tokens each answer has.
    """
    if method.loss == "ipo":
        return ipo(policy, reference, tokens, beta=method.beta)
    return dpo(policy, reference, beta=method.beta, label_smoothing=method.label_smoothing)


def dpo(policy: PairValues, reference: PairValues, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-log σ(βδ), δ the margin by which the policy prefers the chosen answer beyond what the reference does (Rafailov
    et al. 2023, arXiv:2305.18290, equation 7).

    With label smoothing ε, which takes a pair for swapped with that probability: -(1 - ε) log σ(βδ) - ε log σ(-βδ)
    (Mitchell 2023, "A note on DPO with noisy preferences", equation 3).
    """
    preference = beta * (policy.margin - reference.margin)
    return -(1 - label_smoothing) * F.logsigmoid(preference) - label_smoothing * F.logsigmoid(-preference)


def ipo(policy: PairValues, reference: PairValues, tokens: PairValues, *, beta: float) -> Tensor:
    """(δ - 1/2β)², δ as in DPO (Azar et al. 2023, arXiv:2310.12036, equation 17) but from means over tokens instead of
    sums: the target would otherwise be nearer the longer the answers are."""
    gained = implicit_rewards(policy, reference, beta=1.0)
    return (gained.chosen / tokens.chosen - gained.rejected / tokens.rejected - 1 / (2 * beta)) ** 2


def implicit_rewards(policy: PairValues, reference: PairValues, *, beta: float) -> PairValues:
    """The rewards for which the policy would be the best one: β times the gain in log-probability (Rafailov et al.
    2023, equation 5, but for a term that both answers share)."""
    return PairValues(beta * (policy.chosen - reference.chosen), beta * (policy.rejected - reference.rejected))


def bradley_terry(rewards: PairValues, *, center_coefficient: float = 0.0) -> Tensor:
    """-log σ(chosen - rejected): the likelihood of the preference where its odds are the exponential of the margin
    (Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, equation 1).

    Only differences count in it; the penalty on (chosen + rejected)² keeps rewards around zero (Eisenstein et al. 2023,
    arXiv:2312.09244, §4).
    """
    return -F.logsigmoid(rewards.margin) + center_coefficient * (rewards.chosen + rewards.rejected) ** 2

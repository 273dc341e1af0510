"""What PPO and GRPO compute from log-probabilities, rewards and values: pure functions of tensors.

Rows are answers behind their prompts and columns positions, [B, T]; `mask` [B, T] is true where a token of an answer is
predicted, its end token included, and these columns of a row follow one another. What stands elsewhere never counts.
Losses are sums over the tokens that count, to be divided by the number of them in the whole step's batch, so that every
layout and every cut into micro-batches adds up to the same number.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP_EPSILON = 1e-4
"""Added to the deviation of a group's rewards, as TRL does."""
WHITENING_EPSILON = 1e-8
"""Added to the variance of advantages."""


def clipped_policy_loss(
    chosen: Tensor, before: Tensor, advantages: Tensor, mask: Tensor, clip: float, clip_high: float | None = None
) -> Tensor:
    """The sum of PPO's clipped surrogate, as a loss (Schulman et al. 2017, arXiv:1707.06347, equation 7).

    Args:
        chosen: log-probabilities of the tokens under the model that learns [B, T].
        before: the same under the model that drew them [B, T].
        advantages: [B, T].
        clip: how far the ratio of the two probabilities may be from 1 and still be pushed further.
        clip_high: the same above 1, where it is another (Yu et al. 2025, DAPO, arXiv:2503.14476, equation 10).
    """
    ratio = _differences(chosen, before, mask).exp()
    clipped = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -(torch.minimum(ratio * advantages, clipped * advantages) * mask).sum()


def clipped_fraction(
    chosen: Tensor, before: Tensor, mask: Tensor, clip: float, clip_high: float | None = None
) -> Tensor:
    """How many ratios are outside the clip; a sum over tokens."""
    change = _differences(chosen, before, mask).exp() - 1
    outside = (change < -clip) | (change > (clip if clip_high is None else clip_high))
    return (outside & mask).sum()


def divergence_loss(chosen: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """The sum of an estimate of KL(model ‖ reference), which is never negative and whose gradient is right on policy.

    It is r - log r - 1 with r = reference / model: k3 of Schulman 2020 ("Approximating KL divergence"), and equation 4
    of GRPO (Shao et al. 2024, arXiv:2402.03300).
    """
    difference = _differences(reference, chosen, mask)
    return ((difference.exp() - difference - 1) * mask).sum()


def group_advantages(rewards: Tensor, *, scaled: bool = True) -> Tensor:
    """How much better each answer is than the others to its prompt: rewards [P, G] → [P, G] (GRPO, §4.1.2).

    Rewards of a group are centred and divided by their standard deviation, or not divided (Liu et al. 2025, Dr. GRPO,
    arXiv:2503.20783, section 3.1); a group whose answers are all equally good teaches nothing.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not scaled:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + GROUP_EPSILON)


def token_rewards(scores: Tensor, before: Tensor, reference: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """PPO's reward of each token: the penalty for leaving the reference, and the answer's score at its last token
    (Ziegler et al. 2019, arXiv:1909.08593, equation 2).

    Args:
        scores: one for each answer [B].
        before: log-probabilities under the model that drew the tokens [B, T].
        reference: the same under the model that it must stay near [B, T].
    """
    penalties = -coefficient * _differences(before, reference, mask)
    return penalties + scores[:, None] * _last(mask)


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lambda_: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    An answer ends with its last token, whether it was finished or cut off: nothing is expected to follow.

    Args:
        rewards: of each token [B, T].
        values: what was expected, before each token, of it and all that follow [B, T].

    Returns:
        Advantages, and returns (what the values should have been); 0 outside the mask.
    """
    inside = mask.to(values.dtype)
    values = values * inside
    advantages = torch.zeros_like(values)
    following = following_value = torch.zeros_like(values[:, 0])
    for position in reversed(range(values.shape[1])):
        surprise = rewards[:, position] + gamma * following_value - values[:, position]
        following = (surprise + gamma * lambda_ * following) * inside[:, position]
        following_value = values[:, position]
        advantages[:, position] = following
    return advantages, (advantages + values) * inside


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale what counts to mean 0 and variance 1; 0 elsewhere."""
    counted = values[mask]
    if len(counted) < 2:
        return torch.zeros_like(values)
    variance, mean = torch.var_mean(counted)
    return (values - mean) * torch.rsqrt(variance + WHITENING_EPSILON) * mask


def clipped_value_loss(values: Tensor, before: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the sum of squared errors of the values, the worse of two: as they are, and clipped to `clip` around what
    they were `before` the round's updates (the value loss of PPO's first implementation, openai/baselines)."""
    clipped = before + (values - before).clamp(-clip, clip)
    errors = _differences(values, returns, mask).square()
    clipped_errors = _differences(clipped, returns, mask).square()
    return 0.5 * torch.maximum(errors, clipped_errors).sum()


def adapted_coefficient(coefficient: float, divergence: float, target: float, answers: int, horizon: int) -> float:
    """The penalty's coefficient after a round of so many `answers`, so that the divergence comes to `target`: a
    proportional controller (Ziegler et al. 2019, §2.2)."""
    error = min(max(divergence / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * answers / horizon)


def _differences(left: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """left - right, and 0 where nothing counts: there either may be infinite."""
    return torch.where(mask, left - right, 0.0)


def _last(mask: Tensor) -> Tensor:
    """True at the last column of each row's mask."""
    following = torch.zeros_like(mask)
    following[:, :-1] = mask[:, 1:]
    return mask & ~following

"""The losses of PPO and GRPO have the values that can be worked out by hand."""

from __future__ import annotations

import math
from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor, tensor

from kindling_trainer.align.rl.losses import (
    adapted_coefficient,
    clipped_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    divergence_loss,
    generalized_advantages,
    group_advantages,
    token_rewards,
    whiten,
)

INFINITE = float("inf")
ALL = tensor([[True, True]])


def logs(*probabilities: float) -> Tensor:
    return tensor([[log(one) if one else -INFINITE for one in probabilities]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("case", "now", "before", "advantages", "expected", "slope"),
    [
        ("the same model: minus the advantages", (0.3, 0.5), (0.3, 0.5), (2.0, -1.0), -1.0, (-2.0, 1.0)),
        ("a better answer likelier, beyond the clip: no further", (0.6, 0.5), (0.3, 0.5), (2.0, 0.0), -2.4, (0.0, 0.0)),
        ("a better answer less likely: no clip holds it", (0.15, 0.5), (0.3, 0.5), (2.0, 0.0), -1.0, (-1.0, 0.0)),
        ("a worse answer likelier: no clip holds it", (0.6, 0.5), (0.3, 0.5), (-2.0, 0.0), 4.0, (4.0, 0.0)),
        ("a worse answer less likely, beyond: no further", (0.15, 0.5), (0.3, 0.5), (-2.0, 0.0), 1.6, (0.0, 0.0)),
        ("within the clip", (0.33, 0.5), (0.3, 0.5), (1.0, 0.0), -1.1, (-1.1, 0.0)),
    ],
)
def test_the_policy_loss_is_clipped(
    case: str, now: tuple[float, ...], before: tuple[float, ...], advantages: tuple[float, ...], expected: float,
    slope: tuple[float, ...],
) -> None:  # fmt: skip
    chosen = logs(*now).requires_grad_()
    loss = clipped_policy_loss(chosen, logs(*before), tensor([advantages], dtype=torch.float64), ALL, 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert chosen.grad is not None
    assert chosen.grad[0].tolist() == pytest.approx(slope, abs=1e-9)


def test_a_clip_that_is_higher_upwards_lets_a_better_answer_become_likelier() -> None:
    chosen, before, advantages = logs(0.375, 0.7), logs(0.3, 0.5), tensor([[1.0, 1.0]], dtype=torch.float64)
    chosen.requires_grad_()
    clipped_policy_loss(chosen, before, advantages, ALL, 0.2, 0.28).backward()
    assert chosen.grad is not None and chosen.grad[0].tolist() == pytest.approx([-1.25, 0.0], abs=1e-9)
    lower = logs(0.15, 0.5)
    assert [clipped_fraction(each, before, ALL, 0.2, 0.28).item() for each in (chosen, lower)] == [1, 1]


def test_advantages_by_dr_grpo_are_centred_alone() -> None:
    found = group_advantages(tensor([[1.0, 0.0, 0.0, 3.0]]), scaled=False)
    assert found.tolist() == [[0.0, -1.0, -1.0, 2.0]]


def test_only_the_mask_counts_whatever_stands_elsewhere() -> None:
    mask = tensor([[True, False]])
    chosen, before, advantages = logs(0.4, 0), logs(0.5, 0), tensor([[1.0, 7.0]], dtype=torch.float64)
    chosen.requires_grad_()
    loss = clipped_policy_loss(chosen, before, advantages, mask, 0.2) + divergence_loss(chosen, before, mask)
    loss.backward()
    assert loss.item() == pytest.approx(-0.8 + 1.25 - log(1.25) - 1, abs=1e-9)
    assert chosen.grad is not None and chosen.grad[0, 1] == 0 and chosen.grad.isfinite().all()
    assert clipped_fraction(chosen, before, mask, 0.1).item() == 1
    assert clipped_fraction(chosen, before, mask, 0.3).item() == 0


def test_the_divergence_is_k3_of_schulman_and_its_mean_is_the_divergence() -> None:
    model, reference = tensor([0.7, 0.2, 0.1], dtype=torch.float64), tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    each = [
        divergence_loss(model[i].log()[None, None], reference[i].log()[None, None], tensor([[True]])).item()
        for i in range(3)
    ]
    assert each == pytest.approx([r - log(r) - 1 for r in (5 / 7, 5 / 4, 5 / 2)], abs=1e-12)
    exact = sum(p * log(p / q) for p, q in zip(model.tolist(), reference.tolist(), strict=True))
    assert sum(p * one for p, one in zip(model.tolist(), each, strict=True)) == pytest.approx(exact, abs=1e-12)


def test_advantages_of_a_group_are_centred_and_scaled() -> None:
    rewards = tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [5.0, -1.0, 1.0, 3.0]], dtype=torch.float64)
    deviation, wider = 0.5, sqrt((9 + 9 + 1 + 1) / 3)
    assert group_advantages(rewards).flatten().tolist() == pytest.approx(
        [x / (deviation + 1e-4) for x in (0.75, -0.25, -0.25, -0.25)]
        + [0.0] * 4
        + [x / (wider + 1e-4) for x in (3.0, -3.0, -1.0, 1.0)],
        abs=1e-9,
    )


def test_a_tokens_reward_is_the_penalty_and_the_last_ones_the_score_too() -> None:
    mask = tensor([[False, True, True, False], [True, True, True, True]])
    before = tensor([[-INFINITE, -1.0, -2.0, 0.0], [-1.0, -1.0, -1.0, -1.0]])
    reference = tensor([[-INFINITE, -1.5, -1.0, -INFINITE], [-1.0, -1.0, -1.0, -3.0]])
    rewards = token_rewards(tensor([10.0, -10.0]), before, reference, mask, 0.1)
    expected = [0.0, -0.05, 10.1, 0.0, 0.0, 0.0, 0.0, -10.2]
    assert rewards.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_advantages_over_time_are_the_sums_of_discounted_surprises() -> None:
    """Of two answers, of three tokens and of two, against the definition: Σ (γλ)^k δ, δ = r + γ V' - V."""
    mask = tensor([[False, True, True, True], [True, True, False, False]])
    rewards = tensor([[9.0, 0.1, -0.2, 1.0], [0.3, 2.0, 9.0, 9.0]], dtype=torch.float64)
    values = tensor([[9.0, 0.5, 0.4, 0.8], [0.7, 0.6, 9.0, 9.0]], dtype=torch.float64)
    g, l = 0.9, 0.8  # noqa: E741
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=g, lambda_=l)
    d = [0.1 + g * 0.4 - 0.5, -0.2 + g * 0.8 - 0.4, 1.0 - 0.8]
    e = [0.3 + g * 0.6 - 0.7, 2.0 - 0.6]
    expected = [
        0,
        d[0] + g * l * d[1] + (g * l) ** 2 * d[2],
        d[1] + g * l * d[2],
        d[2],
        e[0] + g * l * e[1],
        e[1],
        0,
        0,
    ]
    assert advantages.flatten().tolist() == pytest.approx(expected, abs=1e-9)
    counted = values.masked_fill(~mask, 0)
    assert returns.flatten().tolist() == pytest.approx((advantages + counted).flatten().tolist(), abs=1e-12)


def test_with_gamma_and_lambda_1_the_returns_are_the_rewards_to_come() -> None:
    rewards, values = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    _, returns = generalized_advantages(rewards, values, torch.ones(3, 6, dtype=torch.bool), gamma=1, lambda_=1)
    torch.testing.assert_close(returns, rewards.flip(1).cumsum(1).flip(1))


def test_whitened_values_have_mean_0_and_variance_1() -> None:
    mask = tensor([[True, True, False], [True, True, True]])
    whitened = whiten(tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]], dtype=torch.float64), mask)
    root = sqrt(2.5)
    assert whitened.flatten().tolist() == pytest.approx([-2 / root, -1 / root, 0, 0, 1 / root, 2 / root], abs=1e-7)
    assert whiten(tensor([[3.0]]), tensor([[True]])).item() == 0, "one value has no variance"


@pytest.mark.parametrize(
    ("value", "before", "returned", "expected", "slope"),
    [
        (1.0, 1.0, 3.0, 2.0, -2.0),
        (1.1, 1.0, 3.0, 0.5 * 1.9**2, -1.9),
        (2.5, 1.0, 3.0, 0.5 * 1.8**2, 0.0),  # has come nearer than it may: no further
        (0.0, 1.0, 3.0, 4.5, -3.0),  # has gone away: nothing holds it back
    ],
)
def test_the_value_loss_is_the_worse_of_two(
    value: float, before: float, returned: float, expected: float, slope: float
) -> None:
    values = tensor([[value, 7.0]], dtype=torch.float64, requires_grad=True)
    loss = clipped_value_loss(
        values, tensor([[before, 0.0]]), tensor([[returned, INFINITE]]), tensor([[True, False]]), 0.2
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert values.grad is not None and values.grad[0].tolist() == pytest.approx([slope, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [(6.0, 0.1), (6.6, 0.1 * (1 + 0.1 * 0.01)), (60.0, 0.1 * (1 + 0.2 * 0.01)), (0.0, 0.1 * (1 - 0.2 * 0.01))],
)
def test_the_penalty_follows_the_divergence_slowly(divergence: float, expected: float) -> None:
    assert adapted_coefficient(0.1, divergence, 6.0, 100, 10_000) == pytest.approx(expected, abs=1e-12)


def test_the_ratio_is_of_probabilities() -> None:
    loss = clipped_policy_loss(logs(0.5, 0.5), logs(0.5, 0.5) - 0.1, torch.ones(1, 2, dtype=torch.float64), ALL, 0.9)
    assert loss.item() == pytest.approx(-2 * exp(0.1), abs=1e-9) and math.isfinite(loss.item())

"""The losses have the values that their formulas have on paper, and push in the direction they should.

`trl.json` holds what TRL computed for the same tensors; `bench/align/trl_values.py` makes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kindling_api.v1alpha1.alignment_method import DirectPreference
from kindling_trainer.align.preference.losses import (
    PairValues,
    bradley_terry,
    direct_preference,
    dpo,
    implicit_rewards,
    ipo,
)
from kindling_trainer.chat.message import Message
from kindling_trainer.chat.template import ChatTemplate


def answers(chosen: list[float], rejected: list[float]) -> PairValues:
    return PairValues(torch.tensor(chosen, dtype=torch.float64), torch.tensor(rejected, dtype=torch.float64))


POLICY = answers([-10.0, -3.0, -7.5], [-12.0, -2.0, -7.5])
REFERENCE = answers([-11.0, -2.0, -7.0], [-11.5, -2.5, -8.0])
TOKENS = answers([4.0, 2.0, 5.0], [8.0, 1.0, 2.0])
MARGINS = [1.5, -1.5, -1.0]
"""(chosen - reference's chosen) - (rejected - reference's rejected), by hand."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def same(found: Tensor, expected: list[float]) -> None:
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_dpo_is_its_formula(beta: float, smoothing: float) -> None:
    expected = [
        -(1 - smoothing) * math.log(sigmoid(beta * margin)) - smoothing * math.log(sigmoid(-beta * margin))
        for margin in MARGINS
    ]
    same(dpo(POLICY, REFERENCE, beta=beta, label_smoothing=smoothing), expected)


def test_dpo_of_the_reference_itself_is_ln_2() -> None:
    same(dpo(POLICY, POLICY, beta=0.1), [math.log(2)] * 3)
    same(dpo(REFERENCE, REFERENCE, beta=5.0, label_smoothing=0.2), [math.log(2)] * 3)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_ipo_is_its_formula(beta: float) -> None:
    gains = [1.0 / 4 - -0.5 / 8, -1.0 / 2 - 0.5 / 1, -0.5 / 5 - 0.5 / 2]
    same(ipo(POLICY, REFERENCE, TOKENS, beta=beta), [(gain - 1 / (2 * beta)) ** 2 for gain in gains])


@pytest.mark.parametrize("center", [0.0, 0.01, 1.0])
def test_bradley_terry_is_its_formula(center: float) -> None:
    rewards = answers([1.0, -0.5, 3.0], [0.5, 0.5, 3.0])
    margins, totals = [0.5, -1.0, 0.0], [1.5, 0.0, 6.0]
    expected = [
        math.log(1 + math.exp(-margin)) + center * total**2 for margin, total in zip(margins, totals, strict=True)
    ]
    same(bradley_terry(rewards, center_coefficient=center), expected)


def test_the_method_names_the_loss() -> None:
    for method in ({"beta": 0.3, "labelSmoothing": 0.1}, {"beta": 0.3, "loss": "ipo"}):
        spec = DirectPreference.model_validate(method)
        found = direct_preference(POLICY, REFERENCE, TOKENS, spec)
        if spec.loss == "ipo":
            same(found, ipo(POLICY, REFERENCE, TOKENS, beta=0.3).tolist())
        else:
            same(found, dpo(POLICY, REFERENCE, beta=0.3, label_smoothing=0.1).tolist())


def test_implicit_rewards_are_the_gains_by_beta() -> None:
    rewards = implicit_rewards(POLICY, REFERENCE, beta=0.5)
    same(rewards.chosen, [0.5, -0.5, -0.25])
    same(rewards.rejected, [-0.25, 0.25, 0.25])
    same(rewards.margin, [0.75, -0.75, -0.5])


@pytest.mark.parametrize(
    "loss",
    [
        lambda policy: dpo(policy, REFERENCE, beta=0.1),
        lambda policy: ipo(policy, REFERENCE, TOKENS, beta=0.1),
        lambda policy: bradley_terry(policy),
    ],
    ids=["dpo", "ipo", "bradley-terry"],
)
def test_every_loss_raises_the_chosen_answer_and_lowers_the_rejected_one(loss: Any) -> None:
    policy = PairValues(*(part.clone().requires_grad_() for part in POLICY))
    loss(policy).sum().backward()
    assert policy.chosen.grad is not None and policy.rejected.grad is not None
    assert (policy.chosen.grad < 0).all() and (policy.rejected.grad > 0).all()


TRL = json.loads(Path(__file__).with_name("trl.json").read_text())


@pytest.mark.parametrize("case", TRL["losses"], ids=lambda case: case["name"])
def test_trl_computes_the_same_from_pairs(case: dict[str, Any]) -> None:
    tensors = {name: PairValues(*map(torch.tensor, values)) for name, values in case["tensors"].items()}
    if case["method"] == "reward":
        found = bradley_terry(tensors["rewards"], center_coefficient=case["center"])
    else:
        method = DirectPreference.model_validate(case["settings"])
        found = direct_preference(tensors["policy"], tensors["reference"], tensors["tokens"], method)
    assert float(found.mean()) == pytest.approx(case["loss"], rel=1e-5)


def test_trl_computes_the_same_from_dialogues() -> None:
    """Its mean is over the tokens that count, as that of our batches is."""
    each, sequences = torch.tensor(TRL["sft"]["log_probabilities"]), TRL["sft"]["sequences"]
    counted = torch.zeros_like(each)
    for row, sequence in enumerate(sequences):
        counted[row, : len(sequence["counted"]) - 1] = torch.tensor(sequence["counted"][1:])
    assert float(-(each * counted).sum() / counted.sum()) == pytest.approx(TRL["sft"]["loss"], rel=1e-5)


def test_trl_makes_the_same_sequences(template: Callable[..., ChatTemplate]) -> None:
    made, pairs = template(), TRL["pairs"]
    chosen = [((Message("user", asked), Message("assistant", good)), 1) for asked, good, _ in pairs]
    rejected = [((Message("user", asked), Message("assistant", bad)), 1) for asked, _, bad in pairs]
    found = [(each.tokens.tolist(), each.counted.astype(int).tolist()) for each in made.encode(chosen + rejected)]
    for case in TRL["losses"]:
        if case["method"] == "dpo":
            assert sorted(found) == sorted((each["tokens"], each["counted"]) for each in case["sequences"])
    assert sorted(found[: len(pairs)]) == sorted((each["tokens"], each["counted"]) for each in TRL["sft"]["sequences"])

"""Each rule keeps exactly the tokens that it should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kindling_api.errors import SpecError
from kindling_trainer.inference.sampling import (
    GenerationOptions,
    choose,
    choose_each,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize,
)

some_logits = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=40).map(torch.tensor)


def kept(logits: Tensor) -> set[int]:
    return set(torch.isfinite(logits).nonzero().flatten().tolist())


def draw(logits: Tensor, seed: int = 0, **options: Any) -> int:
    return choose(logits, [], GenerationOptions(**options), torch.Generator().manual_seed(seed))


@given(some_logits, st.integers(1, 50))
def test_top_k_keeps_exactly_the_k_likeliest(logits: Tensor, k: int) -> None:
    left = kept(keep_top_k(logits, k))
    assert len(left) == min(k, len(logits))
    ruled_out = set(range(len(logits))) - left
    assert all(logits[i] >= logits[j] for i in left for j in ruled_out)


@given(some_logits, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_tokens_that_hold_p(logits: Tensor, p: float) -> None:
    left = kept(keep_top_p(logits, p))
    probabilities = logits.double().softmax(dim=0)
    mass = sum(probabilities[i].item() for i in left)
    least = min(probabilities[i].item() for i in left)
    assert mass >= p - 1e-5
    assert mass - least < p + 1e-5
    assert all(probabilities[i] <= least for i in set(range(len(logits))) - left)


def test_top_p_of_known_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert kept(keep_top_p(logits, 0.5)) == {0}
    assert kept(keep_top_p(logits, 0.51)) == {0, 1}
    assert kept(keep_top_p(logits, 0.9)) == {0, 1, 2}
    assert kept(keep_top_p(logits, 1.0)) == {0, 1, 2, 3}


def test_min_p_keeps_what_is_near_the_likeliest() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert kept(keep_min_p(logits, 0.29)) == {0, 1, 2}
    assert kept(keep_min_p(logits, 0.61)) == {0}
    assert kept(keep_min_p(logits + 40, 1.0)) == {0}


def test_the_penalty_lowers_seen_tokens_of_either_sign_and_no_others() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, -1.0])
    assert penalize(logits, [0, 1, 0], 2.0).tolist() == [1.0, -4.0, 1.0, -1.0]
    assert penalize(logits, [0, 1], 1.0) is logits
    assert penalize(logits, [], 2.0) is logits
    assert penalize(logits, [0, 4, 99], 2.0).tolist() == [1.0, -2.0, 1.0, -1.0]  # what has no logit is passed over


@given(some_logits)
def test_temperature_zero_takes_the_likeliest(logits: Tensor) -> None:
    assert logits[draw(logits, temperature=0)] == logits.max()


def test_a_falling_temperature_tends_to_greedy() -> None:
    logits = torch.tensor([1.0, 1.5, 0.2])
    shares = [
        sum(draw(logits, seed, temperature=temperature) == 1 for seed in range(300)) / 300
        for temperature in (10, 1, 0.3, 0.01)
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1e-3},
        {"temperature": 1e-3, "repetition_penalty": 0.01},
        {"temperature": 100, "top_p": 0},
        {"temperature": 100, "top_p": 1e-6},
        {"temperature": 100, "top_k": 1, "repetition_penalty": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("scale", [1e-30, 1, 1e30], ids=lambda scale: f"logits of {scale}")
def test_at_its_bounds_an_option_takes_the_likeliest_of_any_logits(options: dict[str, Any], scale: float) -> None:
    logits = torch.tensor([1.0, 3.0, -2.0, 2.0]) * scale
    drawn = {choose(logits, [1], GenerationOptions(**options), torch.Generator().manual_seed(n)) for n in range(20)}
    likeliest = {1, 3} if options.get("repetition_penalty") == 100 else {1}
    assert drawn <= likeliest or (scale == 1e-30 and "top_p" not in options)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused_before_anything_is_drawn(wrong: float) -> None:
    logits = torch.tensor([[1.0, 2.0], [1.0, wrong]])
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    states = [generator.get_state() for generator in generators]
    with pytest.raises(ArithmeticError, match="no numbers"):
        choose_each(logits, [[], []], [GenerationOptions()] * 2, generators)
    assert all(map(torch.equal, states, (generator.get_state() for generator in generators)))


def test_drawn_tokens_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    generator = torch.Generator().manual_seed(1)
    options = GenerationOptions(temperature=1.0)
    counts = torch.bincount(torch.tensor([choose(probabilities.log(), [], options, generator) for _ in range(4000)]))
    torch.testing.assert_close(counts / 4000, probabilities, rtol=0, atol=0.03)


def test_one_seed_gives_one_choice() -> None:
    logits = torch.randn(50)
    first = [draw(logits, seed, temperature=1.0) for seed in range(20)]
    assert first == [draw(logits, seed, temperature=1.0) for seed in range(20)]
    assert len(set(first)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"temperature": -1},
            "temperature: found -1; allowed: 0 (greedy), or 0.001 to 100. To fix it: use 0.8.",
        ),
        (
            {"temperature": 1e-38},
            "temperature: found 1e-38; allowed: 0 (greedy), or 0.001 to 100. To fix it: use 0.8.",
        ),
        (
            {"top_p": 1.5},
            "top_p: found 1.5; allowed: 0 (the likeliest token alone), or 0.000001 to 1. To fix it: leave it out, or"
            " use 0.95.",
        ),
        (
            {"top_k": 0},
            "top_k: found 0; allowed: a whole number from 1. To fix it: leave it out, or use 50.",
        ),
        (
            {"max_tokens": 0},
            "max_tokens: found 0; allowed: a whole number from 1. To fix it: use 200.",
        ),
        (
            {"repetition_penalty": 0},
            "repetition_penalty: found 0; allowed: 0.01 to 100; 1 is none. To fix it: use 1.1.",
        ),
    ],
    ids=["temperature", "tiny temperature", "top-p", "top-k", "max-tokens", "penalty"],
)
def test_an_option_out_of_bounds_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refusal:
        GenerationOptions(**options)
    assert str(refusal.value) == message

"""A text whose beginning was read before is read from there on, and continued as if it had been read whole."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.inference.batching import DecodingBatch, Row, continue_tokens
from kindling_trainer.inference.prefixes import LEAST, PrefixCache
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize

VOCAB, CONTEXT, ANSWER = 30, 192, 12
GREEDY = GenerationOptions(max_tokens=ANSWER, temperature=0)
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"architecture": "llama", "kv_heads": 2},
    "gpt2": {"architecture": "gpt2", "kv_heads": 4},
    "windows": {"architecture": "llama", "kv_heads": 2, "variant": {"window": 9, "windowedLayers": [0]}},
}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Decoder:
    sizes = {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": CONTEXT, **VARIANTS[request.param]}
    model = build_model(ModelShape.model_validate(sizes, strict=False), VOCAB)
    initialize(model, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that rounding decides nothing
    return model.eval()


@pytest.fixture
def read(model: Decoder) -> list[int]:
    """How many positions of how many rows each call of the model reads."""
    calls: list[int] = []
    model.register_forward_pre_hook(lambda _, given: calls.append(given[0].numel()))
    return calls


def answer(batch: DecodingBatch, *prompts: list[int]) -> list[list[int]]:
    """What follows each prompt, side by side."""
    rows: list[Row] = [batch.join(prompt, GREEDY) for prompt in prompts]
    added: dict[Row, int] = dict.fromkeys(rows, 0)
    while batch.rows:
        for row, _ in batch.step():
            added[row] += 1
            if added[row] == ANSWER:
                batch.leave(row)
    return [row.tokens[-ANSWER:] for row in rows]


def text(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(VOCAB), k=length)


def test_the_turns_of_a_dialogue_are_answered_alike_and_only_what_is_new_is_read(
    model: Decoder, read: list[int]
) -> None:
    batch, dialogue = DecodingBatch(model, prefixes=PrefixCache(2**24)), text(1, 50)
    for turn in range(4):
        expected = list(continue_tokens(model, dialogue, GREEDY))
        read.clear()
        assert answer(batch, dialogue) == [expected]
        # All of the last answer but its last token is known.
        assert read[0] == (50 if turn == 0 else 10 + 1)
        dialogue = [*dialogue, *expected, *text(turn, 10)]


def test_texts_that_share_a_beginning_are_answered_alike_beside_others(model: Decoder, read: list[int]) -> None:
    batch, system = DecodingBatch(model, prefixes=PrefixCache(2**24)), text(1, 2 * LEAST)
    answer(batch, [*system, *text(2, 5)])
    prompts = [
        [*system, *text(3, 9)],
        text(4, 40),
        [*system, *text(5, 3)],
        text(6, 7),
        system[: LEAST - 2],
        list(system),
    ]
    expected = [list(continue_tokens(model, prompt, GREEDY)) for prompt in prompts]
    read.clear()
    assert answer(batch, *prompts) == expected
    assert sum(read) < sum(map(len, prompts)) + len(prompts) * ANSWER


def test_memory_is_bounded_and_what_was_used_last_stays(model: Decoder) -> None:
    prefixes, first = PrefixCache(80_000), text(0, 60)
    batch = DecodingBatch(model, prefixes=prefixes)
    for seed in range(1, 6):
        answer(batch, first)
        answer(batch, text(seed, 60))
        assert prefixes.nbytes <= prefixes.most_bytes
    assert prefixes.shared([*first, 1]) == 60, "it was used each time"
    assert prefixes.shared([*text(1, 60), 1]) == 0, "it has made room"
    answer(batch, text(0, 20))
    assert prefixes.shared([*text(0, 20), 1]) == 0, "too short to be worth its while"


def test_a_dialogue_beyond_the_context_is_answered_as_without(model: Decoder) -> None:
    batch, prompt = DecodingBatch(model, prefixes=PrefixCache(2**24)), text(1, CONTEXT - 4)
    for longer in (prompt, [*prompt, *text(2, 3)], [*prompt, *text(2, 30)]):
        assert answer(batch, longer) == [list(continue_tokens(model, longer, GREEDY))]

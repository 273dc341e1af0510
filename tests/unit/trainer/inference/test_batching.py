"""Texts that are continued side by side get what each would get alone, whoever joins or leaves meanwhile."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.inference.batching import DecodingBatch, Row, continue_all, continue_tokens, score_tokens
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize

VOCAB, CONTEXT = 30, 24
GREEDY = GenerationOptions(max_tokens=30, temperature=0)
PROMPTS = [[1], [2, 3, 4, 5, 6], list(range(20)), [7] * 24, list(range(29)) * 2, [9, 8]]


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Decoder:
    sizes = {"layers": 2, "heads": 4, "kv_heads": 4, "width": 32, "ffn_width": 48, "context": CONTEXT}
    if request.param == "llama":
        sizes["kv_heads"] = 2
    model = build_model(ModelShape.model_validate({"architecture": request.param, **sizes}), VOCAB)
    initialize(model, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that rounding decides nothing
    return model.eval()


def single_node(model: Decoder, prompt: list[int], options: GenerationOptions) -> list[int]:
    return list(continue_tokens(model, prompt, options))


@pytest.mark.parametrize("most", [1, 2, 64])
def test_rows_of_different_lengths_are_continued_as_each_would_be_alone(model: Decoder, most: int) -> None:
    done = continue_all(model, [(prompt, GREEDY) for prompt in PROMPTS], most=most)
    assert [one.tokens for one in done] == [single_node(model, prompt, GREEDY) for prompt in PROMPTS]


def test_rows_that_are_drawn_have_generators_of_their_own(model: Decoder) -> None:
    options = [
        GenerationOptions(max_tokens=12, temperature=1.2, seed=1),
        GenerationOptions(max_tokens=20, temperature=0.7, top_k=5, seed=2),
        GenerationOptions(max_tokens=9, temperature=1.0, top_p=0.8, repetition_penalty=1.3, seed=3),
        GenerationOptions(max_tokens=15, temperature=0),
    ]
    prompts = list(zip(PROMPTS, options, strict=False))
    done = continue_all(model, prompts)
    assert [one.tokens for one in done] == [single_node(model, *prompt) for prompt in prompts]


def test_rows_join_and_leave_at_any_step(model: Decoder) -> None:
    choices = random.Random(5)
    batch, expected, got = DecodingBatch(model), {}, {}
    for _ in range(120):
        if choices.random() < 0.3 and len(batch.rows) < 5:
            prompt = [choices.randrange(VOCAB) for _ in range(choices.randint(1, CONTEXT + 4))]
            row = batch.join(prompt, GREEDY)
            expected[row], got[row] = single_node(model, prompt, GREEDY), []
        for row, chosen in batch.step():
            got[row].append(chosen.token)
            if len(got[row]) == GREEDY.max_tokens or choices.random() < 0.04:
                batch.leave(row)
        if batch.rows and choices.random() < 0.05:
            batch.leave(batch.rows[-1])  # perhaps before it was read
    assert len(got) > 8
    assert all(tokens == expected[row][: len(tokens)] for row, tokens in got.items())


def test_a_stop_token_ends_its_row_and_is_its_last(model: Decoder) -> None:
    whole = continue_all(model, [(prompt, GREEDY) for prompt in PROMPTS])
    stop = whole[0].tokens[3]
    for one, before in zip(continue_all(model, [(p, GREEDY) for p in PROMPTS], stops={stop}), whole, strict=True):
        cut = before.tokens.index(stop) + 1 if stop in before.tokens else len(before.tokens)
        assert (one.tokens, one.ended) == (before.tokens[:cut], stop in before.tokens)
        assert len(one.log_probabilities) == cut


def test_log_probabilities_are_those_of_reading_the_text_at_once(model: Decoder) -> None:
    short = GenerationOptions(max_tokens=6, temperature=2.0, top_k=9, seed=3)
    prompts = PROMPTS[:2]
    for prompt, one in zip(prompts, continue_all(model, [(prompt, short) for prompt in prompts]), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *one.tokens]]))[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(dim=-1).gather(-1, torch.tensor(one.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(one.log_probabilities), expected, rtol=0, atol=1e-5)


def test_a_prompt_is_scored_and_the_likeliest_tokens_are_told_where_that_is_asked_for(model: Decoder) -> None:
    batch = DecodingBatch(model)
    scored = batch.join(PROMPTS[2], GREEDY, likeliest=3, score_prompt=True)
    other = batch.join(PROMPTS[1], GREEDY)
    chosen = dict(batch.step())
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[2]]))[0]
    expected = score_tokens(logits[:-1], PROMPTS[2][1:], 3)
    for one, same in zip(scored.prompt, expected, strict=True):
        assert (one.token, [token for token, _ in one.likeliest]) == (
            same.token,
            [token for token, _ in same.likeliest],
        )
        assert one.log_probability == pytest.approx(same.log_probability, abs=1e-5)
    assert chosen[scored].likeliest[0] == (chosen[scored].token, chosen[scored].log_probability)
    assert (other.prompt, chosen[other].likeliest) == ([], ())


def test_long_prompts_are_read_a_few_at_a_time(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kindling_trainer.inference.batching.READ_AT_ONCE", 40)
    batch = DecodingBatch(model)
    rows = [batch.join([1] * 20, GREEDY) for _ in range(5)]
    had: list[list[Row]] = [[row for row, _ in batch.step()] for _ in range(3)]
    assert [len(step) for step in had] == [2, 4, 5]
    assert had[-1] == rows


class Faulty(torch.nn.Module):
    """A model that fails on one token, in one of the ways in which models do."""

    def __init__(self, model: Decoder, token: int, how: str) -> None:
        super().__init__()
        self.model, self.token, self.how = model, token, how
        self.shape, self.embedding = model.shape, model.embedding

    def forward(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        found = tokens == self.token
        if self.how == "raises before" and found.any():
            raise RuntimeError("not this token")
        logits: torch.Tensor = self.model(tokens, cache)
        if self.how == "raises after" and found.any():
            raise RuntimeError("not this token")
        return logits.masked_fill(found[..., None], float(self.how)) if found.any() else logits


@pytest.mark.parametrize("how", ["raises before", "raises after", "nan", "inf"])
@pytest.mark.parametrize("where", ["in its prompt", "in what it says"])
def test_a_row_on_which_the_model_fails_ends_by_itself(model: Decoder, how: str, where: str) -> None:
    token = VOCAB - 1  # nobody else has it, or can choose it
    drawn = GenerationOptions(max_tokens=30, temperature=1.1, seed=7)
    prompts = [(prompt, options) for prompt in PROMPTS[:4] for options in (GREEDY, drawn)]
    honest = [list(continue_tokens(model, *prompt, vocab_size=token)) for prompt in prompts]
    batch = DecodingBatch(Faulty(model, token, how), vocab_size=token)  # type: ignore[arg-type]
    rows = [batch.join(*prompt) for prompt in prompts[:4]]
    bad = batch.join([8, token if where == "in its prompt" else 9], GREEDY)
    rows += [batch.join(*prompt) for prompt in prompts[4:]]
    faults, got = [], {row: list[int]() for row in rows}
    while batch.rows:
        for row, outcome in batch.step():
            if isinstance(outcome, Exception):
                faults.append(row)
                batch.leave(row)
            elif row is bad:
                bad.tokens[-1] = token if len(bad.tokens) == 6 else bad.tokens[-1]  # it is what is read next
            else:
                got[row].append(outcome.token)
                if len(got[row]) == 30:
                    batch.leave(row)
    assert faults == [bad]
    assert list(got.values()) == honest


def test_texts_that_are_continued_to_their_end_tell_what_failed(model: Decoder) -> None:
    with pytest.raises(RuntimeError, match="not this token"):
        continue_all(Faulty(model, 5, "raises before"), [([5], GREEDY), ([1], GREEDY)])  # type: ignore[arg-type]

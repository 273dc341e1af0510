"""The endpoint speaks OpenAI's protocol, as OpenAI's own client does, and says what the model alone would say."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
import torch

from kindling_trainer.chat.message import Message
from kindling_trainer.inference.batching import score_tokens
from kindling_trainer.inference.sampling import GenerationOptions

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def post(url: str, body: bytes, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_chat_answer_is_what_the_model_alone_would_say(client: openai.OpenAI, server: Any) -> None:
    said = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=24)
    options = GenerationOptions(max_tokens=24, temperature=0)
    expected = "".join(server.generator.answer([Message("user", "hello")], options))
    assert said.choices[0].message.content == expected
    assert said.choices[0].message.role == "assistant"
    assert said.choices[0].finish_reason == "length"
    prompt = len(server.generator.chat.prompt([Message("user", "hello")]))
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (prompt, 24)


def test_a_stream_adds_up_to_the_answer(client: openai.OpenAI) -> None:
    wanted: Any = {"model": "tiny", "messages": HELLO, "temperature": 0.9, "seed": 5, "max_tokens": 30}
    whole = client.chat.completions.create(**wanted)
    pieces = list(client.chat.completions.create(**wanted, stream=True, stream_options={"include_usage": True}))
    deltas = [piece.choices[0] for piece in pieces if piece.choices]
    assert deltas[0].delta.role == "assistant"
    assert "".join(delta.delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert [delta.finish_reason for delta in deltas][-1] == "length"
    assert len(deltas) > 10
    assert pieces[-1].usage == whole.usage


def test_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    wanted: Any = {"model": "tiny", "messages": HELLO, "temperature": 1.5, "seed": 3, "n": 3, "max_tokens": 12}
    first, second = (client.chat.completions.create(**wanted).choices for _ in range(2))
    assert [one.message.content for one in first] == [one.message.content for one in second]
    assert len({one.message.content for one in first}) == 3
    assert [one.index for one in first] == [0, 1, 2]


def test_a_stop_string_ends_the_answer_and_is_not_told(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt="abc", temperature=0, max_tokens=60).choices[0].text
    stop = whole[20:23]
    for stream in (False, True):
        said: Any = client.completions.create(
            model="tiny", prompt="abc", temperature=0, max_tokens=60, stop=stop, stream=stream
        )
        choices = [piece.choices[0] for piece in said] if stream else said.choices
        assert "".join(choice.text for choice in choices) == whole[: whole.index(stop)]
        assert choices[-1].finish_reason == "stop"


def test_prompts_may_be_texts_or_tokens_and_several(client: openai.OpenAI, server: Any) -> None:
    texts = ["one", "three four", "x"]
    tokens = [server.generator.tokenizer.encode(text).ids for text in texts]
    options = GenerationOptions(max_tokens=9, temperature=0)
    expected = ["".join(server.generator.generate(text, options)) for text in texts]
    for prompt in (texts, tokens):
        said = client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=9)
        assert [choice.text for choice in said.choices] == expected


@pytest.mark.parametrize("max_tokens", [0, 1, 4])
def test_echo_with_logprobs_scores_the_prompt(client: openai.OpenAI, server: Any, max_tokens: int) -> None:
    said = client.completions.create(
        model="tiny", prompt="score me", temperature=0, max_tokens=max_tokens, logprobs=3, echo=True
    ).choices[0]
    tokens = server.generator.tokenizer.encode(said.text).ids
    assert said.text.startswith("score me") and len(tokens) == 8 + max_tokens
    with torch.no_grad():
        logits = server.generator.model(torch.tensor([tokens]))[0, :-1, : server.generator.vocab_size]
    expected = score_tokens(logits, tokens[1:], 3)
    scores = said.logprobs
    assert scores is not None and scores.token_logprobs and scores.top_logprobs and scores.text_offset
    assert scores.token_logprobs[0] is None
    assert scores.token_logprobs[1:] == pytest.approx([one.log_probability for one in expected], abs=1e-4)
    assert scores.tokens == list(said.text)
    assert scores.text_offset == list(range(len(tokens)))
    greedy = max(scores.top_logprobs[3].items(), key=lambda pair: pair[1])
    assert greedy[1] == pytest.approx(expected[2].likeliest[0][1], abs=1e-4)


def test_chat_logprobs_have_tokens_and_alternatives(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, max_tokens=5, logprobs=True, top_logprobs=2
    ).choices[0]
    assert said.logprobs is not None and said.logprobs.content is not None
    assert "".join(one.token for one in said.logprobs.content) == said.message.content
    for one in said.logprobs.content:
        assert one.top_logprobs[0].token == one.token  # it is greedy
        assert one.logprob == pytest.approx(one.top_logprobs[0].logprob)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "kindling"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


CHAT = {"model": "tiny", "messages": HELLO, "max_tokens": 4}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("chat/completions", b"{", 400, "allowed: JSON"),
        ("chat/completions", b"[]", 400, "The body"),
        ("chat/completions", {"model": "tiny"}, 400, "messages: found no such field"),
        ("chat/completions", {**CHAT, "messages": []}, 400, "messages"),
        ("chat/completions", {**CHAT, "messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        (
            "chat/completions",
            {**CHAT, "max_tokens": -1},
            400,
            "max_tokens: found -1; allowed: greater than or equal to 0",
        ),
        ("chat/completions", {**CHAT, "max_tokens": 0}, 400, "max_tokens: found 0; allowed: from 1"),
        ("chat/completions", {**CHAT, "max_tokens": 10**9}, 400, "max_tokens: found 1000000000; allowed: at most 400"),
        ("chat/completions", {**CHAT, "max_tokens": "4"}, 400, "max_tokens: found '4'; allowed: a valid integer"),
        ("chat/completions", {**CHAT, "temperature": -1}, 400, "temperature"),
        ("chat/completions", {**CHAT, "top_p": -1}, 400, "top_p"),
        ("chat/completions", {**CHAT, "n": 10_000}, 400, "n: found 10000; allowed: less than or equal to 128"),
        ("chat/completions", {**CHAT, "stop": [""]}, 400, "stop"),
        ("chat/completions", {**CHAT, "frequency_penalty": 1}, 400, "frequency_penalty"),
        ("chat/completions", {**CHAT, "tools": [{"type": "function"}]}, 400, "tools"),
        ("chat/completions", {**CHAT, "model": "gpt"}, 404, "The model `gpt` does not exist here; there is `tiny`."),
        ("chat/completions", {**CHAT, "messages": [{"role": "user", "content": "x" * 999}]}, 400, "context has 128"),
        ("completions", {"model": "tiny", "prompt": [999]}, 400, "prompt: found token 999"),
        ("completions", {"model": "tiny", "prompt": [-1]}, 400, "prompt"),
        ("completions", {"model": "tiny", "prompt": []}, 400, "prompt"),
        ("completions", {"model": "tiny", "prompt": ["x"] * 200}, 400, "prompt: 200 of them with n = 1"),
        ("completions", {"model": "tiny", "prompt": "x" * 200_000}, 413, "at most 100000 are allowed"),
        ("nothing", {}, 404, "Not Found"),
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(server: Any, path: str, body: Any, status: int, words: str) -> None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    found, document = post(f"{server.url}/v1/{path}", text)
    assert found == status
    assert words in document["error"]["message"]
    assert post(f"{server.url}/v1/chat/completions", json.dumps(CHAT).encode())[0] == 200  # it is still there


def test_a_context_that_is_full_is_gone_on_from_its_newer_half(client: openai.OpenAI) -> None:
    said = client.completions.create(model="tiny", prompt="x" * 120, temperature=0, max_tokens=300)
    assert len(said.choices[0].text) == 300


def test_a_base_model_continues_the_dialogue_as_one_text(serve: Any, tiny: Any) -> None:
    server = serve(tiny(chat=False))
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    messages: Any = [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "cd"},
        {"role": "user", "content": "e"},
    ]
    said = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=9)
    options = GenerationOptions(max_tokens=9, temperature=0)
    assert said.choices[0].message.content == "".join(server.generator.generate("abcde", options))


def test_with_a_key_only_those_who_have_it_are_served(serve: Any) -> None:
    server = serve(api_key="secret")
    right = openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0)
    assert right.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2).choices
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="guess", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="Wrong API key"):
        wrong.models.list()
    for path in ("models", "models/tiny"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{server.url}/v1/{path}")
    assert post(f"{server.url}/v1/completions", b"{}")[0] == 401
    with urllib.request.urlopen(f"{server.url}/health") as response:
        assert json.loads(response.read()) == {"status": "ok"}


def test_metrics_count_requests_and_tokens(serve: Any) -> None:
    server = serve()
    post(f"{server.url}/v1/chat/completions", json.dumps(CHAT).encode())
    post(f"{server.url}/v1/chat/completions", b"{")
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        lines = response.read().decode().splitlines()
    route = 'route="/v1/chat/completions"'
    assert f'kindling_serve_requests_total{{{route},status="200"}} 1.0' in lines
    assert f'kindling_serve_requests_total{{{route},status="400"}} 1.0' in lines
    assert "kindling_serve_tokens_total 4.0" in lines
    assert "kindling_serve_active 0.0" in lines

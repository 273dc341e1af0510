"""One request never harms another: whatever its values, it alone is refused, and a fault ends one answer."""

from __future__ import annotations

import http.client
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

Ask = tuple[str, dict[str, Any]]

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "tiny", "messages": HELLO, "max_tokens": 24}
TEXT = {"model": "tiny", "prompt": "once upon", "max_tokens": 24}
LATER = "<pad>"

HONEST: list[Ask] = [
    ("chat/completions", {**CHAT, "temperature": 0}),
    ("chat/completions", {**CHAT, "temperature": 0, "stream": True}),
    ("chat/completions", {**CHAT, "seed": 1, "n": 3}),
    ("chat/completions", {**CHAT, "seed": 2, "top_p": 0.9, "stream": True}),
    ("completions", {**TEXT, "temperature": 0, "echo": True}),
    ("completions", {**TEXT, "temperature": 0, "prompt": ["a", "once upon a time", "x" * 100]}),
    ("completions", {**TEXT, "seed": 3, "top_k": 5, "repetition_penalty": 1.2}),
    ("completions", {**TEXT, "seed": 4, "stop": ["a", "e"], "max_tokens": 60}),
    ("completions", {**TEXT, "seed": 5, "prompt": [1, 2, 3], "max_tokens": 200}),
]

REFUSED: list[Ask] = [
    *(("chat/completions", {**CHAT, "temperature": value}) for value in (1e-38, 1e-320, -1, 1e300, "1", [0.5])),
    *(("completions", {**TEXT, "top_p": value}) for value in (1e-320, 1e-38, -0.1, 1.5, {})),
    *(("completions", {**TEXT, "repetition_penalty": value}) for value in (1e-40, 0, 1e38, True)),
    *(("completions", {**TEXT, "prompt": value}) for value in ([261], [2**31], [10**30], [-1], [[1], [99999]], {})),
    ("completions", {**TEXT, "prompt": f"hello {LATER}"}),
    ("completions", {**TEXT, "prompt": [1, 2, 261]}),
    ("completions", {**TEXT, "prompt": ["fine", LATER]}),
    *(("completions", {**TEXT, "max_tokens": value}) for value in (10**9, 10**30, -1, 1.5, "many")),
    *(("completions", {**TEXT, "n": value}) for value in (0, -3, 10**6, 10**40)),
    *(("completions", {**TEXT, "stop": value}) for value in ("", ["x" * 1000], ["a"] * 100, [None], 5)),
    *(("completions", {**TEXT, "logprobs": value}) for value in (-1, 10**6, "all")),
    ("chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 10**6}),
    ("chat/completions", {**CHAT, "logit_bias": {"5": 1e38}}),
    ("chat/completions", {**CHAT, "messages": [{"role": "user", "content": "x" * 5000}]}),
    ("chat/completions", {**CHAT, "messages": [{"role": "user"}]}),
    ("chat/completions", {**CHAT, "messages": HELLO * 5000}),
    ("completions", {**TEXT, "seed": "one"}),
]

RAW = [
    b"",
    b"{",
    b'{"model": "tiny", "prompt": "\xff\xfe"}',
    b'{"model": "tiny", "prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 6000 + b"}",
    b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
    b'{"model": "tiny", "prompt": "a", "temperature": Infinity}',
    b'{"model": "tiny", "prompt": "a", "temperature": 1e999}',
]

ALLOWED: list[Ask] = [
    ("completions", {**TEXT, "temperature": 0.001}),
    ("completions", {**TEXT, "temperature": 100, "top_p": 0}),
    ("completions", {**TEXT, "seed": 10**30, "top_k": 10**30}),
    ("completions", {**TEXT, "seed": -(2**70), "top_k": -5}),
    ("completions", {**TEXT, "repetition_penalty": 0.01, "temperature": 0.001}),
    ("completions", {**TEXT, "prompt": "", "stop": ["x" * 256] * 16}),
    ("completions", {**TEXT, "prompt": "x" * 128, "n": 20, "max_tokens": 3}),
    ("completions", {**TEXT, "prompt": "\0\ufffe\u2028\U0010ffff", "logprobs": 20, "echo": True}),
]


def answer(server: Any, path: str, body: bytes) -> tuple[int, Any]:
    """The status, and what does not differ from one answer to the next of the same request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", f"/v1/{path}", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")] or [text]
    documents = [json.loads(line) for line in lines]
    return response.status, [{**document, "id": "", "created": 0} for document in documents]


def ask(server: Any, asked: Ask) -> tuple[int, Any]:
    return answer(server, asked[0], json.dumps(asked[1]).encode())


def test_no_honest_answer_changes_by_a_byte_among_two_hundred_hostile_requests(serve: Any, tiny: Any) -> None:
    server = serve(tiny(later=LATER), slots=8, line=1000, body_bytes=400_000)
    alone = [ask(server, asked) for asked in HONEST]
    assert {status for status, _ in alone} == {200}

    hostile = [("completions", body, 400) for body in RAW]
    hostile += [(path, json.dumps(document).encode(), 400) for path, document in REFUSED]
    hostile += [(path, json.dumps(document).encode(), 200) for path, document in ALLOWED]
    many = (hostile * (200 // len(hostile) + 1))[:200]
    work: list[Any] = [*many, *(list(range(len(HONEST))) * 6)]
    random.Random(3).shuffle(work)

    def do(item: Any) -> None:
        if isinstance(item, int):
            assert ask(server, HONEST[item]) == alone[item]
        else:
            path, body, expected = item
            status, (document, *_) = answer(server, path, body)
            assert (status, body[:200]) == (expected, body[:200]), document

    with ThreadPoolExecutor(24) as pool:
        for done in [pool.submit(do, item) for item in work]:
            done.result()


@pytest.mark.parametrize(
    ("document", "param", "words"),
    [
        ({"temperature": 1e-38}, "temperature", "found 1e-38; allowed: 0 (greedy), or 0.001 to 100. To fix it: use"),
        ({"top_p": 1e-320}, "top_p", "allowed: 0 (the likeliest token alone), or 0.000001 to 1. To fix it: leave"),
        ({"prompt": [261]}, "prompt", "found '<pad>', which is token 261; allowed: tokens below 261, for"),
        ({"prompt": [10**30]}, "prompt", f"found token {10**30}; allowed: tokens below 261"),
        ({"prompt": "a <pad>"}, "prompt", "found '<pad>', which is token 261; allowed: tokens below 261, for"),
        ({"n": 0}, "n", "n: found 0; allowed: greater than or equal to 1. To fix it: correct it, or leave it out"),
    ],
    ids=str,
)
def test_a_refusal_names_field_found_allowed_and_remedy(
    serve: Any, tiny: Any, document: dict[str, Any], param: str, words: str
) -> None:
    status, (refusal,) = ask(serve(tiny(later=LATER)), ("completions", {**TEXT, **document}))
    assert status == 400
    assert refusal["error"]["param"] == param
    assert words in refusal["error"]["message"]


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_a_fault_of_the_model_ends_one_answer(serve: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    generator = tiny()
    server = serve(generator)
    alone = [ask(server, asked) for asked in HONEST]
    culprit = generator.tokenizer.encode("é").ids[-1]
    right = generator.model.forward

    def forward(tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        found = tokens == culprit
        if how == "raises" and found.any():
            raise RuntimeError("not this token")
        return right(tokens, cache).masked_fill(found[..., None], torch.nan)

    monkeypatch.setattr(generator.model, "forward", forward)
    bad = ("completions", {**TEXT, "prompt": "é"})
    with ThreadPoolExecutor(16) as pool:
        answers = [(number, pool.submit(ask, server, HONEST[number])) for number in list(range(len(HONEST))) * 4]
        faults = [pool.submit(ask, server, bad) for _ in range(20)]
    assert {fault.result()[0] for fault in faults} == {500}
    for number, given in answers:
        assert given.result() == alone[number]

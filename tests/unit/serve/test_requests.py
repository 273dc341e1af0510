"""Requests as other servers' clients send them: what they mean here, or which field is refused."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from kindling_serve.completions import ChatExchange
from kindling_serve.errors import ApiError
from kindling_serve.messages import ChatMessage
from kindling_serve.protocol import ChatRequest, CompletionRequest, parse
from kindling_serve.settings import ServeSettings
from kindling_trainer.chat.message import Message

HELLO = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"messages": HELLO, "max_tokens": 6, "seed": 1}
TEXT: dict[str, Any] = {"prompt": "once", "max_tokens": 6, "seed": 1}
JSON = {"Content-Type": "application/json"}


def send(server: Any, path: str, body: bytes, headers: dict[str, str] | dict[bytes, bytes] = JSON) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", f"/v1/{path}", body, headers)  # type: ignore[arg-type]
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text)


def text_of(server: Any, path: str, document: dict[str, Any]) -> str:
    status, answer = send(server, path, json.dumps(document).encode())
    assert status == 200, answer
    (choice,) = answer["choices"]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


@pytest.mark.parametrize(
    ("path", "kind", "required"),
    [("chat/completions", ChatRequest, CHAT), ("completions", CompletionRequest, TEXT)],
    ids=["chat", "text"],
)
def test_null_means_the_default_in_every_field(server: Any, path: str, kind: Any, required: dict[str, Any]) -> None:
    nulls = dict.fromkeys(["tools", "logit_bias", "min_tokens", *kind.model_fields])
    assert text_of(server, path, {**nulls, **required}) == text_of(server, path, required)


def test_null_is_no_dialogue(server: Any) -> None:
    status, refusal = send(server, "chat/completions", b'{"messages": null}')
    assert (status, refusal["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ({"role": "developer", "content": "be brief"}, ("system", "be brief")),
        ({"role": "assistant", "content": None}, ("assistant", "")),
        ({"role": "assistant"}, ("assistant", "")),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, ("assistant", "no")),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ("user", "ab")),
        (
            {"role": "tool", "tool_call_id": "1", "content": "18 °C"},
            ("user", '{"tool_response": {"tool_call_id": "1", "content": "18 °C"}}'),
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Rome"}'}}
                ],
            },
            (
                "assistant",
                '{"tool_calls": [{"id": "1", "name": "weather", "arguments": "{\\"at\\": \\"Rome\\"}"}]}',
            ),
        ),
    ],
    ids=["developer", "null", "nothing", "refusal", "parts", "tool", "tool calls"],
)
def test_a_message_becomes_one_text(server: Any, message: dict[str, Any], plain: tuple[str, str]) -> None:
    body = json.dumps({**CHAT, "messages": [*HELLO, message]}).encode()
    assert parse(ChatRequest, body).messages[1].plain() == Message(*plain)
    assert send(server, "chat/completions", body)[0] == 200


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": None}, "messages.1.content: found null; allowed: a text or a list of text parts"),
        ({"role": "user"}, "messages.1.content: found null"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages.1.content.0.type: found 'image_url'; allowed: 'text' or 'refusal'",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.1.content.0.text: found no such field"),
        ({"role": "robot", "content": "a"}, "messages.1.role: found 'robot'; allowed: 'system', 'developer', 'user'"),
        ({"role": None, "content": "a"}, "messages.1.role"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages.1.tool_calls.0.function: found no such field"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_a_message_of_another_form_is_refused_by_field(message: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiError) as refusal:
        parse(ChatRequest, json.dumps({"messages": [*HELLO, message]}).encode())
    assert refusal.value.message.startswith(words)
    assert words.startswith(refusal.value.param or "?")


@pytest.mark.parametrize(
    ("escaped", "meant"),
    [
        (rb"a\ud83d", "a\ufffd"),
        (rb"\uDE42b", "\ufffdb"),
        (rb"\ud83d\ud83d\ude42", "\ufffd\U0001f642"),
        (rb"\ud83d\ude42", "\U0001f642"),
        (rb"\\ud83d \" \u00e9", '\\ud83d " é'),
        (rb"\\\ud83dx", "\\\ufffdx"),
    ],
)
def test_half_a_character_is_replaced(escaped: bytes, meant: str) -> None:
    assert parse(CompletionRequest, b'{"prompt": "%b"}' % escaped).prompt == meant


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize(
    ("field", "value", "harmless"),
    [
        ("min_tokens", 3, 0),
        ("stop_token_ids", [5], []),
        ("bad_words", ["a"], []),
        ("guided_json", {"type": "object"}, None),
        ("guided_choice", ["a", "b"], None),
        ("structured_outputs", {"choice": ["a"]}, {}),
        ("grammar", "root ::= [a-z]", ""),
        ("json_schema", {"type": "string"}, {}),
        ("response_format", {"type": "json_object"}, {"type": "text"}),
        ("tool_choice", "required", "auto"),
        ("tools", [{"type": "function"}], []),
        ("modalities", ["audio"], ["text"]),
        ("continue_final_message", True, False),
        ("frequency_penalty", 0.5, 0),
        ("presence_penalty", -1, 0.0),
        ("logit_bias", {"5": 1}, {}),
        ("include_stop_str_in_output", True, False),
        ("use_beam_search", True, False),
        ("n_predict", 5, -1),
    ],
)
def test_what_would_change_the_answer_and_is_not_honoured_is_refused_by_name(
    brief_server: Any, path: str, field: str, value: Any, harmless: Any
) -> None:
    required = {**(CHAT if path.startswith("chat") else TEXT), "max_tokens": 2}
    status, refusal = send(brief_server, path, json.dumps({**required, field: value}).encode())
    assert (status, refusal["error"]["param"]) == (400, field)
    assert refusal["error"]["message"].startswith(f"{field}: found ")
    assert refusal["error"]["message"].endswith("To fix it: leave it out.")
    assert send(brief_server, path, json.dumps({**required, field: harmless, "anything": 1}).encode())[0] == 200


@pytest.mark.parametrize(
    ("kind", "document", "words"),
    [
        (CompletionRequest, {"suffix": "end"}, "suffix: found 'end'; allowed: '', as this server does not honour it."),
        (CompletionRequest, {"best_of": 3, "n": 2}, "best_of: found 3; allowed: 2, which is n"),
        (ChatRequest, {**CHAT, "echo": True}, "echo: found True; allowed: False, as this server does not honour it."),
        (ChatRequest, {**CHAT, "top_logprobs": 2}, "top_logprobs: found 2; allowed: with logprobs: true alone."),
        (ChatRequest, {**CHAT, "stream_options": {}}, "stream_options: found no stream; allowed: with stream: true"),
        (ChatRequest, {**CHAT, "min_p": 2}, "min_p: found 2.0; allowed: over 0, at most 1."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_that_another_contradicts_is_refused(kind: Any, document: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiError) as refusal:
        parse(kind, json.dumps(document).encode())
    assert refusal.value.message.startswith(words)


def test_min_p_of_one_takes_the_likeliest(server: Any) -> None:
    greedy = text_of(server, "completions", {**TEXT, "temperature": 0})
    wild = {**TEXT, "temperature": 5}
    assert text_of(server, "completions", {**wild, "min_p": 1}) == greedy != text_of(server, "completions", wild)


def test_with_ignore_eos_an_answer_goes_on_to_its_length(serve: Any, tiny: Any) -> None:
    generator = tiny()
    stop = max(generator.stops)
    generator.model.head.weight.data[stop] = (
        generator.model.head.weight.data[generator.tokenizer.token_to_id("a")] * 1.5
    )
    server = serve(generator)
    wanted = {**TEXT, "max_tokens": 50, "temperature": 1, "seed": 3}
    ends = [
        send(server, "completions", json.dumps({**wanted, "ignore_eos": ignore}).encode())[1]
        for ignore in (False, True)
    ]
    assert [end["choices"][0]["finish_reason"] for end in ends] == ["stop", "length"]
    assert ends[0]["usage"]["completion_tokens"] < ends[1]["usage"]["completion_tokens"] == 50


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_without_a_key_only_json_is_taken(server: Any, serve: Any, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    status, refusal = send(server, "completions", json.dumps(TEXT).encode(), headers)
    assert (status, refusal["error"]["param"]) == (415, "Content-Type")
    assert "allowed: application/json" in refusal["error"]["message"]


def test_json_may_name_its_charset_and_with_a_key_any_type_is_taken(server: Any, serve: Any) -> None:
    body = json.dumps(TEXT).encode()
    assert send(server, "completions", body, {"Content-Type": "Application/JSON; charset=utf-8"})[0] == 200
    keyed = serve(api_key="secret")
    assert send(keyed, "completions", body, {"Content-Type": "text/plain", "Authorization": "Bearer secret"})[0] == 200


@pytest.mark.parametrize("key", ["clé", "clé-ключ", "naïveà"])
def test_a_key_may_have_letters_outside_ascii(serve: Any, key: str) -> None:
    server = serve(api_key=key)
    given = [key.encode()] + ([key.encode("latin-1")] if key.isascii() or max(key) < "\u0100" else [])
    for sent in given:
        header = {b"Authorization": b"Bearer " + sent, b"Content-Type": b"application/json"}
        assert send(server, "completions", json.dumps(TEXT).encode(), header)[0] == 200
    wrong = {b"Authorization": "Bearer clè".encode(), b"Content-Type": b"application/json"}
    assert send(server, "completions", json.dumps(TEXT).encode(), wrong)[0] == 401


def preflight(server: Any, origin: str) -> tuple[int, str | None]:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", headers=headers, method="OPTIONS")
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Access-Control-Allow-Origin"]


def test_web_pages_of_allowed_origins_may_use_the_endpoint(serve: Any) -> None:
    server = serve(origins=("https://good.example",), api_key="secret")
    assert preflight(server, "https://good.example") == (200, "https://good.example")
    assert preflight(server, "https://evil.example") == (400, None)
    everybody = serve(origins=("*",))
    assert preflight(everybody, "https://any.example")[0] == 200
    body = json.dumps(TEXT).encode()
    request = urllib.request.Request(f"{everybody.url}/v1/completions", body, {**JSON, "Origin": "https://any.example"})
    with urllib.request.urlopen(request) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_without_that_option_no_web_page_may(server: Any) -> None:
    assert preflight(server, "https://any.example") == (405, None)


def test_a_chat_ends_with_its_context_and_says_so(server: Any) -> None:
    document = {**CHAT, "messages": [{"role": "user", "content": "x" * 90}], "max_tokens": 300, "ignore_eos": True}
    _, answer = send(server, "chat/completions", json.dumps(document).encode())
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == server.generator.model.shape.context


def turns(count: int) -> list[ChatMessage]:
    said = [ChatMessage(role="system", content="be brief")]
    for number in range(count):
        said += [ChatMessage(role="user", content=f"question {number}"), ChatMessage(role="assistant", content="so!")]
    return [*said, ChatMessage(role="user", content="and now?")]


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_where_old_turns_may_be_forgotten_they_go_whole_and_the_system_message_stays(tiny: Any, chat: bool) -> None:
    generator = tiny(chat=chat)
    request = ChatRequest(messages=turns(12), max_tokens=40)
    with pytest.raises(ApiError, match="The prompt has"):
        ChatExchange(request, generator, ServeSettings(name="tiny"))
    (task,) = ChatExchange(request, generator, ServeSettings(name="tiny"), forget=True).tasks
    kept = generator.recent([message.plain() for message in request.messages], 40)
    assert list(task.tokens) == generator.prompt(kept)
    assert len(task.tokens) + 40 <= generator.model.shape.context
    assert (kept[0].content, kept[1].role, kept[-1].content) == ("be brief", "user", "and now?")
    assert kept[1:] == [message.plain() for message in request.messages][-len(kept) + 1 :]
    assert len(kept) > 2


def test_a_short_dialogue_is_kept_whole_and_a_long_message_is_never_cut(tiny: Any) -> None:
    generator = tiny()
    short = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert generator.recent(short, 20) == short
    long = [Message("system", "s"), Message("user", "a"), Message("user", "x" * 500)]
    assert generator.recent(long, 20) == [long[0], long[2]]


def test_offsets_of_a_stream_with_echo_are_those_of_the_whole_answer(server: Any) -> None:
    document = {**TEXT, "echo": True, "logprobs": 1, "n": 2, "max_tokens": 9}
    _, whole = send(server, "completions", json.dumps(document).encode())
    request = urllib.request.Request(
        f"{server.url}/v1/completions", json.dumps({**document, "stream": True}).encode(), JSON
    )
    with urllib.request.urlopen(request) as response:
        lines = [line.removeprefix(b"data: ") for line in response.read().splitlines() if line.startswith(b"data: {")]
    pieces = [json.loads(line)["choices"][0] for line in lines]
    for choice in whole["choices"]:
        mine = [piece for piece in pieces if piece["index"] == choice["index"]]
        for name in ("tokens", "text_offset"):
            assert [one for piece in mine for one in piece["logprobs"][name]] == choice["logprobs"][name]
        assert "".join(piece["text"] for piece in mine) == choice["text"]
        assert choice["logprobs"]["text_offset"] == list(range(len(choice["text"])))

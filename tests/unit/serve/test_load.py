"""Many clients, slow ones, and those who leave: the others are served, and nothing is kept for whoever is gone."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

HELLO = [{"role": "user", "content": "hello"}]
LONG = {"model": "tiny", "prompt": "x", "max_tokens": 4000, "temperature": 0, "stream": True}


def figure(server: Any, name: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        lines = response.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"kindling_serve_{name} ")).split()[1])


def wait_until(server: Any, name: str, value: float, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while figure(server, name) != value:
        assert time.monotonic() < until, f"{name} is {figure(server, name)}"
        time.sleep(0.02)


def connect(server: Any, document: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
    """A client that has asked, and reads nothing yet."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.slow
def test_fifty_clients_at_once_are_served_fairly(serve: Any) -> None:
    server = serve(slots=8)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=60)

    def ask(number: int) -> tuple[str, float]:
        start = time.monotonic()
        stream = client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=20, temperature=0.9, seed=number, stream=True
        )
        text = "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)
        return text, time.monotonic() - start

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    alone = [ask(number)[0] for number in (0, 17, 49)]
    assert [answers[number][0] for number in (0, 17, 49)] == alone  # who else is served does not matter
    times = sorted(seconds for _, seconds in answers)
    assert times[-1] < 6 * statistics.median(times) + 1
    assert figure(server, "active") == figure(server, "waiting") == 0


def test_who_finds_the_line_full_is_told_so_and_the_others_are_served(serve: Any) -> None:
    server = serve(slots=1, line=1)
    busy = connect(server, LONG)
    wait_until(server, "active", 1)
    second = connect(server, LONG)
    wait_until(server, "waiting", 1)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    with pytest.raises(openai.RateLimitError) as refusal:
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2)
    assert refusal.value.response.headers["Retry-After"] == "1"
    busy.close()
    second.close()
    wait_until(server, "waiting", 0)
    wait_until(server, "active", 0)
    assert client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2).choices


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(serve: Any, stream: bool) -> None:
    server = serve(slots=1)
    leaving = connect(server, {**LONG, "stream": stream})
    wait_until(server, "active", 1)
    start = time.monotonic()
    leaving.close()
    wait_until(server, "active", 0)
    assert time.monotonic() - start < 3


@pytest.mark.slow
def test_a_client_that_reads_nothing_holds_up_nobody_and_is_let_go(serve: Any) -> None:
    server = serve(slots=2, client_timeout=1.0, most_tokens=40_000)
    sleeper = socket.socket()
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sleeper.connect(("127.0.0.1", server.port))
    body = json.dumps({**LONG, "max_tokens": 40_000, "logprobs": 20}).encode()
    sleeper.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body
    )
    wait_until(server, "active", 1)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    for _ in range(3):
        assert client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=5).choices
    wait_until(server, "active", 0, seconds=20)
    sleeper.close()


def test_a_request_that_never_ends_is_refused(serve: Any) -> None:
    server = serve(client_timeout=0.5)
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        slow.sendall(head + b"Content-Length: 1000\r\n\r\n{")
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_failure_of_the_model_is_told_and_the_next_request_is_served(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    with monkeypatch.context() as patch:
        patch.setattr("kindling_trainer.inference.batching.choose_each", lambda *_: 1 / 0)
        with pytest.raises(openai.InternalServerError, match="failed to continue"):
            client.completions.create(model="tiny", prompt="a", max_tokens=4)
    assert client.completions.create(model="tiny", prompt="a", max_tokens=4).choices[0].text


def test_a_server_that_is_asked_to_end_finishes_its_answers(serve: Any) -> None:
    server = serve()
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    texts: list[str] = []

    def ask() -> None:
        texts.append(client.completions.create(model="tiny", prompt="a", max_tokens=60, temperature=0).choices[0].text)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(server, "active", 1)
    server.stop()
    asking.join(timeout=10)
    assert len(texts[0]) == 60

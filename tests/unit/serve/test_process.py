"""The program of the image, and `kindling serve`: from a model's folder to answers, and to a quiet end."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from kindling_api.errors import SpecError
from kindling_cli.commands.chat import converse
from kindling_cli.load_model import load_generator
from kindling_storage import open_store
from kindling_trainer.chat.message import Message
from kindling_trainer.checkpoint.huggingface import ChatFiles, export
from kindling_trainer.inference.batching import Chosen, DecodingBatch, continue_all
from kindling_trainer.inference.generate import load_model
from kindling_trainer.inference.sampling import GenerationOptions

pytestmark = pytest.mark.slow

HELLO: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello <|end|> there"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    """A model's folder as a run exports it."""
    path = tmp_path_factory.mktemp("model")
    model = tiny()
    assert model.chat is not None
    (stop,) = model.other_stops
    export(
        open_store(path.as_uri()),
        list(model.model.named_parameters()),
        model.model.shape,
        vocab_size=model.vocab_size,
        tokenizer=model.tokenizer.to_str().encode(),
        end_of_document=model.end_of_document,
        chat=ChatFiles(model.chat.exported, stop),
    )
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(params=["kindling_serve", "kindling_cli.main"])
def running(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address once it answers."""
    port = free_port()
    what = ["kindling_serve", folder.as_uri(), "--name", "tiny", "--log=json"]
    if request.param == "kindling_cli.main":
        what = ["kindling_cli.main", "serve", str(folder), "--name", "tiny"]
    command = [sys.executable, "-m", *what, "--host", "127.0.0.1", "--port", str(port), "--no-page"]
    environment = {**os.environ, "KINDLING_API_KEY": "secret"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as response:
                assert json.loads(response.read()) == {"status": "ok"}
                break
        except OSError:
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.1)
    yield process, f"http://127.0.0.1:{port}"
    process.kill()


def test_a_model_is_served_until_the_process_is_asked_to_end(
    running: tuple[subprocess.Popen[str], str], folder: Path
) -> None:
    process, url = running
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0)
    said = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=32)
    model = load_model(folder)
    messages = [Message(one["role"], one["content"]) for one in HELLO]
    options = GenerationOptions(max_tokens=32, temperature=0)
    assert said.choices[0].message.content == "".join(model.answer(messages, options))
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="guess").models.list()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (0, False), errors
    if "kindling_serve" not in str(process.args):
        assert errors == "", "the laptop's screen is not disturbed"
        return
    lines = [json.loads(line) for line in errors.splitlines()]
    assert lines[0]["message"] == f"reading {folder.as_uri()}"
    assert lines[1]["message"] == f"tiny is served at {url}"
    requests = [(line["method"], line["route"], line["status"], line.get("tokens")) for line in lines[2:]]
    asked = ("POST", "/v1/chat/completions", 200, said.usage.completion_tokens)
    assert requests == [asked, ("GET", "/v1/models", 401, None)]
    assert HELLO[0]["content"] not in errors and {line["model"] for line in lines} == {"tiny"}


def test_the_terminal_speaks_the_chat_template(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/system be brief\nhello\nand again\n/quit\n"))
    converse(str(folder), store=str(folder), max_tokens=8, temperature=0.0)
    said = capsys.readouterr().out
    model, options = load_model(folder), GenerationOptions(max_tokens=8, temperature=0)
    turns = [Message("system", "be brief"), Message("user", "hello")]
    first = "".join(model.answer(turns, options))
    turns += [Message("assistant", first), Message("user", "and again")]
    second = "".join(model.answer(turns, options))
    assert "You are talking to" in said
    assert f"{first}\n" in said and f"{second}\n" in said


def test_a_gpu_that_is_not_there_is_told_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for read in (lambda: load_model(tmp_path, "cuda"), lambda: load_generator(str(tmp_path), "none", "cuda")):
        with pytest.raises(SpecError, match=r"--device: found cuda, and no GPU that PyTorch .* can use; allowed: cpu"):
            read()


def test_a_model_in_bfloat16_generates_as_one_in_fp32_but_for_rounding(folder: Path) -> None:
    model = load_model(folder).model
    half = load_model(folder).model.to(torch.bfloat16)
    options = GenerationOptions(max_tokens=12, temperature=0)
    (found,) = continue_all(half, [([5, 3, 8], options)])
    batch = DecodingBatch(model)
    row = batch.join([5, 3, 8], options, likeliest=model.embedding.weight.shape[0])
    for token, log_probability in zip(found.tokens, found.log_probabilities, strict=True):
        ((_, chosen),) = batch.step()
        assert isinstance(chosen, Chosen)
        assert dict(chosen.likeliest)[token] == pytest.approx(log_probability, abs=0.1)
        row.tokens[-1] = token


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kindling_serve", tmp_path.as_uri(), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    assert "config.json: found no such file" in done.stderr


def test_a_port_that_is_taken_is_refused(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "kindling_cli.main", "serve", str(folder), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}: found Address already in use; allowed: a free port" in done.stderr

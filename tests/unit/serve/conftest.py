"""Tiny models behind a real server on a free port, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import uvicorn
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from kindling_api.v1alpha1.model import ModelShape
from kindling_serve.server import application, listen_at
from kindling_serve.settings import ServeSettings
from kindling_trainer.chat.template import DEFAULT, ChatTemplate, add_special_tokens
from kindling_trainer.inference.generate import Generator
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """One token a byte, and one that ends a document."""
    return bytes_tokenizer()


@pytest.fixture(scope="session", name="tiny")
def tiny_models() -> Callable[..., Generator]:
    """Makes models of random weights."""
    return tiny


def bytes_tokenizer() -> Tokenizer:
    """One token a byte, and one that ends a document."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    return tokenizer


def tiny(*, chat: bool = True, context: int = 128, layers: int = 2, seed: int = 4, later: str = "") -> Generator:
    """A model of random weights that prefers ASCII letters, as a talking one would.

    `later` is a token that the tokenizer got after the model, which has no embedding for it.
    """
    tokenizer = bytes_tokenizer()
    end = tokenizer.token_to_id("<|endoftext|>")
    template, stops = None, frozenset[int]()
    if chat:
        add_special_tokens(tokenizer, DEFAULT)
        template = ChatTemplate(DEFAULT, tokenizer)
        stops = frozenset({tokenizer.token_to_id("<|end|>")})
    sizes = {"layers": layers, "heads": 2, "kv_heads": 2, "width": 16, "ffn_width": 32, "context": context}
    model = build_model(ModelShape.model_validate({"architecture": "llama", **sizes}), 1 + max(stops, default=end))
    if later:
        tokenizer.add_tokens([AddedToken(later, normalized=False)])
    initialize(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
        letters = [tokenizer.token_to_id(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
        others = [token for token in range(model.head.weight.shape[0]) if token not in letters]
        model.head.weight[others] *= 0.1
    return Generator(model.eval(), tokenizer, end, template, stops)


class Server:
    """A running server."""

    def __init__(self, generator: Generator, adapted: dict[str, Generator] | None = None, **settings: Any) -> None:
        self.generator = generator
        self.settings = ServeSettings(**{"name": "tiny", "page": False, **settings})
        self.listener = listen_at("127.0.0.1", 0, self.settings.client_timeout)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = application(generator, self.settings, adapted)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.listener]}, daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()


ServerFactory = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[ServerFactory]:
    """Starts servers; they end with the test."""
    servers: list[Server] = []

    def start(generator: Generator | None = None, **settings: Any) -> Server:
        server = Server(generator or tiny(), **settings)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for the tests of a module that ask for nothing special."""
    server = Server(tiny(), body_bytes=100_000, most_tokens=400)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def brief_server() -> Iterator[Server]:
    """One whose answers are short."""
    server = Server(tiny(), body_bytes=100_000, most_tokens=4)
    server.start()
    yield server
    server.stop()
